"""Collected CSV files read and checked, the number of a run, and the choice of the learning rate, by hand."""

import json

import numpy as np
import pandas as pd
import pytest
from collected_csv import grid_run, write_csv
from each import each

from bitseq.suite import CORRELATION, MODES
from hypergrid.analysis import tables
from hypergrid.common.terminal import ExperimentError
from hypergrid.suite import CONVERGENCE

RUN = {"environment": "standard", "objective": "db", "approach": "tlm", "learning_rate": 0.001, "seed": 1}


def read(*paths):
    return tables.read_results(paths)


def test_files_are_put_together_and_what_they_share_is_read_once(tmp_path):
    first = write_csv(tmp_path / "a.csv", grid_run(2.0, seed=1) + grid_run(2.0, seed=2))
    second = write_csv(tmp_path / "b.csv", grid_run(2.0, seed=2) + grid_run(2.0, seed=3, objective="dqn"))
    table = read(first, second)
    assert table.groupby("seed").size().to_dict() == {1: 2, 2: 2, 3: 2}
    assert set(table[table["seed"] == 3]["objective"]) == {"munchausen_dqn"}


def test_the_same_run_with_other_numbers_is_refused(tmp_path):
    files = [write_csv(tmp_path / f"{ratio}.csv", grid_run(ratio)) for ratio in (2.0, 3.0)]
    with pytest.raises(ExperimentError, match=r"the run \(standard, db, tlm, 0\.001, 1\) is there twice"):
        read(*files)


def test_of_a_run_at_two_lengths_the_longest_counts(tmp_path, capsys):
    long, short = grid_run(2.0), grid_run(3.0)[:-1]
    files = [write_csv(tmp_path / "a.csv", short + grid_run(5.0, seed=2)), write_csv(tmp_path / "b.csv", long)]
    table = read(*files)
    assert capsys.readouterr().err.startswith("warning: 1 runs are longer in another file, which counts")
    kept = table[table["seed"] == 1]
    assert len(kept) == len(long) and kept["l1_dist"].tolist() == [float(row["l1_dist"]) for row in long]
    assert len(table[table["seed"] == 2]) == len(long)
    assert not {"file"} & set(table)


def test_runs_of_other_settings_are_refused_unless_they_vary_on_purpose(tmp_path):
    configs = [{"algo.hidden_width": width, "general.n_trajectories": 16 * width} for width in (256, 64)]
    files = [write_csv(tmp_path / f"{seed}.csv", grid_run(2.0, seed=seed)) for seed in (1, 2)]
    for varying in (["algo.hidden_width"], []):
        for file, config in zip(files, configs, strict=True):
            packed = {"varying": varying, "common": {"env.name": "standard", "algo.name": "db"} | config, "runs": [{}]}
            file.with_suffix(".configs.json").write_text(json.dumps(packed))
        if varying:
            assert len(read(*files)) == 4
    with pytest.raises(ExperimentError, match=r"differ in algo.hidden_width \(256, 64\): name CSV files that agree"):
        read(*files)
    files[1].with_suffix(".configs.json").unlink()
    assert len(read(*files)) == 4  # a CSV of nobody knows what


def test_lengths_that_differ_are_said(tmp_path, capsys):
    read(write_csv(tmp_path / "a.csv", grid_run(2.0)))
    assert capsys.readouterr().err == ""
    rows = grid_run(2.0) + grid_run(2.0, points=(1600,), seed=2, git_hash="f" * 12)
    varied = [row | {"width": 1} for row in grid_run(2.0, seed=3)]  # which nothing in the other file is compared with
    read(write_csv(tmp_path / "b.csv", rows), write_csv(tmp_path / "c.csv", varied, varied=["width"]))
    assert capsys.readouterr().err.splitlines() == [
        "warning: standard, db: runs end at steps 100 to 200; compared up to the first",
    ]


def test_of_an_objective_the_newest_results_version_counts(tmp_path, capsys):
    rows = grid_run(2.0, results_version=0) + grid_run(3.0, seed=2) + grid_run(4.0, objective="tb", results_version=0)
    table = read(write_csv(tmp_path / "a.csv", rows))
    assert capsys.readouterr().err.splitlines() == [
        "warning: db: runs of an older results version do not count",
        "warning: tb: today's program computes another results version",
    ]
    assert dict(table.groupby("objective")["seed"].unique()) == {"db": [2], "tb": [1]}


