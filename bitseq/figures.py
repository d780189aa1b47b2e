"""Figures 2 and 3 for the bit strings: modes found, and correlation against learning rate, from collected CSV files.

    python -m bitseq.figures results/*.csv [--out FOLDER] [--tuning_seeds 1] [--approaches uniform tlm]

Writes PNG and PDF beside the first CSV, anew where they are there: figure2, at each approach's best learning rate;
figure3; appendix_learning_rates, where there are several; appendix_<field> for each field that ``collect --varying``
named. See ``panels.py`` for how they are drawn.
"""

import sys

from bitseq.panels import Figure
from bitseq.panels import main as draw_all
from bitseq.tables import CORRELATION, MODES

ENVIRONMENTS = {"n=120-k=8": "bit strings"}
CURVES = {
    "environments": ENVIRONMENTS,
    "x": "step",
    "y": "modes_found",
    "y_label": "modes found, of 60",
    "metric": MODES,
}
RATES = CURVES | {
    "x": "learning_rate",
    "y": "reward_correlation",
    "y_label": "Spearman correlation",
    "metric": CORRELATION,
}
FIGURES = (
    Figure("figure2", "Bit strings: modes found in training", **CURVES),
    Figure("figure3", "Bit strings: correlation of log P(x) and log R", **RATES),
    Figure("appendix_learning_rates", "Bit strings: modes found, every learning rate", **CURVES, every_rate=True),
    Figure("appendix", "Bit strings: modes found, other settings", **CURVES, varied=True),
)


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    return draw_all(FIGURES, "bitseq", __doc__.splitlines()[0], argv)


if __name__ == "__main__":
    sys.exit(main())
