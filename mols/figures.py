"""Figures 2 and 3 for the molecules: modes found, and correlation against learning rate, from collected CSV files.

    python -m mols.figures results/*.csv [--out FOLDER] [--tuning_seeds 1] [--approaches uniform tlm]

Writes PNG and PDF beside the first CSV, anew where they are there: figure2, at each approach's best learning rate;
figure3; appendix_learning_rates, where there are several; appendix_<field> for each field that ``collect --varying``
named. See ``panels.py`` for how they are drawn.
"""

import sys

from mols.panels import Figure
from mols.panels import main as draw_all
from mols.tables import CORRELATION, MODES

ENVIRONMENTS = {"qm9": "QM9", "seh_frag": "sEH"}
CURVES = {
    "environments": ENVIRONMENTS,
    "x": "step",
    "y": "modes_found",
    "y_label": "modes found",
    "metric": MODES,
}
RATES = CURVES | {
    "x": "learning_rate",
    "y": "reward_correlation",
    "y_label": "Pearson correlation",
    "metric": CORRELATION,
}
FIGURES = (
    Figure("figure2", "Molecules: modes found in training", **CURVES),
    Figure("figure3", "Molecules: correlation of log P(x) and log R", **RATES),
    Figure("appendix_learning_rates", "Molecules: modes found, every learning rate", **CURVES, every_rate=True),
    Figure("appendix", "Molecules: modes found, other settings", **CURVES, varied=True),
)


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    return draw_all(FIGURES, "mols", __doc__.splitlines()[0], argv)


if __name__ == "__main__":
    sys.exit(main())
