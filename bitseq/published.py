"""Our runs over the curves of the published code: a picture, and a table of every cell at fixed iterations.

    bash bitseq/sweeps/published.sh | python -m bitseq.launch
    python -m bitseq.collect runs --varying num_iterations --out bitseq/results/published_ours.csv
    python -m bitseq.published [--out FOLDER]

Reads published_curves.csv, measured with the published code, and published_ours.csv, both in results. Writes
published.png there and the table between its markers in README.md; with ``--out``, published.png and published.md into
FOLDER. A published value is compared with the smallest to the largest of our seeds, which is widened by how much the
published seeds differ where there are two.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import pandas as pd

from bitseq.colours import COLOURS
from bitseq.experiment import ExperimentError

matplotlib.use("Agg")
from matplotlib import pyplot as plt

SUITE = Path(__file__).resolve().parent
BEGIN, END = "<!-- published: python -m bitseq.published -->", "<!-- end of published -->"
CELL = ["objective", "approach"]
QUANTITIES = {"mean_log_reward": "mean log R", "log_z": "log Z", "modes_found": "modes found"}
STEPS = (100, 300, 600, 900)
WINDOW = 100  # iterations over which log R is averaged: those of the published seed with the coarser rows
MIN_SEEDS = 3  # of ours, for a spread


def read(path: Path) -> pd.DataFrame:
    """The rows of one of the two files, with log F(s_0) as ``log_z`` where that is what the file has.

    Raises:
        ExperimentError: there is no such file, or it is another.
    """
    try:
        rows = pd.read_csv(path)
        rows["log_z"] = rows["log_z"].fillna(rows["log_flow_initial"]) if "log_flow_initial" in rows else rows["log_z"]
        return rows[[*CELL, "seed", "step", *QUANTITIES]].sort_values([*CELL, "seed", "step"])
    except (OSError, KeyError, ValueError) as error:  # pandas' own errors are ValueErrors
        raise ExperimentError(f"{path} is not there or has other columns: make it as --help says") from error


def curves(rows: pd.DataFrame, cell: tuple[str, str]) -> dict[int, pd.DataFrame]:
    """The rows of each seed of an (objective, approach), in the order of their steps."""
    here = rows[(rows["objective"] == cell[0]) & (rows["approach"] == cell[1])]
    return {int(seed): curve for seed, curve in here.groupby("seed")}


def label(objective: str, quantity: str) -> str:
    """What a quantity is called; log F(s_0) is what an objective without log Z has in its place."""
    return "log F(s_0)" if quantity == "log_z" and objective != "tb" else QUANTITIES[quantity]


def value(curve: pd.DataFrame, quantity: str, step: int) -> float | None:
    """Of the strings of the last WINDOW iterations for log R, else at the step; None where the curve ends before."""
    window = curve[(curve["step"] > step - WINDOW) & (curve["step"] <= step)]
    if step not in set(window["step"]):
        return None
    return window[quantity].mean() if quantity == "mean_log_reward" else window[quantity].iloc[-1]


def spread(ours: list[float], published: list[float]) -> tuple[float, float]:
    """The smallest to the largest of our seeds, widened by how much the published seeds differ."""
    difference = max(published) - min(published)
    return min(ours) - difference, max(ours) + difference


def comparisons(published: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """A row for each cell, quantity and step that both have: the values, and whether the published ones lie within."""
    found = []
    for cell in published.groupby(CELL).groups:
        theirs, mine = curves(published, cell), curves(ours, cell)
        for quantity in QUANTITIES:
            for step in STEPS:
                sides = [{seed: value(c, quantity, step) for seed, c in side.items()} for side in (theirs, mine)]
                sides = [{seed: v for seed, v in side.items() if v is not None} for side in sides]
                if all(sides):
                    low, high = spread(list(sides[1].values()), list(sides[0].values()))
                    low = max(low, 0.0) if quantity == "modes_found" else low
                    within = all(low <= v <= high for v in sides[0].values()) if len(sides[1]) >= MIN_SEEDS else None
                    found.append([*cell, quantity, step, *sides, low, high, within])
    if not found:
        raise ExperimentError("the two files have no cell in common: collect the runs of sweeps/published.sh")
    return pd.DataFrame(found, columns=[*CELL, "quantity", "step", "published", "ours", "low", "high", "within"])


def table(compared: pd.DataFrame) -> str:
    """The comparisons in Markdown, and how many of them hold."""

    def cells(values: dict[int, float], form: str) -> str:
        return ", ".join(format(v, form) for v in values.values())

    lines = ["| objective | P_B | what | iteration | published | ours | our spread | within |", "|" + "---|" * 8]
    for row in compared.itertuples():
        form = ".0f" if row.quantity == "modes_found" else ".2f"
        within = {True: "yes", False: "no", None: "too few seeds"}[row.within]
        cell = f"| {row.objective} | {row.approach} | {label(row.objective, row.quantity)} | {row.step} "
        cell += f"| {cells(row.published, form)} | {cells(row.ours, form)} "
        lines.append(f"{cell}| {row.low:{form}} to {row.high:{form}} | {within} |")
    judged = compared["within"].dropna()
    seeds = [sorted({seed for values in compared[side] for seed in values}) for side in ("published", "ours")]
    theirs, mine = (", ".join(map(str, side)) for side in seeds)
    count = f"{int(judged.sum())} of {len(judged)} within"
    return "\n".join([*lines, "", f"{count}. Seeds, in this order: published {theirs}; ours {mine}."])


def draw(published: pd.DataFrame, ours: pd.DataFrame, path: Path) -> None:
    """A row of panels for each (objective, approach), a column for each quantity, as far as our runs go."""
    cells = list(published.groupby(CELL).groups)
    shape = len(cells), len(QUANTITIES)
    figure, axes = plt.subplots(*shape, figsize=(4 * shape[1], 2.3 * shape[0]), layout="constrained", squeeze=False)
    for cell, line in zip(cells, axes, strict=True):
        theirs, mine = curves(published, cell), curves(ours, cell)
        end = max(curve["step"].max() for curve in (mine or theirs).values())
        for quantity, axis in zip(QUANTITIES, line, strict=True):
            for curve in mine.values():
                axis.plot(curve["step"], curve[quantity], color=COLOURS.get(cell[1]), linewidth=0.8)
            for curve in theirs.values():
                seen = curve[curve["step"] <= end]
                axis.plot(seen["step"], seen[quantity], color="black", linestyle="--", linewidth=1.2)
            axis.set(title=f"{cell[0]}, {cell[1]}: {label(cell[0], quantity)}", xlabel="iterations", xlim=(0, end))
    figure.suptitle("dashed: the published code, every seed; coloured: this suite, every seed")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def with_table(page: str, section: str) -> str:
    """``page`` with ``section`` between the markers. Raises ExperimentError where a marker is missing."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ExperimentError(f"README.md lacks the markers {BEGIN} and {END}: put them where the table belongs")
    return f"{head}{BEGIN}\n\n{section}\n\n{END}{tail}"


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bitseq.published", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write picture and table into this folder instead")
    arguments = parser.parse_args(argv)
    folder = arguments.out or SUITE / "results"
    page = folder / "published.md" if arguments.out else SUITE / "README.md"
    try:
        published, ours = (read(SUITE / "results" / f"published_{name}.csv") for name in ("curves", "ours"))
        section = table(comparisons(published, ours))
        text = f"{section}\n" if arguments.out else with_table(page.read_text(encoding="utf-8"), section)
        folder.mkdir(parents=True, exist_ok=True)
        draw(published, ours, folder / "published.png")
        page.write_text(text, encoding="utf-8")
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: cannot write into {folder} ({error.strerror}): choose another --out", file=sys.stderr)
        return 2
    print(f"{folder / 'published.png'}\n{page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
