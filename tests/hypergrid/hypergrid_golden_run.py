"""A short run of every objective and approach, for golden.json."""

import torch
from ml_collections import ConfigDict

from hypergrid.agents.table import make_agent
from hypergrid.common.algorithm import train_step
from hypergrid.experiments.config import algo, general, hypergrid

OBJECTIVES = ("tb", "db", "subtb", "soft_dqn", "munchausen_dqn")
METRICS = ("pb_deviation", "l1_dist", "kl_dist", "total_variation", "l1_floor", "exact_l1_dist")
METRICS += ("exact_total_variation", "log_z_error")
STEPS = 25  # beyond the 20 batches that pessimistic remembers


def golden_run(objective: str, approach: str) -> list[list[float | None]]:
    """(loss, pb_loss) of every step, then the metrics, of a 6x6 grid in float64; replay and schedules start early."""
    config = ConfigDict({"general": general.get_config("1"), "env": hypergrid.get_config("standard")})
    config.algo = algo.get_config(objective)
    config.general.update({"device": "cpu", "n_envs": 4, "n_trajectories": 4 * STEPS})
    config.env.update({"ndim": 2, "height": 6})
    config.algo.update({"backward_approach": approach, "hidden_width": 8, "learning_rate": 0.01})
    config.algo.update({"backward_learning_rate": 0.02, "backward_learning_rate_decay": 0.8})
    if "start_learning" in config.algo:
        config.algo.update({"start_learning": 2, "replay_capacity": 150, "replay_batch_size": 16})
        config.algo.replay_importance_exponent = 0.1
    if "m_l0" in config.algo:
        config.algo.m_l0 = -2.0
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        agent = make_agent(config)
        losses = [train_step(agent) for _ in range(STEPS)]
        metrics = agent.evaluate(STEPS)
    finally:
        torch.set_default_dtype(default)
    return [[step["loss"], step["pb_loss"]] for step in losses] + [[metrics[name] for name in METRICS]]
