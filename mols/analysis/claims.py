"""What the collected runs say about the paper's claims C1 to C6 (Gritsaev et al. 2025).

    python -m <suite>.analysis.claims RESULTS.csv [...] [--out FOLDER] [--tuning_seeds 1]

Writes claims.md, a Markdown table, and claims.bib, the BibTeX entries of the approaches in it, anew beside the first
CSV or into ``--out``, and prints the table. A comparison is TLM against one baseline in one environment with one
objective. Every run gives one number:

    C1, C6 in the hypergrid   mean over the trajectories of log10(l1_dist / floor), at least 0: decades above a perfect
                              sampler, so that the whole curve counts, and being below the floor counts for nothing
    C2, C3, C4, C6 elsewhere  mean over the iterations of the modes found so far (molecules: at the lowest threshold),
                              which still tells apart what finds all modes in the end
    C5                        reward_correlation at the last step that all runs of the cell have

What a claim expects decides what is looked at, by 95% bootstrap intervals over seeds (see ``statistics.py``):

    better       the probability of improvement of TLM: supported above 0.5, contradicted below
    similar      the difference of interquartile means: supported within the margin, contradicted outside. The margin is
                 0.05 decades (12%) of l1_dist, 10% of the baseline's modes, 0.05 of a correlation
    not better   that difference: supported below the margin in TLM's favour, contradicted above it

A comparison with fewer than four seeds on a side, or with an interval that does neither, is undecided; how many more
seeds would decide is estimated as if they repeated those at hand. A claim is supported if all its comparisons are,
contradicted if one is. Of many comparisons at 95% some are wrong by chance; no correction is made. An approach's
learning rate is chosen once, on the tuning seeds, by the number of C1 (hypergrid) or C2 to C4 (elsewhere).
This file is the same, byte for byte, in every suite.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..common.backward_loss import APPROACHES
from ..common.files import written
from ..common.reporting import ALL, BASELINES, WITHOUT_DECAY, Expectation
from ..common.terminal import ExperimentError, command
from ..suite import CHOICE, DECAY, EXPECTATIONS, STATEMENTS
from .labels import bibliography, source
from .statistics import CONTRADICTED, MIN_SEEDS, SEEDS_TRIED, SUPPORTED, UNDECIDED, Comparison, compare
from .tables import (
    OBJECTIVES,
    RUN,
    add_arguments,
    main_runs,
    output_folder,
    read,
    reported,
    rows_of,
    run_numbers,
    settings_of,
    varied_fields,
    versions_of,
)

OURS = "tlm"


@dataclass(frozen=True)
class Result:
    """One comparison of the claims; None: not measured."""

    expectation: Expectation
    environment: str
    objective: str
    baseline: str
    comparison: Comparison | None = None
    learning_rates: str = ""
    end: float = 0.0


def results_of(table: pd.DataFrame, n_tuning: int) -> list[Result]:
    """Every comparison of the suite's claims, those of approaches beyond the paper's behind the paper's."""
    found, main = [], main_runs(table)
    chosen = reported(run_numbers(main, CHOICE), CHOICE, n_tuning)
    for expectation in EXPECTATIONS:
        if expectation.against == (WITHOUT_DECAY,):
            runs = _decay_runs(table, expectation, *DECAY)
        else:
            numbers = run_numbers(rows_of(main, chosen), expectation.metric)
            runs = numbers.merge(chosen[[*RUN, "fresh"]], on=RUN)
        others = [name for name in runs["approach"].unique() if name not in (OURS, *BASELINES, WITHOUT_DECAY)]
        against = expectation.against + tuple(sorted(others) if "uniform" in expectation.against else ())
        for environment in expectation.environments:
            for objective in expectation.objectives:
                cell = runs[(runs["environment"] == environment) & (runs["objective"] == objective)]
                found += [_result(cell, expectation, environment, objective, baseline) for baseline in against]
    return sorted(found, key=lambda r: (r.expectation.claim, r.environment, ALL.index(r.objective)))


def _decay_runs(table: pd.DataFrame, expectation: Expectation, field: str, off: float) -> pd.DataFrame:
    """TLM's runs, those without decay under a name of their own; where a learning rate has both."""
    if field not in varied_fields(table):
        return run_numbers(table[:0], expectation.metric).assign(fresh=True)
    settings = settings_of(table, field)
    runs = run_numbers(settings[settings["approach"] == OURS], expectation.metric, [field])
    runs = runs.assign(approach=(runs[field] >= off).map({True: WITHOUT_DECAY, False: OURS}), fresh=True)
    both = runs.groupby(["environment", "objective", "learning_rate"])["approach"].transform("nunique") == 2
    lowest = runs[both].groupby(["environment", "objective"])["learning_rate"].transform("min")
    return runs[both][runs[both]["learning_rate"] == lowest]


def _result(cell: pd.DataFrame, expectation: Expectation, environment: str, objective: str, baseline: str) -> Result:
    ours, theirs = cell[cell["approach"] == OURS], cell[cell["approach"] == baseline]
    if ours.empty or theirs.empty:
        return Result(expectation, environment, objective, baseline)
    comparison = compare(
        ours["value"].to_numpy(),
        theirs["value"].to_numpy(),
        expectation.expected,
        expectation.metric,
        fresh=bool(ours["fresh"].all() and theirs["fresh"].all()),
    )
    rates = " / ".join(f"{runs['learning_rate'].iloc[0]:g}" for runs in (ours, theirs))
    return Result(expectation, environment, objective, baseline, comparison, rates, ours["end"].iloc[0])


