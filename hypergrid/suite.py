"""What the copied folders must know of this suite: the versions of its results, and how they are shown and judged."""

from typing import Any

from hypergrid.common.reporting import (
    ALL,
    WITHOUT_DECAY,
    Expectation,
    Figure,
    Metric,
    Published,
    Summary,
    excess_over_floor,
    last,
    value_at,
)

# Raised when what is computed changes, never when code is only moved, renamed or made faster; a test says when
# (tests/hypergrid/golden.json). Version 2 of the DQN objectives: a new transition enters the replay with its own
# priority, where version 1 gave it the largest so far.
RESULTS_VERSIONS = {"tb": 1, "db": 1, "subtb": 1, "soft_dqn": 2, "munchausen_dqn": 2, "perfect": 1, "uniform": 1}

# Where config.json has what identifies a run, and what is no part of the experiment.
IDENTITY = {
    "environment": "env.name",
    "objective": "algo.name",
    "approach": "algo.backward_approach",
    "learning_rate": "algo.learning_rate",
    "seed": "general.seed",
}
# Fields whose product is a run's length in trajectories.
LENGTH = ("general.n_trajectories",)
BACKWARD_LEARNING_RATE = "algo.backward_learning_rate"
NEWER: dict[str, Any] = {}  # fields that older runs lack, and what they had in their place
# Fields whose other values make an environment of their own.
OF_ENVIRONMENT: dict[str, tuple[Any, ...]] = {
    **{"env.height": (20,), "env.ndim": (4,)},
    **{"env.R0": (1e-3, 1e-4), "env.R1": (0.5, 1.0), "env.R2": (2.0, 3.0)},
}
OF_APPROACH: tuple[str, ...] = ()  # fields that follow from the approach

CONVERGENCE = Metric("mean log10 of l1_dist / floor", "l1_dist", "trajectories", excess_over_floor, -1, 0.05)
CHOICE = CONVERGENCE  # by which learning rates are chosen
DECAY = ("algo.backward_learning_rate_decay", 1.0)  # of P_B's learning rate; off from this value on

ENVIRONMENTS = {"standard": "standard", "hard": "hard"}
# Environment of a smaller setting: the paper's that it takes the place of.
SMALL: dict[str, str] = {}
_CURVES: dict[str, Any] = {
    "environments": ENVIRONMENTS,
    "x": "trajectories",
    "y": "l1_dist",
    "y_label": "L1 distance to R/Z,\nmean over states",
    "y_scale": "log",
    "metric": CONVERGENCE,
    "floor": "l1_floor",
}
_EXACT = {"y": "exact_total_variation", "y_label": "total variation\ndistance to R/Z", "floor": ""}
FIGURES = (
    Figure("figure1", "Hypergrid: distance of the last samples' distribution to R/Z", **_CURVES),
    Figure("appendix_exact", "Hypergrid: distance of P_F's own distribution to R/Z", **(_CURVES | _EXACT)),
    Figure("appendix_learning_rates", "Hypergrid: every learning rate", **_CURVES, every_rate=True),
    Figure("appendix", "Hypergrid: other settings", **_CURVES, varied=True),
)

STATEMENTS = {
    "C1": "in the hypergrid TLM converges faster than the others, but with TB not faster than naive",
    "C6": "decaying the learning rate of P_B matters little",
}
_GRIDS = tuple(ENVIRONMENTS)
EXPECTATIONS = (
    Expectation("C1", _GRIDS, ("munchausen_dqn", "db", "subtb"), CONVERGENCE, "better"),
    Expectation("C1", _GRIDS, ("tb",), CONVERGENCE, "better", ("uniform", "maxent", "pessimistic")),
    Expectation("C1", _GRIDS, ("tb",), CONVERGENCE, "not better", ("naive",)),
    Expectation("C6", _GRIDS, ALL, CONVERGENCE, "similar", (WITHOUT_DECAY,)),
)


def _distance(column: str, summary: Summary) -> Metric:
    return Metric("", column, "trajectories", summary, -1, 0)


# The tables of the README: columns of the last row of each run of REPORTED, numbers of each cell of COMPARED_IN.
REPORTED = ("evidence*.csv", "figure1.csv")
COMPARED_IN = "figure1.csv"
COMPARED = {
    "Decades above a perfect sampler, mean over the run": (CONVERGENCE, "{:.3f}"),
    "l1_dist after 32,000 trajectories": (_distance("l1_dist", value_at(32_000)), "{:.2e}"),
    "Exact total variation after 80,000 trajectories": (_distance("exact_total_variation", value_at(80_000)), "{:.3f}"),
    "Exact total variation at the end": (_distance("exact_total_variation", last), "{:.3f}"),
}
SHOWN = {
    "pb_deviation": ("P_B deviation (nats)", "{:.3f}"),
    "exact_total_variation": ("exact total variation", "{:.4f}"),
    "exact_l1_dist": ("exact l1_dist", "{:.2e}"),
    "l1_dist": ("empirical l1_dist", "{:.2e}"),
    "l1_floor": ("its floor", "{:.2e}"),
    "log_z_error": ("log Z error (nats)", "{:.3f}"),
    "wall_s": ("minutes", "{:.0f}"),
}

PUBLISHED = Published("trajectories", {"l1_dist": "L1 distance to R/Z"}, (8_000, 16_000, 24_000, 32_000, 80_000))


def configuration(words: list[str]) -> dict[str, Any] | None:
    """The configuration of ``python hypergrid/run_hypergrid_exp.py ...``; None of any other command.

    Raises:
        ExperimentError: the arguments are wrong.
    """
    if words[:2] != ["python", "hypergrid/run_hypergrid_exp.py"]:
        return None
    from hypergrid import settings  # what only reads numbers does not need it

    return settings.parse(words[1:]).to_dict()
