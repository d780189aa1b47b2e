"""How runs join a CSV that is there already, and which runs stay out; run folders written by hand."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from hypergrid.analysis import collect, merging, tables

ROOT = Path(__file__).parents[2]
COLUMNS = ("step", "trajectories", "wall_s", "loss", "l1_dist", "exact")
OFF = "algo.decay"


def write_run(folder, seed=1, rows=((1, 16, 0.5, 2.0, 0.1, ""),), done=True, version=1, commit="a" * 12, **fields):
    algo = {"name": "db", "backward_approach": "tlm", "learning_rate": 0.001, "decay": 0.9} | fields
    config = {"general": {"seed": seed, "output_dir": str(folder)}, "env": {"name": "standard", "height": 20}}
    run = folder / f"{algo['backward_approach']}-{algo['decay']}" / f"seed={seed}"
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(config | {"algo": algo}))
    meta = {"suite": "hypergrid", "results_version": version, "git_hash": commit, "resumed": []}
    (run / "meta.json").write_text(json.dumps(meta))
    lines = [",".join(COLUMNS), *(",".join(map(str, row)) for row in rows)]
    (run / "metrics.csv").write_text("\n".join(lines) + "\n")
    if done:
        (run / "DONE").touch()
    return run


@pytest.fixture
def command(tmp_path, capsys):
    """``command(folder, *options)``: exit status, what was said, and the rows of all.csv."""

    def call(*argv):
        status = collect.main([*map(str, argv), "--out", str(tmp_path / "out" / "all.csv")])
        path = tmp_path / "out" / "all.csv"
        rows = list(csv.DictReader(path.open(newline=""))) if path.exists() else None
        return status, "".join(capsys.readouterr()), rows

    return call


def seeds(rows):
    return [row["seed"] for row in rows]


def test_finished_runs_of_another_machine_join_the_csv(command, tmp_path):
    write_run(tmp_path / "a", seed=1)
    write_run(tmp_path / "b", seed=2, approach="x")
    assert command(tmp_path / "a")[0] == 0
    before = (tmp_path / "out" / "all.csv").read_text()
    write_run(tmp_path / "c", seed=1, rows=[(1, 16, 99.0, 2.0, 0.1, "")])  # the same run, only slower
    status, said, rows = command(tmp_path / "b", tmp_path / "c", "--append")
    assert (status, seeds(rows)) == (0, ["1", "2"]) and said.startswith("2 runs in ")
    assert rows[0]["wall_s"] == "0.5" and (tmp_path / "out" / "all.csv").read_text().startswith(before)
    assert command(tmp_path / "b", "--append")[2] == rows


def test_without_append_no_run_of_the_csv_is_lost(command, tmp_path):
    write_run(tmp_path / "a", seed=1)
    write_run(tmp_path / "a", seed=2)
    rows = command(tmp_path / "a")[2]
    status, said, left = command(tmp_path / "a" / "tlm-0.9" / "seed=2")
    assert status == 2 and "has 1 runs that are not collected now, such as standard, db, tlm, 0.001, 1" in said
    assert left == rows
    assert command(tmp_path / "a")[0] == 0  # all of them again


def test_a_run_with_other_numbers_does_not_join(command, tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "b", rows=[(1, 16, 0.5, 2.0, 0.2, "")])
    rows = command(tmp_path / "a")[2]
    for argv in ((tmp_path / "b", "--append"), (tmp_path / "a", tmp_path / "b")):
        status, said, left = command(*argv)
        assert status == 2 and "the run standard, db, tlm, 0.001, 1 is there twice" in said and left == rows


def test_what_was_measured_has_seven_digits_and_its_run_joins_a_csv_with_more(command, tmp_path):
    measured = (123456789, 1975308624, 98765432.1, -0.1, 1.0854223619844338e-05, "")
    write_run(tmp_path / "a", rows=[measured], learning_rate=0.00123456789)
    (row,) = command(tmp_path / "a")[2]
    shown = ["123456789", "1975308624", "9.876543e+07", "-0.1", "1.085422e-05", ""]
    assert [row[name] for name in COLUMNS] == shown
    assert row["learning_rate"] == "0.00123456789" and row["git_hash"] == "a" * 12
    path = tmp_path / "out" / "all.csv"
    path.write_text(path.read_text().replace("1.085422e-05", str(measured[4])))  # as collect once wrote it
    status, _, rows = command(tmp_path / "a", "--append")
    assert status == 0 and rows == [row]


def test_a_mixture_is_refused_by_the_configurations_that_are_kept(command, tmp_path):
    write_run(tmp_path / "a")
    command(tmp_path / "a")
    write_run(tmp_path / "b", seed=2, decay=1.0)
    status, said, rows = command(tmp_path / "b", "--append")
    assert status == 2 and "the runs differ in algo.decay (0.9, 1.0)" in said and seeds(rows) == ["1"]
    (tmp_path / "out" / "all.configs.json").unlink()
    status, said, _ = command(tmp_path / "b", "--append")
    assert status == 2 and "all.configs.json, which this needs, is not there" in said


def test_the_configurations_hold_what_the_runs_do_not_share_once(command, tmp_path):
    for seed in (1, 2):
        write_run(tmp_path / "a", seed=seed)
        write_run(tmp_path / "a", seed=seed, backward_approach="naive")
    command(tmp_path / "a")
    kept = json.loads((tmp_path / "out" / "all.configs.json").read_text())
    approaches = [{"algo.backward_approach": name} for name in ("naive", "tlm")]
    assert kept["varying"] == [] and kept["runs"] == approaches
    assert kept["common"]["env.height"] == 20 and "general.seed" not in kept["common"]
    assert "general.output_dir" not in kept["common"]


def test_a_varied_field_is_a_column_behind_the_seed(command, tmp_path):
    write_run(tmp_path / "a")
    write_run(tmp_path / "a", decay=1.0)
    status, _, rows = command(tmp_path / "a", "--varying", OFF)
    assert status == 0 and [row[OFF] for row in rows] == ["0.9", "1.0"]
    assert list(rows[0])[5:8] == ["seed", OFF, "step"]
    write_run(tmp_path / "b", seed=2, decay=0.5)
    assert len(command(tmp_path / "b", "--append")[2]) == 3  # which fields vary is known
    status, said, _ = command(tmp_path / "b", "--append", "--varying", "env.height")
    assert status == 2 and "was collected with --varying algo.decay: name the same fields, or none" in said


def test_a_field_that_no_run_has_does_not_vary(command, tmp_path):
    write_run(tmp_path / "a")
    status, said, _ = command(tmp_path / "a", "--varying", "decay")
    assert status == 2 and "--varying decay: no run has such a field" in said


def test_results_versions_of_an_objective_are_not_mixed(command, tmp_path):
    write_run(tmp_path / "a", commit="a" * 12)
    write_run(tmp_path / "a", seed=2, commit="b" * 12)
    status, _, rows = command(tmp_path / "a")
    assert status == 0 and [row["git_hash"][0] for row in rows] == ["a", "b"]
    assert list(rows[0])[-2:] == ["results_version", "git_hash"]
    write_run(tmp_path / "c", seed=3, version=2)
    write_run(tmp_path / "d", seed=3, version=2, name="tb")
    status, said, _ = command(tmp_path / "c", "--append")
    assert status == 2 and "the runs of db have the results versions 1, 2: collect them apart" in said
    assert len(command(tmp_path / "d", "--append")[2]) == 3


def test_a_run_without_a_results_version_is_refused(command, tmp_path):
    run = write_run(tmp_path / "a")
    (run / "meta.json").write_text('{"suite": "hypergrid", "code_version": "0123456789ab"}')
    status, said, _ = command(tmp_path / "a")
    assert status == 2 and "with a results_version: leave it out, or run it again" in said


def test_a_run_that_went_on_elsewhere_says_where(command, tmp_path):
    def moved(seed, first, *resumed):
        path = write_run(tmp_path / "a", seed=seed) / "meta.json"
        named = [dict(zip(("device", "threads", "machine"), place, strict=True)) for place in (first, *resumed)]
        meta = json.loads(path.read_text()) | named[0]
        meta["resumed"] = named[1:]
        path.write_text(json.dumps(meta))

    here, there = {"platform": "Linux", "gpu": None}, {"platform": "Linux", "gpu": "H200"}
    moved(1, ("cpu", 1, here), ("cpu", 1, here))
    moved(2, ("cpu", 1, here), ("cpu", 1, here), ("cuda", 1, here), ("cpu", 1, here))
    moved(3, ("cpu", 1, here), ("cuda", 2, there))
    moved(4, ("cpu", 1, here), ("cpu", 1, there))
    write_run(tmp_path / "a", seed=5)  # as all were before runs could move
    rows = command(tmp_path / "a")[2]
    assert [row["stretches"] for row in rows] == [
        "",
        "cpu x1; cuda x1; cpu x1",
        "cpu x1 on machine 1; cuda x2 on machine 2",
        "cpu x1 on machine 1; cpu x1 on machine 2",
        "",
    ]
    assert list(rows[0])[-3:-1] == ["stretches", "results_version"]
    table = tables.read_results([tmp_path / "out" / "all.csv"])
    assert table["stretches"].notna().sum() == 3


def test_runs_on_other_devices_join_and_without_moves_there_is_no_column(command, tmp_path):
    for seed, device in ((1, "cpu"), (2, "cuda")):
        path = write_run(tmp_path / "a", seed=seed) / "config.json"
        config = json.loads(path.read_text())
        config["general"] |= {"device": device, "threads": seed}
        path.write_text(json.dumps(config))
    status, _, rows = command(tmp_path / "a")
    assert status == 0 and seeds(rows) == ["1", "2"] and "stretches" not in rows[0]


def test_a_csv_that_a_spreadsheet_has_saved_has_the_same_runs(command, tmp_path):
    write_run(tmp_path / "a", seed=1)
    command(tmp_path / "a")
    out = tmp_path / "out" / "all.csv"
    text = out.read_text().replace(",0.001,", ",1E-03,").replace(",0.1,", ",0.10,")
    out.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    write_run(tmp_path / "a", seed=2)
    status, _, rows = command(tmp_path / "a", "--append")
    assert status == 0 and seeds(rows) == ["1", "2"] and next(iter(rows[0])) == "suite"


def test_a_damaged_row_of_a_run_is_named(command, tmp_path):
    run = write_run(tmp_path / "a", rows=[(1, 16, 0.5, 2.0, 0.1, ""), (2, 32, 0.5, "many", 0.1, "")])
    status, said, rows = command(tmp_path / "a")
    assert status == 2 and f"{run / 'metrics.csv'}, line 3 has text in the column loss" in said and rows is None


def test_a_run_whose_metrics_have_no_step_is_named(command, tmp_path):
    metrics = write_run(tmp_path / "a") / "metrics.csv"
    metrics.write_text(metrics.read_text().replace("step", "stop"))
    status, said, rows = command(tmp_path / "a")
    assert status == 2 and f"{metrics} lacks the column step: leave the run out" in said and rows is None


def test_the_committed_files_are_written_as_they_were_read(tmp_path):
    for path in sorted(ROOT.glob("*/results/**/*.configs.json")):
        path = path.with_name(path.name.replace(".configs.json", ".csv"))
        old = merging.read_collected(path)
        merging.merge_runs([old, old]).to_csv(tmp_path / "again.csv", index=False, lineterminator="\n")
        assert (tmp_path / "again.csv").read_bytes() == path.read_bytes(), path


def test_a_full_disk_leaves_the_csv_and_its_configurations(command, tmp_path, small_disk):
    write_run(tmp_path / "a", rows=[(step, 16 * step, 1.0, 2.0, 0.1, "") for step in range(1, 50)])
    rows = command(tmp_path / "a" / "tlm-0.9")[2]
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    write_run(tmp_path / "a", seed=2)
    with small_disk(1000):  # the configurations fit
        status, said, _ = command(tmp_path / "a", "--append")
    assert status == 2 and f"cannot write {tmp_path / 'out' / 'all.csv'} (File too large)" in said
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert len(command(tmp_path / "a", "--append")[2]) == len(rows) + 1


def test_runs_that_are_not_done_stay_out_unless_told(command, tmp_path):
    write_run(tmp_path / "a", seed=1)
    half = write_run(tmp_path / "a", seed=2, done=False)
    with (half / "metrics.csv").open("a") as file:
        file.write("2,32")
    status, said, rows = command(tmp_path / "a")
    assert status == 0 and f"left out, not done: {half}" in said and seeds(rows) == ["1"]
    _, _, rows = command(tmp_path / "a", "--unfinished")
    assert [(row["seed"], row["step"]) for row in rows] == [("1", "1"), ("2", "1")]  # not the row half written
    status, said, _ = command(half)
    assert status == 2 and "none of the 1 runs of hypergrid is done: finish one, or add --unfinished" in said


def test_runs_of_another_suite_stay_out(command, tmp_path):
    write_run(tmp_path / "a", seed=1)
    other = write_run(tmp_path / "a", seed=2) / "meta.json"
    other.write_text(other.read_text().replace("hypergrid", "bitseq"))
    assert seeds(command(tmp_path / "a")[2]) == ["1"]


def test_every_path_that_is_named_has_to_have_runs(command, tmp_path):
    write_run(tmp_path / "a")
    status, said, rows = command(tmp_path / "a", tmp_path / "none")
    assert status == 2 and f"no run folder at or below {tmp_path / 'none'}" in said and rows is None


def test_a_damaged_run_is_named(command, tmp_path):
    run = write_run(tmp_path / "a")
    (run / "meta.json").write_text("{")
    status, said, _ = command(tmp_path / "a")
    missing = "has no readable config.json and meta.json with a results_version: leave it out, or run it again"
    assert status == 2 and said == f"error: {run} {missing}\n"


def test_what_is_no_collected_csv_is_not_overwritten(command, tmp_path):
    write_run(tmp_path / "a")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "all.csv").write_text("name,price\nbread,2\n")
    status, said, rows = command(tmp_path / "a")
    assert status == 2 and "all.csv is not a collected CSV: name another --out" in said
    assert rows == [{"name": "bread", "price": "2"}]


def test_rare_metrics_and_the_last_row_are_kept(command, tmp_path):
    rare = {100, 555, 998}
    rows = [(step, 16 * step, 1.0, 2.0, 0.1, 0.5 if step in rare else "") for step in range(1, 1000)]
    write_run(tmp_path / "a", rows=rows)
    kept = [int(row["step"]) for row in command(tmp_path / "a")[2]]
    assert len(kept) <= 200 and kept[-1] == 999 and rare <= set(kept) and kept == sorted(set(kept))


@pytest.mark.parametrize("begins", [200, 800])
def test_rare_metrics_are_kept_where_a_column_begins_midway(command, tmp_path, monkeypatch, begins):
    """A resumed run may have columns that it did not have at first."""
    monkeypatch.setattr(f"{__name__}.COLUMNS", (*COLUMNS, "newer"))
    rare = set(range(50, 1000, 50))
    rows = [(step, 16 * step, 1.0, 2.0, 0.1, 0.5 if step in rare else "") for step in range(1, 1000)]
    write_run(tmp_path / "a", rows=[(*row, 3.0 if row[0] >= begins else "") for row in rows])
    kept = [int(row["step"]) for row in command(tmp_path / "a")[2]]
    assert len(kept) == 200 and kept[-1] == 999 and rare <= set(kept) and kept == sorted(set(kept))


def test_metrics_of_every_third_row_do_not_push_one_another_out(command, tmp_path):
    rows = [(step, 16 * step, 1.0, 2.0, 0.1, "" if step % 3 else 0.5) for step in range(1, 1000)]
    write_run(tmp_path / "a", rows=rows)
    found = command(tmp_path / "a")[2]
    steps = [int(row["step"]) for row in found]
    assert len(steps) == 200 and steps[-1] == 999 and steps == sorted(set(steps))
    assert max(np.diff(steps)) < 15
