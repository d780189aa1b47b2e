"""How an approach is shown: its colour, its marker, and whom to cite for it, from ``references.bib`` beside this file.

The colours are the colour-blind safe palette of Okabe and Ito; the markers tell the approaches apart without them. Both
follow the order of the approaches table, so that a new row at its end has its own.
This file and references.bib are the same, byte for byte, in every suite.
"""

import re
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from typing import Any

from ..common.backward_loss import APPROACHES

REFERENCES = Path(__file__).resolve().parent / "references.bib"
PALETTE = ("#0072B2", "#009E73", "#CC79A7", "#D55E00", "#E69F00", "#56B4E9", "#F0E442")
SHAPES = ("s", "^", "D", "o", "v", "P", "X")
# None: what has no row in the table.
COLOURS: dict[str | None, str] = {**dict(zip(APPROACHES, cycle(PALETTE), strict=False)), None: "#000000"}
MARKERS: dict[str | None, str] = {**dict(zip(APPROACHES, cycle(SHAPES), strict=False)), None: "."}


def curve_style(approach: str) -> dict[str, Any]:
    """Colour and marker of an approach, as matplotlib's keywords."""
    known = approach if approach in APPROACHES else None
    return {"color": COLOURS[known], "marker": MARKERS[known]}


def read_references() -> dict[str, str]:
    """The BibTeX entries by key; an entry is a line."""
    lines = REFERENCES.read_text(encoding="utf-8").splitlines()
    return {line.partition("{")[2].partition(",")[0]: line for line in lines if line.startswith("@")}


def label_approach(approach: str) -> str:
    """``tlm (Gritsaev et al. 2025)``; the key in place of authors that references.bib does not name."""
    return f"{approach} ({_cite(APPROACHES[approach].source)})" if approach in APPROACHES else approach


def _cite(key: str) -> str:
    """First author, et al. and year of a key."""
    entry = read_references().get(key, "")
    authors, year = re.search(r"author=\{(.+?)\}, ", entry), re.search(r"year=\{(\d+)\}", entry)
    if not authors or not year:
        return key
    names = authors[1].split(" and ")
    first = names[0].partition(",")[0] if "," in names[0] else names[0].split()[-1]
    return f"{first} et al. {year[1]}" if len(names) > 1 else f"{first} {year[1]}"


def make_bibliography(keys: Iterable[str]) -> str:
    """A BibTeX file of exactly these keys; one that references.bib lacks is a comment that says so."""
    known = read_references()
    return "".join(known.get(key, f"% {key}: no entry in references.bib, add it there") + "\n" for key in keys)