def outcome(results: list[Result]) -> tuple[str, int | None]:
    """Verdict of a claim by the comparisons that it is about, and how many more seeds of each side would decide most.

    The number is None where that is more than was tried.
    """
    verdicts = [result.comparison.verdict if result.comparison else "" for result in results]
    if CONTRADICTED in verdicts:
        return CONTRADICTED, 0
    if set(verdicts) == {SUPPORTED}:
        return SUPPORTED, 0
    more = [r.comparison.more for r in results if r.comparison and r.comparison.verdict == UNDECIDED]
    return UNDECIDED, None if None in more else max(more, default=0)


def markdown(results: list[Result], table: pd.DataFrame, files: list[Path], n_tuning: int) -> str:
    """The claims, then every comparison that was measured, then how to read them."""
    lines = [
        "| claim | what it says | verdict | supported | contradicted | undecided | not measured |",
        "|---" * 7 + "|",
    ]
    for claim, statement in STATEMENTS.items():
        own = [r for r in results if r.expectation.claim == claim and r.baseline in (*BASELINES, WITHOUT_DECAY)]
        if not any(result.comparison for result in own):
            continue
        verdicts = [result.comparison.verdict if result.comparison else "" for result in own]
        counts = [str(verdicts.count(verdict)) for verdict in (SUPPORTED, CONTRADICTED, UNDECIDED, "")]
        lines.append("| " + " | ".join([claim, statement, _with_more(*outcome(own)), *counts]) + " |")
    heads = [
        "claim",
        "environment",
        "objective",
        "TLM against",
        "expected",
        "number of a run",
        "up to",
        "learning rates",
    ]
    heads += ["seeds", "TLM", "other", "difference (95%)", "P(TLM better) (95%)", "verdict"]
    lines += ["", "| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += [_line(result) for result in results if result.comparison]
    names, choice = ", ".join(file.name for file in files), CHOICE.name
    lines += [
        "",
        "Numbers are interquartile means over seeds; a difference above 0 is in TLM's favour. With more than one "
        f"learning rate, each approach's best {choice} on its {n_tuning} smallest seed{'s' * (n_tuning > 1)}, reported "
        "on the others. Comparisons with approaches beyond the paper's do not count for a claim. "
        f"From {names}; {versions_of(table)}.",
    ]
    return "\n".join(lines) + "\n"


def _with_more(verdict: str, more: int | None) -> str:
    if verdict != UNDECIDED or more == 0:
        return verdict
    number = f"at least {more}" if more else f"more than {SEEDS_TRIED[-1] - MIN_SEEDS}"
    return f"{verdict}: {number} more seed{'s' * (more != 1)} a side"


def _line(result: Result) -> str:
    expectation, compared, key = result.expectation, result.comparison, source(result.baseline)
    cells = [
        expectation.claim,
        result.environment,
        OBJECTIVES[result.objective],
        f"{result.baseline} [{key}]" if key else result.baseline,
        expectation.expected,
        expectation.metric.name,
        f"{result.end:,.0f} {'trajectories' if expectation.metric.x == 'trajectories' else 'iterations'}",
        result.learning_rates,
        " / ".join(map(str, compared.seeds)),
        *(f"{mean:.3f}" for mean in compared.means),
        f"{compared.difference:+.3f}{_edges(compared.difference_interval)}",
        f"{compared.improvement:.2f}{_edges(compared.improvement_interval)}",
        _with_more(compared.verdict, compared.more),
    ]
    return "| " + " | ".join(cells) + " |"


def _edges(edges: tuple[float, float] | None) -> str:
    return f" ({edges[0]:.2f} to {edges[1]:.2f})" if edges else ""


def keys_of(results: list[Result]) -> list[str]:
    """The BibTeX keys of the approaches that were compared, in the order of the approaches table."""
    names = {result.baseline for result in results if result.comparison} | {OURS}
    return list(dict.fromkeys(row.source for name, row in APPROACHES.items() if name in names))


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    suite = Path(__file__).resolve().parents[1].name
    parser = argparse.ArgumentParser(prog=f"python -m {suite}.analysis.claims", description=__doc__.splitlines()[0])
    add_arguments(parser, suite)
    arguments = parser.parse_args(argv)

    def work() -> None:
        table = read(arguments.results, suite)
        results = results_of(table, arguments.tuning_seeds)
        if not any(result.comparison for result in results):
            raise ExperimentError("no claim compares what is in these files: collect runs of tlm and of a baseline")
        page = markdown(results, table, arguments.results, arguments.tuning_seeds)
        folder = output_folder(arguments)
        with written(folder / "claims.md") as claims, written(folder / "claims.bib") as entries:
            claims.write(page)
            entries.write(bibliography(keys_of(results)))
        print(page, end="")

    return command(work)


if __name__ == "__main__":
    sys.exit(main())