def spoilt(path, old, new):
    path.write_text(path.read_text().replace(old, new))


@each(
    "spoil,message",
    [
        (lambda path: path.unlink(), "there is no file .*: make it by python -m hypergrid.analysis.collect"),
        (lambda path: path.write_text(""), "is empty or not a CSV"),
        (lambda path: path.write_bytes(b"\x89PNG\xff\xfe"), "is empty or not a CSV"),
        (lambda path: path.write_text(path.read_text().splitlines()[0] + "\n"), "has no rows"),
        (lambda path: spoilt(path, "seed", "sead"), "lacks the column seed"),
        (lambda path: spoilt(path, "hypergrid", "bitseq"), "is of the suite bitseq: use that suite's command"),
        (lambda path: spoilt(path, "1600", "many"), "has text in the column trajectories"),
        (lambda path: spoilt(path, ",db,", ",,"), "has an empty cell in the column objective"),
        (lambda path: spoilt(path, ",0.001,", ",,"), "has an empty cell in the column learning_rate"),
    ],
)
def test_a_file_that_is_no_collected_csv_is_refused(spoil, message, tmp_path):
    path = write_csv(tmp_path / "a.csv", grid_run(2.0))
    spoil(path)
    with pytest.raises(ExperimentError, match=message):
        read(path)


def test_the_number_of_a_run_is_its_mean_excess_over_the_floor(tmp_path):
    """Ratios 100, 10 and 0.5 at 0, 100 and 400: decades 2, 1 and, below the floor, 0; linear in between."""
    points = [(0, 1e-4), (100, 1e-5), (400, 5e-7)]
    rows = [{"trajectories": x, "l1_dist": y, "l1_floor": 1e-6, "step": x} for x, y in points]
    (number,) = tables.run_numbers(read(write_csv(tmp_path / "a.csv", rows)), CONVERGENCE).to_dict("records")
    assert number.pop("value") == pytest.approx((1.5 * 100 + 0.5 * 300) / 400, abs=1e-3)
    assert number == RUN | {"end": 400}


def test_runs_count_up_to_where_all_of_their_cell_are(tmp_path):
    long = [{"trajectories": x, "modes_found": x / 16, "seed": 1} for x in (0, 1600, 3200)]
    short = [{"trajectories": x, "modes_found": 7, "seed": 2} for x in (0, 1600)]
    other = [{"trajectories": x, "modes_found": 1, "objective": "tb"} for x in (0, 3200)]
    numbers = tables.run_numbers(read(write_csv(tmp_path / "a.csv", long + short + other)), MODES)
    assert numbers["value"].tolist() == pytest.approx([50.0, 7.0, 1.0])
    assert numbers["end"].tolist() == [100, 100, 200]


def test_the_correlation_is_that_of_the_last_step_that_all_have(tmp_path):
    first = [{"step": s, "reward_correlation": c, "seed": 1} for s, c in ((10, 0.1), (20, 0.2), (30, 0.3))]
    second = [{"step": s, "reward_correlation": c, "seed": 2} for s, c in ((10, 0.5), (20, 0.6), (30, ""))]
    rows = [{"trajectories": 16 * row["step"]} | row for row in first + second]
    numbers = tables.run_numbers(read(write_csv(tmp_path / "a.csv", rows)), CORRELATION)
    assert numbers["value"].tolist() == [0.2, 0.6] and set(numbers["end"]) == {20}


def test_a_column_is_the_first_of_its_name_that_has_numbers():
    modes = {"modes_found_1": np.nan, "modes_found_1.25": 4.0, "modes_found_2": 5.0}
    rows = pd.DataFrame([RUN | modes | {"loss": 1.0}])
    assert tables.measured_rows(rows, "modes_found")["value"].tolist() == [4.0]
    assert tables.measured_rows(rows, "loss")["value"].tolist() == [1.0]
    assert tables.measured_rows(rows, "modes").empty
    rows = pd.DataFrame([RUN | {"reward_correlation": np.nan, "reward_correlation_uniform": 0.5}])
    assert tables.measured_rows(rows, "reward_correlation").empty  # the other one is another metric


