"""Figure 1: convergence in the hypergrid, from collected CSV files.

    python -m hypergrid.figures results/*.csv [--out FOLDER] [--tuning_seeds 1] [--approaches uniform tlm]

Writes PNG and PDF beside the first CSV, anew where they are there: figure1; appendix_exact, the exact distance in the
place of the empirical one; appendix_learning_rates, where there are several; appendix_<field> for each field that
``collect --varying`` named. See ``panels.py`` for how they are drawn.
"""

import sys

from hypergrid.panels import Figure
from hypergrid.panels import main as draw_all
from hypergrid.tables import CONVERGENCE

ENVIRONMENTS = {"standard": "standard", "hard": "hard"}
CURVES = {
    "environments": ENVIRONMENTS,
    "x": "trajectories",
    "y": "l1_dist",
    "y_label": "l1_dist",
    "y_scale": "log",
    "metric": CONVERGENCE,
    "floor": "l1_floor",
}
EXACT = {"y": "exact_total_variation", "y_label": "exact total variation", "y_scale": "linear", "floor": ""}
FIGURES = (
    Figure("figure1", "Hypergrid: mean over states of |empirical - true|", **CURVES),
    Figure("appendix_exact", "Hypergrid: total variation distance of P_F itself", **(CURVES | EXACT)),
    Figure("appendix_learning_rates", "Hypergrid: every learning rate", **CURVES, every_rate=True),
    Figure("appendix", "Hypergrid: other settings", **CURVES, varied=True),
)


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    return draw_all(FIGURES, "hypergrid", __doc__.splitlines()[0], argv)


if __name__ == "__main__":
    sys.exit(main())
