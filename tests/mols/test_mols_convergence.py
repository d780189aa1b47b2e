"""Training to the exact distribution of trees of at most two fragments, measured without sampling noise."""

import pytest
import torch
from enumeration import Enumeration, renamings, symmetries

from mols.common.algorithm import train_step
from mols.environments.base import STOP

N_STEPS = 750  # of 64 trajectories
OPTIONS = {"max_fragments": 2, "batch_size": 64, "width": 32, "n_layers": 2, "lr": 3e-3, "lrd": 400, "n": N_STEPS}


def by_tree(states, values):
    """Sums over the finished states that are the same tree."""
    sums = {}
    for state, is_finished, value in zip(states.plain, states.finished.tolist(), values, strict=True):
        if is_finished:
            name = min(renamings(state))
            sums[name] = sums.get(name, 0.0) + value
    return sums


@torch.no_grad()
def total_variation(agent, states):
    """Of the EMA model's trees from R(x) / number of symmetries of x, which does not depend on P_B."""
    logits = agent.average.forward_logits(states.trees, agent.average.features(states.trees)).double()
    pf = (logits / agent.coefficient).softmax(-1)
    found = by_tree(states, (states.visits(pf) * pf[:, STOP]).tolist())
    reward = agent.task.score(states.trees, training=False).log_reward.double().exp().tolist()
    count = by_tree(states, [1] * len(reward))
    true = by_tree(states, reward)
    true = {tree: r / count[tree] / symmetries(states.environment, tree) for tree, r in true.items()}
    assert sum(found.values()) == pytest.approx(1.0) and len(true) == 24
    return sum(abs(found[tree] - true[tree] / sum(true.values())) for tree in true) / 2


@pytest.mark.slow
@pytest.mark.parametrize("approach", ["uniform", "tlm"])
def test_training_reaches_the_exact_distribution(new_agent, algo, approach):
    options = OPTIONS | ({"log_z_lr": 0.05} if algo == "tb" else {})
    agent = new_agent(algo, approach, **options)
    states = Enumeration(agent.environment)
    assert total_variation(agent, states) > 0.4
    for _ in range(N_STEPS):
        train_step(agent)
    assert total_variation(agent, states) < 0.02
