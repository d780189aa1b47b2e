"""How an approach is shown: its colour, its marker, and whom to cite for it, from ``references.bib`` beside this file.

The colours are the colour-blind safe palette of Okabe and Ito; the markers tell the approaches apart without them. Both
follow the order of the approaches table, so that a new row at its end has its own.
This file and references.bib are the same, byte for byte, in every suite.
"""

import re
from itertools import cycle
from pathlib import Path

from ..common.backward_loss import APPROACHES

REFERENCES = Path(__file__).resolve().parent / "references.bib"
PALETTE = ("#0072B2", "#009E73", "#CC79A7", "#D55E00", "#E69F00", "#56B4E9", "#F0E442")
SHAPES = ("s", "^", "D", "o", "v", "P", "X")
OTHER = "#000000"  # what has no row in the table

COLOURS: dict[str | None, str] = {**dict(zip(APPROACHES, cycle(PALETTE), strict=False)), None: OTHER}
MARKERS: dict[str | None, str] = {**dict(zip(APPROACHES, cycle(SHAPES), strict=False)), None: "."}


def entries() -> dict[str, str]:
    """The BibTeX entries by key; an entry is a line."""
    lines = REFERENCES.read_text(encoding="utf-8").splitlines()
    return {line.partition("{")[2].partition(",")[0]: line for line in lines if line.startswith("@")}


def source(approach: str) -> str | None:
    """The BibTeX key of an approach; None where the table has no such row."""
    return APPROACHES[approach].source if approach in APPROACHES else None


def label(approach: str) -> str:
    """``tlm (Gritsaev et al. 2025)``; the key in place of authors that references.bib does not name."""
    key = source(approach)
    return f"{approach} ({short(key)})" if key else approach


def short(key: str) -> str:
    """First author, et al. and year of a key."""
    entry = entries().get(key, "")
    authors, year = re.search(r"author=\{(.+?)\}, ", entry), re.search(r"year=\{(\d+)\}", entry)
    if not authors or not year:
        return key
    names = authors[1].split(" and ")
    first = names[0].partition(",")[0] if "," in names[0] else names[0].split()[-1]
    return f"{first} et al. {year[1]}" if len(names) > 1 else f"{first} {year[1]}"


def bibliography(keys: list[str]) -> str:
    """A BibTeX file of exactly these keys; one that references.bib lacks is a comment that says so."""
    known = entries()
    missing = "% {0}: no entry in references.bib, add it there"
    return "".join(f"{known.get(key, missing.format(key))}\n" for key in keys)
