"""The strings against brute force: modes, test strings, masks, steps, bits, distances and rewards."""

import hashlib
import itertools

import numpy as np
import pytest
import torch
from each import each

from bitseq import environment as module
from bitseq.evaluation import all_states

H = ["00000000", "11111111", "11110000", "00001111", "00111100"]
MODES_SHA256 = "9a87d03fd92e0f81f966b3217dca474dfaf0be5d57930614ff30593af84cfcf5"
TEST_SET_SHA256 = "6980d1933fc4570f5b50efdd9f5951c9f9326d5d7df4f661aa5e7fa68895a903"
SMALL = [(8, 1), (8, 2), (8, 4), (8, 8), (16, 8)]  # (n, k); (8, 8) has one position


@pytest.fixture(params=[(8, 2), (8, 4), (8, 8)], ids=lambda size: "n={}, k={}".format(*size))
def environment(request, strings):
    return strings(*request.param)


def modes_one_block_at_a_time(n, m_size):
    rng = np.random.RandomState(42)
    return ["".join(rng.choice(H) for _ in range(n // 8)) for _ in range(m_size)]


def flipped_one_string_at_a_time(n, m_size):
    rng, found = np.random.RandomState(42), []
    for mode in modes_one_block_at_a_time(n, m_size):
        found.append(mode)
        for i in range(1, n):
            flip = set(rng.choice(range(n), size=i, replace=False).tolist())
            found.append("".join("10"[int(bit)] if d in flip else bit for d, bit in enumerate(mode)))
    return found


def hamming(left, right):
    return sum(a != b for a, b in zip(left, right, strict=True))


def as_text(environment, state):
    """The bits of a full state, by format()."""
    return "".join(format(word, f"0{environment.k}b") for word in state)


def sha256(strings):
    return hashlib.sha256("\n".join(strings).encode()).hexdigest()


def strings_of_the_correlation(n=120, m_size=60):
    """Those of the reward correlation as text."""
    return ["".join(map(str, row)) for row in module.test_bits(n, m_size)]


def test_the_papers_modes_and_test_strings():
    assert sha256(module.mode_strings()) == MODES_SHA256
    assert sha256(strings_of_the_correlation()) == TEST_SET_SHA256
    assert len(module.mode_strings()) == 60 and len(strings_of_the_correlation()) == 7_200


def test_distances_between_the_papers_modes():
    apart = [hamming(a, b) for a, b in itertools.combinations(module.mode_strings(), 2)]
    assert (min(apart), np.median(apart), max(apart)) == (28, 56, 84)


@each("n,m_size", [(8, 1), (8, 5), (8, 25), (16, 7), (24, 3), (120, 60), (200, 70)])
def test_modes_of_any_size_by_the_same_rule(n, m_size):
    assert module.mode_strings(n, m_size) == modes_one_block_at_a_time(n, m_size)


def test_modes_that_repeat_are_not_drawn_again():
    modes = module.mode_strings(8, 5)
    assert len(modes) == 5 and len(set(modes)) < 5


@pytest.mark.parametrize(("n", "m_size"), [(8, 1), (8, 5), (16, 7), (24, 3)])
def test_test_strings_of_any_size_by_the_same_rule(n, m_size):
    found = strings_of_the_correlation(n, m_size)
    assert found == flipped_one_string_at_a_time(n, m_size)
    for m, mode in enumerate(module.mode_strings(n, m_size)):
        assert [hamming(mode, found[m * n + i]) for i in range(n)] == list(range(n))


def test_the_global_random_state_is_neither_read_nor_moved():
    first, state = strings_of_the_correlation(16, 3), np.random.get_state()
    try:
        np.random.seed(5)
        seeded = np.random.get_state()[1]
        assert strings_of_the_correlation(16, 3) == first
        assert (np.random.get_state()[1] == seeded).all()
    finally:
        np.random.set_state(state)


@each("n,k", SMALL)
def test_sizes(strings, n, k):
    environment = strings(n, k)
    assert (environment.length, environment.n_words) == (n // k, 2**k)
    assert environment.n_actions == (n // k) * 2**k
    assert environment.empty == 2**k  # no word's token
    initial = environment.initial_states(3)
    assert initial.tolist() == [[2**k] * (n // k)] * 3
    assert environment.modes.shape == (5, n) and environment.test_states.shape == (5 * n, n // k)


def test_masks_are_the_empty_and_the_filled_positions(environment):
    states = all_states(environment)
    forward, backward = environment.forward_mask(states), environment.backward_mask(states)
    assert len(states) == (environment.n_words + 1) ** environment.length
    for row, state in enumerate(states.tolist()):
        assert forward[row].tolist() == [token == environment.empty for token in state]
        assert backward[row].tolist() == [token < environment.n_words for token in state]


def test_steps_of_every_state_write_one_word_and_back_steps_undo_them(environment):
    states, moves = all_states(environment).tolist(), []
    for state in states:
        for position, word in itertools.product(range(environment.length), range(environment.n_words)):
            if state[position] == environment.empty:
                child = [*state[:position], word, *state[position + 1 :]]
                moves.append((state, position * environment.n_words + word, child, position))
    parents, actions, following, positions = (torch.tensor(column) for column in zip(*moves, strict=True))
    before = parents.clone()
    assert torch.equal(environment.step(parents, actions), following)
    back, again = environment.backward_step(following, positions)
    assert torch.equal(back, parents) and torch.equal(again, actions)
    assert torch.equal(parents, before)  # a step leaves its argument alone
    # Every backward action of every state is the undoing of exactly one move.
    assert len(moves) == sum(token != environment.empty for state in states for token in state)
    assert len({(tuple(child), position) for _, _, child, position in moves}) == len(moves)


@each("n,k", SMALL)
def test_bits_and_tokens_are_inverse_and_the_most_significant_bit_comes_first(strings, n, k):
    environment = strings(n, k)
    rng = np.random.default_rng(1)
    states = torch.from_numpy(rng.integers(environment.n_words, size=(300, environment.length)))
    bits = environment.bits(states)
    assert ["".join(map(str, row)) for row in bits.tolist()] == [as_text(environment, row) for row in states.tolist()]
    assert torch.equal(environment.tokens(bits), states)
    assert environment.tokens(bits).dtype == states.dtype


def test_test_states_are_the_test_strings(strings):
    for n, k in SMALL:
        environment = strings(n, k)
        found = [as_text(environment, state) for state in environment.test_states.tolist()]
        assert found == strings_of_the_correlation(n, 5)


def test_words_of_the_paper_by_hand(strings):
    environment = strings(16, 8)
    state = environment.tokens(torch.tensor([[int(bit) for bit in "0000111100111100"]]))
    assert state.tolist() == [[15, 60]]


@each("reward_exponent", [2.0, 1.0, 0.37, 3.5])
@each("n,k,m_size", [(8, 2, 5), (8, 8, 1), (24, 4, 9), (120, 8, 60)])
def test_distances_and_rewards_are_those_of_a_string_loop(strings, n, k, m_size, reward_exponent):
    environment = strings(n, k, m_size, reward_exponent)
    rng = np.random.default_rng(2)
    random = torch.from_numpy(rng.integers(environment.n_words, size=(40, environment.length)))
    states = torch.cat([random, environment.test_states[:: 1 + n // 3]])
    texts, modes = [as_text(environment, state) for state in states.tolist()], module.mode_strings(n, m_size)
    expected = [[hamming(text, mode) for mode in modes] for text in texts]
    assert environment.distances(states).tolist() == expected  # whole numbers, exactly
    log_reward = environment.log_reward(states)
    assert log_reward.tolist() == pytest.approx([-reward_exponent * min(row) for row in expected], rel=1e-6)
    assert len(set(log_reward.tolist())) > 2


def test_the_reward_of_a_mode_is_one_and_is_not_divided_by_the_length(strings):
    environment = strings(120, 8, 60)
    assert environment.log_reward(environment.test_states[:3]).tolist() == [0.0, -2.0, -4.0]


def test_in_double_precision_rewards_are_double(double, strings):
    environment = strings(8, 2, reward_exponent=0.1)
    log_reward = environment.log_reward(environment.test_states)
    assert log_reward.dtype == torch.float64
    distances = environment.distances(environment.test_states).min(1).values.tolist()
    assert log_reward.tolist() == [-0.1 * distance for distance in distances]


@pytest.mark.parametrize(("n", "k"), [(120, 8), (8, 2), (48, 24), (128, 1)])
def test_distinct_states_and_where_each_is(n, k):
    environment, rng = module.StringEnvironment(n, k, 1, 2.0), np.random.default_rng(3)
    few = torch.from_numpy(rng.integers(0, environment.n_words + 1, (30, environment.length)))
    few[1], few[2] = few[0], few[0]
    few[1, 0], few[2, -1] = (few[0, 0] + 1) % environment.n_words, (few[0, -1] + 1) % environment.n_words
    states = few[torch.from_numpy(rng.integers(0, 30, 500))]
    found, row = environment.distinct(states)
    assert torch.equal(found[row], states)
    assert len(set(map(tuple, found.tolist()))) == len(found) == len(set(map(tuple, states.tolist())))
