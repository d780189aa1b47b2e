"""Agents on 256 strings."""

from ml_collections import ConfigDict

from bitseq import settings
from bitseq.agents.base import LearningAgent
from bitseq.agents.table import make_agent
from bitseq.common.options import extra

SMALL = {"n": 8, "k": 2, "M_size": 5, "mode_threshold": 1, "width": 16, "n_layers": 1, "n_heads": 2, "ff_width": 16}
SMALL_REPLAY = {"start_learning": 0, "replay_batch_size": 32}


def small_config(objective: str, approach: str, **overrides) -> ConfigDict:
    """The shipped settings on 256 strings with a small trunk, and learning from step 1."""
    options = {"objective": objective, "backward_approach": approach, "device": "cpu", **SMALL}
    options |= SMALL_REPLAY if objective in settings.DQN else {}
    argv = []
    for name, value in (options | overrides).items():
        field = settings.Settings.model_fields.get(name)
        if field and approach not in (extra(field)["approaches"] or [approach]):
            continue  # what a fixed P_B lacks, so that a test can go over all approaches
        argv += [f"--{'' if value else 'no-'}{name}"] if isinstance(value, bool) else [f"--{name}", str(value)]
    return settings.parse(argv)


def new_agent(objective: str, approach: str, **overrides) -> LearningAgent:
    """An agent with some options set."""
    return make_agent(small_config(objective, approach, **overrides))
