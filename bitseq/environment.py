"""Strings of n bits, written k bits at a time into any empty position, rewarded for being near one of a set of modes.

A state is a row of L = n/k words, each one of V = 2^k or empty; s_0 is all empty. An action picks an empty position
and a word for it, so every trajectory has L transitions and ends in a full string x, with

    log R(x) = - reward_exponent * min_m Hamming(x, m)                     (Malkin et al. 2022; Gritsaev et al. 2025)

A backward action empties a filled position. Action a is the pair (position, word) = (a // V, a % V).
"""

import math
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

BLOCKS = ("00000000", "11111111", "11110000", "00001111", "00111100")  # what the modes are made of
BLOCK_LENGTH = len(BLOCKS[0])
DATA_SEED = 42  # of the modes and the test strings: the same in every run


def mode_bits(n: int = 120, m_size: int = 60) -> np.ndarray:
    """(m_size, n) 0 or 1: modes of n/8 random blocks each, of NumPy's legacy generator, so that they may repeat."""
    blocks = np.array([[int(bit) for bit in block] for block in BLOCKS])
    drawn = np.random.RandomState(DATA_SEED).choice(len(BLOCKS), size=(m_size, n // BLOCK_LENGTH))
    return blocks[drawn].reshape(m_size, n)


def test_bits(n: int = 120, m_size: int = 60) -> np.ndarray:
    """(m_size * n, n) 0 or 1: for each mode the mode itself and then, for i = 1..n-1, the mode with i bits flipped."""
    rng = np.random.RandomState(DATA_SEED)
    strings = mode_bits(n, m_size).repeat(n, axis=0)
    for row, string in enumerate(strings):
        if row % n:
            string[rng.choice(n, size=row % n, replace=False)] ^= 1
    return strings


def mode_strings(n: int = 120, m_size: int = 60) -> list[str]:
    """The modes as text of 0 and 1."""
    return ["".join(map(str, row)) for row in mode_bits(n, m_size)]


class StringEnvironment:
    """Bit strings with their modes, reward, masks and tokens.

    Args:
        n: bits of a string, a multiple of k and of 8.
        k: bits of a word.
        m_size: number of modes.
        reward_exponent: what the log reward is multiplied by.
        device: where states and rewards of training live.

    Attributes:
        length: L, positions of a state and transitions of a trajectory.
        n_words: V, words of k bits.
        empty: the token V of an empty position; words are the tokens 0..V-1.
        modes: (m_size, n) as +1 and -1.
    """

    def __init__(self, n: int, k: int, m_size: int, reward_exponent: float, device: str = "cpu") -> None:
        self.n, self.k, self.m_size, self.reward_exponent = n, k, m_size, reward_exponent
        self.device = torch.device(device)
        self.length, self.n_words = n // k, 2**k
        self.n_actions = self.length * self.n_words
        self.empty = self.n_words
        self.modes = _signs(torch.from_numpy(mode_bits(n, m_size)).to(self.device))

    def initial_states(self, n_states: int) -> Tensor:
        """(N, L) copies of s_0."""
        return torch.full((n_states, self.length), self.empty, device=self.device)

    def forward_mask(self, states: Tensor) -> Tensor:
        """(M, L) boolean: the positions that can be written, the empty ones."""
        return states == self.empty

    def backward_mask(self, states: Tensor) -> Tensor:
        """(M, L) boolean: the positions that can be emptied, the filled ones."""
        return states != self.empty

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """(M, L), (M,) -> (M, L) next states."""
        position, word = actions // self.n_words, actions % self.n_words
        return states.scatter(1, position.unsqueeze(1), word.unsqueeze(1))

    def backward_step(self, states: Tensor, position: Tensor) -> tuple[Tensor, Tensor]:
        """(M, L), (M,) -> (M, L) states with that position emptied, and (M,) the actions that fill it again."""
        position = position.unsqueeze(1)
        action = position * self.n_words + states.gather(1, position)
        return states.scatter(1, position, self.empty), action.squeeze(1)

    def distinct(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """(M, L) states -> (K, L) the different ones among them, and (M,) the row of each there."""
        base, row = self.n_words + 1, torch.zeros(len(states), dtype=torch.long, device=states.device)
        # As many positions at once as a row number and their tokens fit into 63 bits.
        n_columns = max(1, int((63 - math.log2(len(states) + 1)) / math.log2(base)))
        for columns in states.split(n_columns, dim=1):
            for column in columns.T:
                row = row * base + column
            row = row.unique(return_inverse=True)[1]
        which = torch.arange(len(states), device=states.device)
        return states[which.new_empty(int(row.max()) + 1).scatter_(0, row, which)], row

    def bits(self, states: Tensor) -> Tensor:
        """(N, L) full states -> (N, n) 0 or 1, each word's most significant bit first."""
        shifts = torch.arange(self.k - 1, -1, -1, device=states.device)
        return (states.unsqueeze(-1) >> shifts & 1).flatten(1)

    def tokens(self, bits: Tensor) -> Tensor:
        """(N, n) 0 or 1 -> (N, L) full states, the inverse of ``bits``."""
        weights = 2 ** torch.arange(self.k - 1, -1, -1, device=bits.device)
        return (bits.unflatten(1, (self.length, self.k)) * weights).sum(-1)

    def distances(self, states: Tensor) -> Tensor:
        """(N, L) full states -> (N, m_size) Hamming distances to the modes, in bits."""
        return (self.n - _signs(self.bits(states)) @ self.modes.T) / 2

    def log_reward(self, states: Tensor) -> Tensor:
        """(N, L) full states -> (N,) log R in nats."""
        return -self.reward_exponent * self.distances(states).min(1).values

    @cached_property
    def test_states(self) -> Tensor:
        """(m_size * n, L) the test strings of the reward correlation."""
        return self.tokens(torch.from_numpy(test_bits(self.n, self.m_size)).to(self.device))


def _signs(bits: Tensor) -> Tensor:
    """0 and 1 as +1 and -1, whose products count agreements."""
    return (1 - 2 * bits).to(torch.get_default_dtype())
