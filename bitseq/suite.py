"""What the copied folders must know of this suite: the versions of its results, and how they are shown and judged."""

from typing import Any

from bitseq.common.reporting import ALL, WITHOUT_DECAY, Expectation, Figure, Metric, Published, last, mean_over_training

# Raised when what is computed changes, never when code is only moved, renamed or made faster; a test says when
# (tests/bitseq/golden.json). Version 2: the correlation scores the target network; with TB, P_B's loss steps the
# backward head alone; with the DQN objectives, a drawn transition has the priority of its loss.
RESULTS_VERSIONS = {"tb": 2, "db": 2, "subtb": 2, "soft_dqn": 2, "munchausen_dqn": 2}

# Where config.json has what identifies a run, and what is no part of the experiment.
IDENTITY = {
    "environment": "environment",
    "objective": "objective",
    "approach": "backward_approach",
    "learning_rate": "learning_rate",
    "seed": "seed",
}
# Fields whose product is a run's length in trajectories.
LENGTH = ("num_iterations", "batch_size")
BACKWARD_LEARNING_RATE = "backward_learning_rate"
NEWER = {"good_trajectories": 0}  # fields that older runs lack, and what they had in their place
# Fields whose other values make an environment of their own.
OF_ENVIRONMENT: dict[str, tuple[Any, ...]] = {"M_size": (60,), "mode_threshold": (30,), "reward_exponent": (2.0,)}
OF_APPROACH = ("backward_head_only",)  # fields that follow from the approach

MODES = Metric("mean modes found", "modes_found", "step", mean_over_training, 1, 0.1, relative=True)
CORRELATION = Metric("reward correlation", "reward_correlation", "step", last, 1, 0.05)
CHOICE = MODES  # by which learning rates are chosen
DECAY = ("gamma", 1.0)  # of P_B's learning rate; off from this value on

ENVIRONMENTS = {"n=120-k=8": "bit strings"}
# Environment of a smaller setting: the paper's that it takes the place of.
SMALL = {"n=32-k=4 mode_threshold=2": "n=120-k=8"}
_CURVES: dict[str, Any] = {
    "environments": ENVIRONMENTS,
    "x": "step",
    "y": "modes_found",
    "y_label": "modes found, of 60",
    "metric": MODES,
}
_CURRENT = {"y": "modes_current", "y_label": "modes, of 60"}
_LOG_REWARD = {"y": "mean_log_reward", "y_label": "mean log R (nats)", "floor": "mean_log_reward_perfect"}
_RATES = _CURVES | {
    "x": "learning_rate",
    "y": "reward_correlation",
    "y_label": "Spearman correlation\nof log P(x) and log R(x)",
    "metric": CORRELATION,
}
FIGURES = (
    Figure("figure2", "Bit strings: modes found in training", **_CURVES),
    Figure("figure2_current", "Bit strings: modes near the last 1,000 samples", **(_CURVES | _CURRENT)),
    Figure("figure2_log_reward", "Bit strings: mean log R of training strings", **(_CURVES | _LOG_REWARD)),
    Figure("figure3", "Bit strings: correlation with the reward", **_RATES),
    Figure("appendix_learning_rates", "Bit strings: modes found, every learning rate", **_CURVES, every_rate=True),
    Figure("appendix", "Bit strings: modes found, other settings", **_CURVES, varied=True),
)

STATEMENTS = {
    "C2": "on bit strings TLM gains clearly with DB, little with TB and SubTB",
    "C5": "TLM's reward correlation is better with MunchausenDQN and SubTB, on par with DB and TB",
    "C6": "decaying the learning rate of P_B matters little",
}
_STRINGS = tuple(ENVIRONMENTS)
EXPECTATIONS = (
    Expectation("C2", _STRINGS, ("db",), MODES, "better"),
    Expectation("C2", _STRINGS, ("tb", "subtb"), MODES, "similar"),
    Expectation("C5", _STRINGS, ("munchausen_dqn", "subtb"), CORRELATION, "better"),
    Expectation("C5", _STRINGS, ("db", "tb"), CORRELATION, "similar"),
    Expectation("C6", _STRINGS, ALL, MODES, "similar", (WITHOUT_DECAY,)),
)

# The tables of the README: columns of the last row of each run of REPORTED, numbers of each cell of COMPARED_IN.
REPORTED = ("evidence*.csv", "figure2_partial.csv")
COMPARED_IN = "small/figure2.csv"
COMPARED = {
    "Modes found, mean over the run": (MODES, "{:.1f}"),
    "Mean log R at the end (nats)": (Metric("", "mean_log_reward", "step", last, 1, 0), "{:.1f}"),
    "Reward correlation at the end": (CORRELATION, "{:.3f}"),
}
SHOWN = {
    "modes_found": ("modes found", "{:.0f}"),
    "modes_current": ("modes of the last 1,000", "{:.0f}"),
    "reward_correlation": ("reward correlation", "{:.3f}"),
    "reward_correlation_uniform": ("same, uniform P_B", "{:.3f}"),
    "mean_log_reward": ("mean log R (nats)", "{:.1f}"),
    "mean_log_reward_perfect": ("of a perfect sampler", "{:.1f}"),
    "log_z_error": ("log Z error (nats)", "{:.1f}"),
    "pb_deviation": ("P_B deviation (nats)", "{:.3f}"),
    "exact_total_variation": ("exact total variation", "{:.4f}"),
    "wall_s": ("minutes", "{:.0f}"),
}

PUBLISHED = Published(
    "step",
    {"mean_log_reward": "mean log R", "log_z": "log Z, or log F(s_0)", "modes_found": "modes found"},
    (100, 300, 600, 900),
    averaged=("mean_log_reward",),
    window=100,
)


def configuration(words: list[str]) -> dict[str, Any] | None:
    """The configuration of ``python bitseq/run.py ...``; None of any other command.

    Raises:
        ExperimentError: the arguments are wrong.
    """
    if words[:2] != ["python", "bitseq/run.py"]:
        return None
    from bitseq import settings  # what only reads numbers does not need it

    return settings.parse(words[2:]).to_dict()
