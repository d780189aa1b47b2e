"""One colour per backward approach, the same in every picture: the colour-blind safe palette of Okabe and Ito.

This file is the same, byte for byte, in every suite.
"""

COLOURS: dict[str | None, str] = {
    "tlm": "#D55E00",
    "uniform": "#0072B2",
    "naive": "#009E73",
    "maxent": "#CC79A7",
    "pessimistic": "#E69F00",
    None: "#56B4E9",
}
