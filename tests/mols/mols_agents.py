"""Agents in an environment of a few trees, with a random reward and tiny networks."""

from functools import cache

import numpy as np
import torch
from enumeration import Enumeration
from ml_collections import ConfigDict
from torch import Tensor

from mols import settings
from mols.agents.base import LearningAgent
from mols.agents.table import make_agent
from mols.common.options import extra
from mols.environments.fragments import FragmentEnvironment, Trees
from mols.environments.vocabulary import Fragment
from mols.rewards.base import Scores
from mols.tasks import seh_frag

SMALL = (Fragment("F", (0,)), Fragment("CN", (0, 1)), Fragment("CCS", (0, 1, 2)))


@cache
def reachable(max_fragments: int) -> Enumeration:
    """Every state of a rollout with so many fragments at most, of 1, 2 and 3 attachment points."""
    return Enumeration(FragmentEnvironment(SMALL, max_fragments))


class RandomReward:
    """r between 0.7 and 1.1 by chance, one for each tree, however its slots are named; for the network."""

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
    for name, value in ({"algo": algo, "backward_approach": approach} | TINY | options).items():
        if approach not in (extra(seh_frag.Settings.model_fields[name])["approaches"] or [approach]):
            continue  # what a fixed P_B lacks, so that a test can go over all approaches
        argv += [f"--{'' if value else 'no-'}{name}"] if isinstance(value, bool) else [f"--{name}", str(value)]
    return settings.parse(argv, seh_frag.Settings)


def new_agent(algo: str, approach: str, **options) -> LearningAgent:
    """An agent with some options set."""
    config = tiny_config(algo, approach, **options)
    states = reachable(config.max_fragments)
    test_states = Trees(*(tensor[states.finished][::20] for tensor in states.trees))
    return make_agent(config, RandomTask(states.environment, config.temp, test_states))
