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

``statistics.py`` says what decides a comparison. The margin is 0.05 decades (12%) of l1_dist, 10% of the baseline's
modes, 0.05 of a correlation; where TLM is better or worse by less, the verdict says so. A claim is supported if all its
comparisons are, contradicted if one is. Of many comparisons at 95% some are wrong by chance; no correction is made. An
approach's learning rate is chosen once, on the tuning seeds, by the number of C1 (hypergrid) or C2 to C4 (elsewhere).
Runs of a smaller setting than the paper's are compared by the same rules, as claims of their own that say so.
This file is the same, byte for byte, in every suite.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import pandas as pd

from ..common.backward_loss import APPROACHES
from ..common.files import written
from ..common.reporting import ALL, BASELINES, WITHOUT_DECAY, Expectation
from ..common.terminal import ExperimentError, command
from ..suite import CHOICE, DECAY, EXPECTATIONS, SMALL, STATEMENTS
from . import tables
from .labels import make_bibliography
from .statistics import CONTRADICTED, SEEDS_TRIED, SUPPORTED, UNDECIDED, Comparison, compare
from .tables import OBJECTIVES, RUN, SMALL_SETTING, VALUE

OURS = "tlm"
WITHIN = ", by less than the margin"
HEADS = (
    *("claim", "environment", "objective", "TLM against", "expected", "number of a run", "up to", "learning rates"),
    *("seeds", "TLM", "other", "difference (95%)", "P(TLM better) (95%)", "verdict"),
)


def with_small_setting(expectations: Sequence[Expectation]) -> list[Expectation]:
    """The expectations, then the same of the environments that take the place of the paper's in a smaller setting."""
    small = []
    for expectation in expectations:
        places = tuple(name for name, of in SMALL.items() if of in expectation.environments)
        small.append(replace(expectation, claim=expectation.claim + SMALL_SETTING, environments=places))
    return [*expectations, *(expectation for expectation in small if expectation.environments)]


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

    @property
    def verdict(self) -> str:
        """Of the comparison; empty where it was not measured."""
        return self.comparison.verdict if self.comparison else ""


def compare_all(table: pd.DataFrame, n_tuning: int) -> list[Result]:
    """Every comparison of the suite's claims, those of approaches beyond the paper's behind the paper's."""
    found, main = [], tables.main_runs(table)
    chosen = tables.chosen_runs(tables.run_numbers(main, CHOICE), CHOICE, n_tuning)
    for expectation in with_small_setting(EXPECTATIONS):
        if expectation.against == (WITHOUT_DECAY,):
            runs = _decay_runs(table, expectation, *DECAY)
        else:
            runs = tables.run_numbers(main.merge(chosen[RUN]), expectation.metric).merge(chosen[[*RUN, "fresh"]])
        others = sorted(set(runs["approach"]) - {OURS, *BASELINES, WITHOUT_DECAY})
        against = [*expectation.against, *(others if "uniform" in expectation.against else ())]
        for place in product(expectation.environments, expectation.objectives, against):
            found.append(_compare_at(runs, expectation, *place))
    return sorted(found, key=lambda r: (r.expectation.claim, r.environment, ALL.index(r.objective)))


def _decay_runs(table: pd.DataFrame, expectation: Expectation, field: str, off: float) -> pd.DataFrame:
    """TLM's runs, those without decay under a name of their own; where a learning rate has both."""
    if field not in tables.varied_fields(table):
        return tables.run_numbers(table[:0], expectation.metric).assign(fresh=True)
    settings = tables.settings_of(table, field)
    runs = tables.run_numbers(settings[settings["approach"] == OURS], expectation.metric, [field])
    runs = runs.assign(approach=(runs[field] >= off).map({True: WITHOUT_DECAY, False: OURS}), fresh=True)
    cell = RUN[:2]
    runs = runs[runs.groupby([*cell, "learning_rate"])["approach"].transform("nunique") == 2]
    return runs[runs["learning_rate"] == runs.groupby(cell)["learning_rate"].transform("min")]


def _compare_at(runs: pd.DataFrame, expectation: Expectation, environment: str, objective: str, other: str) -> Result:
    cell = runs[(runs["environment"] == environment) & (runs["objective"] == objective)]
    ours, theirs = cell[cell["approach"] == OURS], cell[cell["approach"] == other]
    if ours.empty or theirs.empty:
        return Result(expectation, environment, objective, other)
    values, fresh = (ours[VALUE].to_numpy(), theirs[VALUE].to_numpy()), ours["fresh"].all() and theirs["fresh"].all()
    comparison = compare(*values, expectation.expected, expectation.metric, fresh=bool(fresh))
    rates = f"{ours['learning_rate'].iloc[0]:g} / {theirs['learning_rate'].iloc[0]:g}"
    return Result(expectation, environment, objective, other, comparison, rates, ours["end"].iloc[0])


