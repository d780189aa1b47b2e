"""The golden run of an objective and an approach: its losses step by step, which golden.json keeps.

A run on trees of fragments, then one on graphs of atoms, with tiny networks. Float64, so that no processor's rounding
flips a sampled action; decays are steep and lengths short, so that every schedule, target and buffer shows.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from mols import settings
from mols.agents.table import make_agent
from mols.agents.task import Task
from mols.common.algorithm import train_step
from mols.common.backward_loss import APPROACHES
from mols.common.options import extra
from mols.environments.atoms import AtomEnvironment
from mols.environments.fragments import FragmentEnvironment
from mols.environments.vocabulary import Fragment
from mols.rewards.base import Scores
from mols.tasks import qm9, seh_frag

OBJECTIVES = settings.OBJECTIVES
VOCABULARY = (Fragment("F", (0,)), Fragment("CN", (0, 1)), Fragment("CCS", (0, 1, 2)))
TREE_STEPS, ATOM_STEPS, RECENT = 6, 4, 20  # steps; so many more on trees until the buffer of batches forgets
EXPONENT = 4
OPTIONS = {
    "batch_size": 3, "width": 8, "n_layers": 1, "n_heads": 2, "rp": 0.5, "temp": EXPONENT, "device": "cpu",
    "lr": 0.01, "lrd": 4, "log_z_lr": 0.05, "log_z_lrd": 3, "weight_decay": 0.01, "gradient_clipping": 2,
    "target_decay": 0.7, "q_target_decay": 0.5, "subtb_lambda": 0.8, "blr": 0.02, "blrd": 2, "rand_pb_init": True,
    "m_l0": -1, "leaf_coeff": 3,
}  # fmt: skip
# Pessimistic as the sweeps run it, where nothing reads the EMA model.
OF_PESSIMISTIC = {"no_sampling_model": True, "target_decay": 0.95}


class NumberedReward:
    """In place of a task's reward and its molecules: r from 0.5 on of the numbers that a state is made of."""

    def __call__(self, states, *, training: bool) -> Scores:
        numbers = torch.cat([tensor.flatten(1) for tensor in states], 1)
        r = 0.5 + (numbers * torch.arange(1, numbers.shape[1] + 1) ** 2).sum(1).remainder(97) / 97
        return Scores(EXPONENT * r.log(), r, ["C"] * len(r))

    @staticmethod
    def to_molecules(states):
        return states


def golden_run(objective: str, approach: str, kernels: str = "auto") -> list[list[float | None]]:
    """[loss, pb_loss] of every step, None where nothing was learned."""
    argv = [*arguments(objective, approach), "--kernels", kernels]
    trees, atoms = FragmentEnvironment(VOCABULARY, max_fragments=3), AtomEnvironment(max_atoms=3)
    tree_steps = TREE_STEPS + (RECENT if APPROACHES[approach].batch == "recent" else 0)
    with double_precision():
        curve = losses_of(argv, seh_frag, trees, tree_steps)
        return curve + losses_of(argv, qm9, atoms, ATOM_STEPS)


def losses_of(argv: list[str], task, environment, n_steps: int) -> list[list[float | None]]:
    """Those of one task."""
    config = settings.parse([*argv, f"--n={n_steps}"], task.Settings)
    reward = NumberedReward()
    agent = make_agent(config, Task(environment, reward, reward, environment.initial_states(0), (2.0,)))
    steps = [train_step(agent) for _ in range(n_steps)]
    return [[step["loss"], step["pb_loss"]] for step in steps]


def arguments(objective: str, approach: str) -> list[str]:
    """The command line of ``OPTIONS``, but for those that the objective or the approach lacks."""
    argv = []
    given = {"algo": objective, "backward_approach": approach} | OPTIONS
    for name, value in (given | (OF_PESSIMISTIC if approach == "pessimistic" else {})).items():
        of = extra(seh_frag.Settings.model_fields[name])
        if objective in (of["objectives"] or [objective]) and approach in (of["approaches"] or [approach]):
            argv.append(f"--{name}" if value is True else f"--{name}={value}")
    return argv


@contextmanager
def double_precision() -> Iterator[None]:
    """Float64 as torch's default."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
