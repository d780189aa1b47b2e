"""Our runs beside the published code's: like is compared with like, and the page says what the two files say."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bitseq.analysis import published
from bitseq.common.reporting import Published
from bitseq.common.terminal import ExperimentError

SPEC = Published("step", {"log_r": "log R", "log_z": "log Z"}, (100, 300, 900), averaged=("log_r",), window=100)


def rows(approach, seed, every, log_z):
    cell = {"environment": "strings", "objective": "tb", "approach": approach, "seed": seed}
    return [cell | {"step": step, "log_r": -float(step), "log_z": log_z} for step in range(every, 301, every)]


def compared(n_ours=3):
    """Published: seed 1 in windows of 25 and seed 7 in windows of 100; ours: log Z 0, 1, 2, ..."""
    theirs = pd.DataFrame(rows("uniform", 1, 25, 1.0) + rows("uniform", 7, 100, 1.5))
    ours = pd.DataFrame([row for seed in range(n_ours) for row in rows("uniform", seed + 1, 25, float(seed))])
    return published.compare_curves(ours, theirs, SPEC).set_index(["metric", "x"])


def test_what_is_averaged_is_averaged_over_the_same_iterations_and_the_rest_is_of_the_step():
    table = compared()
    row = table.loc["log_r", 300]
    assert row["published"].tolist() == [-(225 + 250 + 275 + 300) / 4, -300.0]  # four windows of 25, one of 100
    assert row["ours"].tolist() == [-262.5] * 3
    row = table.loc["log_z", 100]
    assert row["published"].tolist() == [1.0, 1.5] and row["ours"].tolist() == [0.0, 1.0, 2.0]
    assert set(table.index.get_level_values("x")) == {100, 300}  # 900 lies behind the curves' ends


def test_the_interval_is_where_one_more_seed_would_lie():
    low, high = published.prediction_interval(np.array([0.0, 1.0, 2.0]))
    half = stats.t.ppf(0.975, 2) * np.sqrt(4 / 3)
    assert (low, high) == pytest.approx((1 - half, 1 + half))
    draws = np.random.default_rng(1).normal(size=(4000, 6))
    hits = [
        low <= new <= high for *seeds, new in draws for low, high in [published.prediction_interval(np.array(seeds))]
    ]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)


def test_too_few_seeds_are_refused():
    with pytest.raises(ExperimentError, match="strings, tb, uniform has fewer than 3 seeds"):
        compared(n_ours=2)


def test_the_table_counts_what_lies_in_the_interval():
    page = published.describe_comparisons(compared().reset_index(), SPEC, "some runs")
    assert "| strings | TB | uniform | log Z | 100 | 1, 1.5 | 0, 1, 2 | -3.97 to 5.97 | yes |" in page
    assert page.endswith("6 of 8 published values lie in the interval.\nOurs: some runs.\n")
    assert page.count("**no**") == 2  # log R of seed 7: our seeds do not differ there


@pytest.mark.parametrize("suite", ["hypergrid", "bitseq"])
def test_the_page_is_what_the_files_say(suite, tmp_path):
    module = pytest.importorskip(f"{suite}.analysis.published")
    if not (module.RESULTS / "published_ours.csv").exists():
        pytest.fail("results/published_ours.csv is missing")
    assert module.main(["--out", str(tmp_path)]) == 0
    table = (tmp_path / "published.md").read_text(encoding="utf-8").strip()
    assert table in (module.RESULTS.parent / "README.md").read_text(encoding="utf-8")
