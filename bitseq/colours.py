"""One colour and one marker per backward approach, the same in every picture.

The colours are the colour-blind safe palette of Okabe and Ito; the markers tell the approaches apart without them. Both
follow the order of the approaches table, so that a new row at its end has its own.
This file is the same, byte for byte, in every suite.
"""

from itertools import cycle

from .backward_loss import APPROACHES

PALETTE = ("#0072B2", "#009E73", "#CC79A7", "#D55E00", "#E69F00", "#56B4E9", "#F0E442")
SHAPES = ("s", "^", "D", "o", "v", "P", "X")
OTHER = "#000000"  # what has no row in the table

COLOURS: dict[str | None, str] = {**dict(zip(APPROACHES, cycle(PALETTE), strict=False)), None: OTHER}
MARKERS: dict[str | None, str] = {**dict(zip(APPROACHES, cycle(SHAPES), strict=False)), None: "."}
