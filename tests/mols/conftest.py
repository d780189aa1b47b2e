"""Environments small enough to enumerate, a random reward, and tiny agents and networks on them."""

from types import SimpleNamespace

import mols_agents
import pytest
import torch
from enumeration import Enumeration, backward_moves, forward_moves, is_finished, plain

from mols.common.backward_loss import APPROACHES
from mols.environments.base import rows_of
from mols.environments.fragments import FragmentEnvironment, Trees
from mols.policies.model import Policies


@pytest.fixture(scope="session")
def small(reachable) -> FragmentEnvironment:
    """At most 3 fragments, of 1, 2 and 3 attachment points."""
    return reachable.environment


@pytest.fixture(scope="session")
def full() -> FragmentEnvironment:
    """All fragments, at most 8 of them."""
    return FragmentEnvironment()


@pytest.fixture(scope="session")
def plain_moves() -> SimpleNamespace:
    """Moves by plain Python: ``forward``, ``backward``, ``is_finished``, and ``of``: the tuples of some states."""
    return SimpleNamespace(forward=forward_moves, backward=backward_moves, is_finished=is_finished, of=plain)


@pytest.fixture(scope="session")
def reachable() -> Enumeration:
    """Every state of a rollout in the small environment."""
    return mols_agents.reachable(3)


@pytest.fixture(scope="session")
def with_holes(small) -> Enumeration:
    """Every state of a backward trajectory in the small environment too."""
    return Enumeration(small, holes=True)


@pytest.fixture(scope="session")
def new_agent():
    """``new_agent(algo, approach, option=value, ...)``: an agent in the small environment with a random reward."""
    return mols_agents.new_agent


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