def judge_claim(results: Sequence[Result]) -> tuple[str, int | None]:
    """Verdict of a claim by the comparisons that it is about, and how many more seeds of each side would decide most.

    The number is None where that is more than was tried.
    """
    verdicts = {result.verdict for result in results}
    if CONTRADICTED in verdicts or verdicts == {SUPPORTED}:
        return CONTRADICTED if CONTRADICTED in verdicts else SUPPORTED, 0
    more = [r.comparison.more for r in results if r.comparison and r.verdict == UNDECIDED]
    known = [number for number in more if number is not None]
    return UNDECIDED, max(known, default=0) if len(known) == len(more) else None


def describe_claims(results: Sequence[Result], table: pd.DataFrame, files: Sequence[Path], n_tuning: int) -> str:
    """The claims, then every comparison that was measured, then how to read them, in Markdown."""
    claims = []
    statements = STATEMENTS | {claim + SMALL_SETTING: statement for claim, statement in STATEMENTS.items()}
    for claim, statement in statements.items():
        own = [r for r in results if r.expectation.claim == claim and r.baseline in (*BASELINES, WITHOUT_DECAY)]
        if any(result.comparison for result in own):
            verdicts = [result.verdict for result in own]
            counts = [str(verdicts.count(verdict)) for verdict in (SUPPORTED, CONTRADICTED, UNDECIDED, "")]
            claims.append([claim, statement, _with_more(*judge_claim(own)), *counts])
    heads = ["claim", "what it says", "verdict", SUPPORTED, CONTRADICTED, UNDECIDED, "not measured"]
    measured = tables.markdown_table(HEADS, [_cells(r, r.comparison) for r in results if r.comparison])
    reading = (
        "Numbers are interquartile means over seeds; a difference above 0 is in TLM's favour. With more than one "
        f"learning rate, each approach's best {CHOICE.name} on its {n_tuning} smallest seed{'s' * (n_tuning > 1)}, "
        "reported on the others. Comparisons with approaches beyond the paper's do not count for a claim. "
        f"From {', '.join(file.name for file in files)}; {tables.describe_versions(table)}."
    )
    return "\n\n".join([tables.markdown_table(heads, claims), measured, reading]) + "\n"


def _with_more(verdict: str, more: int | None) -> str:
    if verdict != UNDECIDED or more == 0:
        return verdict
    if more is None:
        return f"{verdict}: more than {SEEDS_TRIED[-1]} seeds a side"
    return f"{verdict}: at least {more} more seed{'s' * (more != 1)} a side"


def _cells(result: Result, compared: Comparison) -> list[str]:
    expectation, baseline, unit = result.expectation, result.baseline, result.expectation.metric.x
    decided = expectation.expected == "better" and compared.verdict != UNDECIDED
    cited = f"{baseline} [{APPROACHES[baseline].source}]" if baseline in APPROACHES else baseline
    return [
        *(expectation.claim, result.environment, OBJECTIVES[result.objective], cited),
        *(expectation.expected, expectation.metric.name),
        f"{result.end:,.0f} {'iterations' if unit == 'step' else unit}",
        *(result.learning_rates, " / ".join(map(str, compared.seeds))),
        *(f"{mean:.3f}" for mean in compared.means),
        f"{compared.difference:+.3f}{_edges(compared.difference_interval)}",
        f"{compared.improvement:.2f}{_edges(compared.improvement_interval)}",
        _with_more(compared.verdict, compared.more) + WITHIN * (decided and compared.small),
    ]


def _edges(edges: tuple[float, float] | None) -> str:
    return f" ({edges[0]:.2f} to {edges[1]:.2f})" if edges else ""


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = tables.new_parser("claims", __doc__)
    tables.add_arguments(parser)
    arguments = parser.parse_args(argv)

    def work() -> None:
        table = tables.read_results(arguments.results)
        results = compare_all(table, arguments.tuning_seeds)
        compared = {OURS, *(result.baseline for result in results if result.comparison)}
        if compared == {OURS}:
            raise ExperimentError("no claim compares what is in these files: collect runs of tlm and of a baseline")
        page = describe_claims(results, table, arguments.results, arguments.tuning_seeds)
        folder = tables.output_folder(arguments)
        with written(folder / "claims.md") as claims, written(folder / "claims.bib") as entries:
            claims.write(page)
            keys = dict.fromkeys(row.source for name, row in APPROACHES.items() if name in compared)
            entries.write(make_bibliography(keys))
        print(page, end="")

    return command(work)


if __name__ == "__main__":
    sys.exit(main())
