"""What the copied folders must know of this suite: the versions of its results, and how they are shown and judged."""

from importlib import import_module
from typing import Any

from mols.common.reporting import ALL, WITHOUT_DECAY, Expectation, Figure, Metric, last, mean_over_training

# Raised when what is computed changes, never when code is only moved, renamed or made faster; a test says when
# (tests/mols/golden.json). Version 2: a QM9 node is the sum of one embedding per attribute; the DQN objectives have a Q
# target of their own. (sEH with TB, DB and SubTB computes what version 1 did.)
RESULTS_VERSIONS = {"tb": 2, "db": 2, "subtb": 2, "soft_dqn": 2, "dqn": 2}

# Where config.json has what identifies a run, and what is no part of the experiment.
IDENTITY = {
    "environment": "environment",
    "objective": "algo",
    "approach": "backward_approach",
    "learning_rate": "lr",
    "seed": "seed",
}
# Fields whose product is a run's length in trajectories.
LENGTH = ("n", "batch_size")
BACKWARD_LEARNING_RATE = "blr"
NEWER = {"charges": "paper", "precision": "float32"}  # fields that older runs lack, and what they had in their place
# Fields whose other values make an environment of their own.
OF_ENVIRONMENT: dict[str, tuple[Any, ...]] = {
    **{name: (usual,) for name, usual in NEWER.items()},
    **{"width": (128,), "n_layers": (8,), "max_fragments": (8,), "max_atoms": (8,)},
    **{"reward": (), "proxy": ("auto", "original", "embedded", "mxmnet", "")},
}
OF_APPROACH = ("rand_pb_init", "no_sampling_model")  # fields that follow from the approach

MODES = Metric("mean modes found", "modes_found", "step", mean_over_training, 1, 0.1, relative=True)
CORRELATION = Metric("reward correlation", "reward_correlation", "step", last, 1, 0.05)
CHOICE = MODES  # by which learning rates are chosen
DECAY = ("blrd", 2e6)  # steps in which P_B's learning rate halves, of 20,000; off from this value on

ENVIRONMENTS = {"qm9": "QM9", "seh_frag": "sEH"}
# Environment of a smaller setting: the paper's that it takes the place of.
SMALL = {f"{task} width=64 n_layers=2": task for task in ENVIRONMENTS}
_CURVES: dict[str, Any] = {
    "environments": ENVIRONMENTS,
    "x": "step",
    "y": "modes_found",
    "y_label": "modes found\n(at the lowest threshold)",
    "metric": MODES,
}
_RATES = _CURVES | {
    "x": "learning_rate",
    "y": "reward_correlation",
    "y_label": "Pearson correlation\nof log P(x) and log R(x)",
    "metric": CORRELATION,
}
FIGURES = (
    Figure("figure2", "Molecules: modes found in training", **_CURVES),
    Figure("figure3", "Molecules: correlation with the reward", **_RATES),
    Figure("appendix_learning_rates", "Molecules: modes found, every learning rate", **_CURVES, every_rate=True),
    Figure("appendix", "Molecules: modes found, other settings", **_CURVES, varied=True),
)

STATEMENTS = {
    "C3": "on QM9 TLM finds modes faster with every objective",
    "C4": "on sEH TLM is similar or worse",
    "C5": "TLM's reward correlation is better with MunchausenDQN and SubTB, on par with DB and TB",
    "C6": "decaying the learning rate of P_B matters little",
}
_BOTH = tuple(ENVIRONMENTS)
EXPECTATIONS = (
    Expectation("C3", ("qm9",), ALL, MODES, "better"),
    Expectation("C4", ("seh_frag",), ALL, MODES, "not better"),
    Expectation("C5", _BOTH, ("munchausen_dqn", "subtb"), CORRELATION, "better"),
    Expectation("C5", _BOTH, ("db", "tb"), CORRELATION, "similar"),
    Expectation("C6", _BOTH, ALL, MODES, "similar", (WITHOUT_DECAY,)),
)

# The tables of the README: columns of the last row of each run of REPORTED, numbers of each cell of COMPARED_IN.
REPORTED = ("evidence*.csv",)
COMPARED_IN = "small/figure2.csv"
COMPARED = {
    "Modes found, mean over the run": (MODES, "{:.1f}"),
    "Top-100 reward at the end": (Metric("", "top_100_reward", "step", last, 1, 0), "{:.3f}"),
    "Reward correlation at the end": (CORRELATION, "{:.3f}"),
}
SHOWN = {
    "modes_found_0.875": ("modes found (r >= 0.875)", "{:.0f}"),
    "modes_found_1": ("modes found (r >= 1)", "{:.0f}"),
    "modes_found_1.125": ("modes found (r >= 1.125)", "{:.0f}"),
    "modes_sorted_0.875": ("modes, best first (r >= 0.875)", "{:.0f}"),
    "top_100_reward": ("top-100 reward", "{:.3f}"),
    "reward_correlation": ("reward correlation", "{:.3f}"),
    "reward_correlation_generated": ("same, generated molecules", "{:.3f}"),
    "pb_deviation": ("P_B deviation (nats)", "{:.3f}"),
    "wall_s": ("minutes", "{:.0f}"),
}

PUBLISHED = None  # no curves of the published code are known


def configuration(words: list[str]) -> dict[str, Any] | None:
    """The configuration of ``python -m mols.tasks.TASK ...``; None of any other command.

    Raises:
        ExperimentError: the arguments are wrong.
    """
    modules = {f"mols.tasks.{task}" for task in ENVIRONMENTS}
    if words[:2] != ["python", "-m"] or words[2:3] == [] or words[2] not in modules:
        return None
    from mols import settings  # what only reads numbers does not need it

    return settings.parse(words[3:], import_module(words[2]).Settings).to_dict()
