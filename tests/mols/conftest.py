"""Environments small enough to enumerate, a random reward, and tiny agents and networks on them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from enumeration import Enumeration, backward_moves, forward_moves, is_finished, plain
from ml_collections import ConfigDict
from torch import Tensor

from mols import settings
from mols.agents.base import LearningAgent
from mols.agents.table import make_agent
from mols.common.backward_loss import APPROACHES
from mols.environments.base import rows_of
from mols.environments.fragments import FragmentEnvironment, Trees
from mols.environments.vocabulary import Fragment
from mols.policies.model import Policies
from mols.rewards.base import Scores
from mols.tasks import seh_frag

SMALL = (Fragment("F", (0,)), Fragment("CN", (0, 1)), Fragment("CCS", (0, 1, 2)))


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: minutes rather than seconds")
    torch.set_num_threads(1)


@pytest.fixture(params=settings.OBJECTIVES)
def algo(request) -> str:
    """Every objective, unless the test names its own."""
    return request.param


@pytest.fixture(params=list(APPROACHES))
def approach(request) -> str:
    """Every backward approach, unless the test names its own."""
    return request.param


@pytest.fixture
def double():
    """Double precision as the default, for tests of exact identities."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(scope="session")
def small() -> FragmentEnvironment:
    """At most 3 fragments, of 1, 2 and 3 attachment points."""
    return FragmentEnvironment(SMALL, max_fragments=3)


@pytest.fixture(scope="session")
def full() -> FragmentEnvironment:
    """All fragments, at most 8 of them."""
    return FragmentEnvironment()


@pytest.fixture(scope="session")
def plain_moves() -> SimpleNamespace:
    """Moves by plain Python: ``forward``, ``backward``, ``is_finished``, and ``of``: the tuples of some states."""
    return SimpleNamespace(forward=forward_moves, backward=backward_moves, is_finished=is_finished, of=plain)


@pytest.fixture(scope="session")
def reachable(small) -> Enumeration:
    """Every state of a rollout in the small environment."""
    return Enumeration(small)


@pytest.fixture(scope="session")
def with_holes(small) -> Enumeration:
    """Every state of a backward trajectory in the small environment too."""
    return Enumeration(small, holes=True)


class RandomReward:
    """r between 0.7 and 1.1 by chance, one for each tree, however its slots are named; stands in for the network."""

    def __init__(self, environment: FragmentEnvironment) -> None:
        rng, n_kinds, n_ends = np.random.default_rng(7), environment.n_fragments + 1, environment.n_points + 2
        self.of_node = torch.from_numpy(rng.random(n_kinds))
        self.of_edge = torch.from_numpy(rng.random((n_kinds, n_kinds, n_ends, n_ends)))
        self.of_edge[:, :, 0] = 0.0
        self.environment, self.seen = environment, set()

    def __call__(self, states: Trees) -> Tensor:
        """(M,) float64."""
        fragment, ends = states
        of_edges = self.of_edge[fragment[:, :, None], fragment[:, None], ends, ends.transpose(1, 2)]
        return 0.7 + 0.4 * ((self.of_node[fragment].sum(1) + of_edges.sum((1, 2))) % 1)

    @property
    def n_evaluated(self) -> int:
        return len(self.seen)

    def state_dict(self) -> list[int]:
        return sorted(self.seen)

    def load_state_dict(self, state: list[int]) -> None:
        self.seen = set(state)


class RandomTask:
    """What an agent needs of a task."""

    def __init__(self, environment: FragmentEnvironment, exponent: float, test_states: Trees) -> None:
        self.environment, self.exponent, self.test_states = environment, exponent, test_states
        self.reward, self.thresholds = RandomReward(environment), seh_frag.THRESHOLDS

    def score(self, finished: Trees, *, training: bool = True) -> Scores:
        """Rewards; SMILES of as many carbons as the state's key says."""
        r, keys = self.reward(finished).to(torch.get_default_dtype()), self.environment.keys(finished).tolist()
        if training:
            self.reward.seen.update(keys)
        return Scores(self.exponent * r.log(), r, ["C" * (1 + key % 40) for key in keys])


TINY = {"width": 16, "n_layers": 1, "n_heads": 1, "batch_size": 8, "max_fragments": 3, "device": "cpu"}


def tiny_config(algo: str, approach: str, **options) -> ConfigDict:
    """The shipped settings with a tiny network."""
    argv = []
    table = settings.by_name(seh_frag.OPTIONS)
    for name, value in ({"algo": algo, "backward_approach": approach} | TINY | options).items():
        if approach not in (table[name].approaches or [approach]):
            continue  # what a fixed P_B lacks, so that a test can go over all approaches
        argv += [f"--{'' if value else 'no-'}{name}"] if isinstance(value, bool) else [f"--{name}", str(value)]
    return settings.parse(argv, seh_frag.NAME, seh_frag.OPTIONS)


@pytest.fixture(scope="session")
def new_agent(reachable):
    """``new_agent(algo, approach, option=value, ...)``: an agent in the small environment with a random reward."""

    def new(algo: str, approach: str, **options) -> LearningAgent:
        config = tiny_config(algo, approach, **options)
        states = (
            reachable if config.max_fragments == 3 else Enumeration(FragmentEnvironment(SMALL, config.max_fragments))
        )
        test_states = Trees(*(tensor[states.finished][::20] for tensor in states.trees))
        return make_agent(config, RandomTask(states.environment, config.temp, test_states))

    return new


@pytest.fixture(scope="session")
def new_policies():
    """``new_policies(environment, scale=...)``: policies whose heads are scaled away from uniform."""

    def new(environment: FragmentEnvironment, *, scale: float = 1.0, seed: int = 1, approach: str = "naive", **options):
        sizes = {"width": 16, "n_layers": 1, "n_heads": 1, "uniform_initialisation": False}
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(seed)
            policies = Policies(environment, APPROACHES[approach], **(sizes | options))
            for head in [*policies.forward_head.values(), *(policies.backward_head or {}).values()]:
                head[-1].weight *= scale
        return policies

    return new


@pytest.fixture(scope="session")
def wandered():
    """``wandered(environment, n, n_moves)``: states after 0 to n_moves random moves there and back, some with holes."""

    def new(environment: FragmentEnvironment, n_states: int, n_moves: int, seed: int = 0) -> Trees:
        states, generator = environment.initial_states(n_states), torch.Generator().manual_seed(seed)

        def draw(weights):
            return weights.multinomial(1, generator=generator).flatten()

        for move in range(n_moves):
            moving = (torch.arange(n_states) % (n_moves + 1) > move).nonzero().flatten()
            some = rows_of(states, moving)
            legal, back = environment.legal_actions(some).double(), environment.backward_mask(some)
            legal[:, 1 : environment.first_set] /= environment.n_fragments
            legal[:, 0] = legal[:, 1:].sum(1) == 0
            returns = (torch.rand(len(moving), generator=generator) < 0.3) & back.any(1)
            ahead = environment.step(some, draw(legal))
            behind, _ = environment.backward_step(rows_of(some, returns), draw(back[returns].double()))
            for tensor, forward, backward in zip(states, ahead, behind, strict=True):
                forward[returns] = backward
                tensor[moving] = forward
        return states

    return new
