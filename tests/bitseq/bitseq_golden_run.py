"""A short run of every objective and approach that reaches what a result depends on; its curve is in golden.json.

In float64, by torch's own layers and without dropout, whose random numbers differ between processors: so no rounding
flips an action. Ten steps reach drawn batches, recent ones, copies into the targets, and a buffer that wraps.
"""

import torch

from bitseq import settings
from bitseq.agents.table import make_agent
from bitseq.common.algorithm import train_step

OBJECTIVES = settings.OBJECTIVES
N_STEPS = 10
SIZES = {"n": 8, "k": 2, "M_size": 5, "mode_threshold": 1, "width": 8, "n_layers": 1, "n_heads": 2, "ff_width": 8}
OPTIONS = SIZES | {
    "num_iterations": N_STEPS, "batch_size": 8, "dropout": 0, "rand_action_prob": 0.1, "learning_rate": 0.01,
    "weight_decay": 0.01, "corr_num_rounds": 3, "device": "cpu",
}  # fmt: skip
FORWARD = {
    "tb": {"log_z_learning_rate": 0.05, "target_decay": 0.75},
    "db": {"target_decay": 0.75},
    "subtb": {"target_decay": 0.75, "subtb_lambda": 0.8},
}
DQN = {"start_learning": 1, "replay_batch_size": 32, "replay_capacity": 200, "update_target_every": 3}
BACKWARD = {
    "tlm": {"backward_learning_rate": 0.05, "gamma": 0.5},
    "pessimistic": {"backward_learning_rate": 0.05},
}


def golden_run(objective: str, approach: str) -> list[list[float | None]]:
    """[loss, pb_loss] of each step, None where nothing was learned; then the two reward correlations."""
    options = OPTIONS | FORWARD.get(objective, DQN) | BACKWARD.get(approach, {})
    argv = [f"--objective={objective}", f"--backward_approach={approach}"]
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        agent = make_agent(settings.parse(argv + [f"--{name}={value}" for name, value in options.items()]))
        curve = [[losses["loss"], losses["pb_loss"]] for losses in (train_step(agent) for _ in range(N_STEPS))]
        metrics = agent.evaluate(N_STEPS)
    finally:
        torch.set_default_dtype(before)
    return [*curve, [metrics["reward_correlation"], metrics["reward_correlation_uniform"]]]