def numbers_of(cells, approach="tlm"):
    """Values by (learning rate, seed)."""
    return pd.DataFrame(
        [RUN | {"approach": approach, "learning_rate": r, "seed": s, "value": v} for (r, s), v in cells.items()]
    )


GRID = {(0.1, 3): 5.0, (0.1, 4): 6.0, (0.1, 7): 0.0, (0.2, 3): 6.0, (0.2, 4): 4.0, (0.2, 7): 9.0, (0.2, 8): 8.0}


@pytest.mark.parametrize(
    ("n_tuning", "rate", "seeds"),
    [(1, 0.2, [7, 8, 4]), (2, 0.1, [7])],  # on seed 3: 5 < 6; on 3 and 4: 5.5 > 5; the later seeds have no say
)
def test_the_learning_rate_is_chosen_on_tuning_seeds_and_reported_on_others(n_tuning, rate, seeds):
    runs = tables.chosen_runs(numbers_of(GRID), MODES, n_tuning)
    assert set(runs["learning_rate"]) == {rate} and set(runs["seed"]) == set(seeds) and runs["fresh"].all()


def test_where_less_is_better_the_smallest_number_is_chosen():
    runs = tables.chosen_runs(numbers_of(GRID), CONVERGENCE, 1)
    assert set(runs["learning_rate"]) == {0.1} and set(runs["seed"]) == {4, 7}


def test_without_other_seeds_the_tuning_seeds_are_shown_as_such():
    runs = tables.chosen_runs(numbers_of({(0.1, 1): 5.0, (0.2, 1): 6.0, (0.1, 2): 7.0}), MODES, 1)
    assert runs[["learning_rate", "seed", "fresh"]].to_numpy().tolist() == [[0.2, 1, False]]


def test_one_learning_rate_needs_no_choice_and_each_approach_has_its_own():
    both = pd.concat([numbers_of({(0.1, 1): 1.0, (0.1, 2): 2.0}, "uniform"), numbers_of(GRID)])
    runs = tables.chosen_runs(both, MODES, 1)
    assert runs[runs["approach"] == "uniform"]["seed"].tolist() == [1, 2]
    assert runs[runs["approach"] == "tlm"]["seed"].tolist() == [4, 7, 8]
    assert runs["fresh"].all()


def test_runs_of_a_varied_field_keep_to_themselves(tmp_path):
    main = write_csv(tmp_path / "a.csv", grid_run(2.0, seed=1) + grid_run(3.0, approach="", learning_rate=""))
    off = write_csv(tmp_path / "b.csv", grid_run(4.0, decay=1.0, seed=1), varied=["decay"])
    both = write_csv(tmp_path / "c.csv", grid_run(4.0, decay=1.0) + grid_run(2.0, decay=0.9), varied=["decay"])
    table = read(main, off)
    assert tables.varied_fields(table) == ["decay"]
    assert tables.main_runs(table)["l1_dist"].unique().tolist() == [2e-6]  # no reference that learns nothing
    shown = tables.settings_of(table, "decay")  # with the main run, for there is one value alone
    assert shown["l1_dist"].tolist() == [4e-6, 4e-6, 2e-6, 2e-6]
    assert shown["decay"].tolist()[:2] == [1.0, 1.0] and shown["decay"].isna().sum() == 2
    assert set(tables.settings_of(read(main, both), "decay")["decay"]) == {1.0, 0.9}


def test_other_varied_fields_stay_at_their_usual_value(tmp_path):
    rows = grid_run(1.0, decay=0.9, target=0.5) + grid_run(2.0, decay=1.0, target=0.5)
    rows += grid_run(3.0, decay=0.9, target=0.0)
    table = read(write_csv(tmp_path / "a.csv", rows, varied=["decay", "target"]))
    assert set(tables.settings_of(table, "decay")["l1_dist"]) == {1e-6, 2e-6}
    assert set(tables.settings_of(table, "target")["l1_dist"]) == {1e-6, 3e-6}
