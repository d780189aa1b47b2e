"""Our runs beside the published code's: like is compared with like, and the page says what the two files say."""

import os
import shlex
import subprocess
from pathlib import Path

import pandas as pd
import pytest

import bitseq
from bitseq import published, settings

SUITE = Path(bitseq.__file__).parent
CURVES = SUITE / "results" / "published_curves.csv"
SWEEP = ["bash", str(SUITE / "sweeps" / "published.sh")]
COLUMNS = ["objective", "approach", "seed", "step", "mean_log_reward", "log_z", "modes_found"]


def rows(approach, seed, every, log_reward, log_z, until=300):
    steps = range(every, until + 1, every)
    return [["tb", approach, seed, step, log_reward(step), log_z(step), step // 100] for step in steps]


def tables(ours_log_z=(0.0, 1.0, 2.0)):
    """Published: seed 1 in windows of 25 and seed 7 in windows of 100; ours: a log Z for each seed."""
    theirs = rows("uniform", 1, 25, lambda step: -float(step), lambda step: 1.0)
    theirs += rows("uniform", 7, 100, lambda step: -float(step), lambda step: 1.5)
    theirs += rows("tlm", 1, 25, lambda step: -float(step), lambda step: 2.25)
    ours = []
    for approach in ("uniform", "tlm"):
        for seed, log_z in enumerate(ours_log_z, start=1):
            ours += rows(approach, seed, 25, lambda step: -float(step), lambda step, log_z=log_z: log_z)
    return pd.DataFrame(theirs, columns=COLUMNS), pd.DataFrame(ours, columns=COLUMNS)


def row_of(compared, approach, quantity, step):
    (row,) = compared[
        (compared["approach"] == approach) & (compared["quantity"] == quantity) & (compared["step"] == step)
    ].itertuples()
    return row


def test_log_r_is_averaged_over_the_same_iterations_and_the_rest_is_of_the_step():
    compared = published.comparisons(*tables())
    row = row_of(compared, "uniform", "mean_log_reward", 300)
    assert row.published == {1: -(225 + 250 + 275 + 300) / 4, 7: -300.0}  # four windows of 25, one of 100
    assert row.ours == dict.fromkeys((1, 2, 3), -262.5)
    row = row_of(compared, "uniform", "log_z", 100)
    assert row.published == {1: 1.0, 7: 1.5} and row.ours == {1: 0.0, 2: 1.0, 3: 2.0}
    assert set(compared["step"]) == {100, 300}  # the others lie behind the curves' ends
    assert row_of(compared, "tlm", "modes_found", 300).published == {1: 3}


def test_the_spread_is_that_of_our_seeds_widened_where_two_published_seeds_differ():
    compared = published.comparisons(*tables())
    row = row_of(compared, "uniform", "log_z", 100)
    assert (row.low, row.high, row.within) == (-0.5, 2.5, True)
    row = row_of(compared, "tlm", "log_z", 100)  # one published seed, 2.25
    assert (row.low, row.high, row.within) == (0.0, 2.0, False)
    text = published.table(compared)
    assert "| tb | tlm | log Z | 100 | 2.25 | 0.00, 1.00, 2.00 | 0.00 to 2.00 | no |" in text
    assert "10 of 12 within. Seeds, in this order: published 1, 7; ours 1, 2, 3." in text


def test_two_seeds_are_no_spread():
    compared = published.comparisons(*tables(ours_log_z=(0.0, 5.0)))
    assert compared["within"].isna().all() and "too few seeds" in published.table(compared)


def test_the_published_curves_are_those_that_were_measured():
    source = Path(os.environ.get("GFLOWNET_TLM_DATA", "")) / "published_bitseq_curves.csv"
    if not source.is_file():
        pytest.skip("needs the shared data")
    assert CURVES.read_bytes() == source.read_bytes()


def test_the_page_and_the_picture_are_what_the_files_say(tmp_path, capsys):
    before = (SUITE / "README.md").read_text()
    assert published.main(["--out", str(tmp_path / "new")]) == 0
    assert (SUITE / "README.md").read_text() == before
    section = (tmp_path / "new" / "published.md").read_text().rstrip("\n")
    assert published.with_table(before, section) == before
    assert (tmp_path / "new" / "published.png").read_bytes().startswith(b"\x89PNG")
    assert (SUITE / "results" / "published.png").exists() and "](results/published.png)" in before


def test_without_out_the_page_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "SUITE", tmp_path)
    (tmp_path / "results").mkdir()
    for name, frame in zip(("curves", "ours"), tables(), strict=True):
        frame.to_csv(tmp_path / "results" / f"published_{name}.csv", index=False)
    page = tmp_path / "README.md"
    page.write_text(f"before\n{published.BEGIN}\nold\n{published.END}\nafter\n")
    assert published.main([]) == 0
    assert "10 of 12 within" in page.read_text() and "\nold\n" not in page.read_text()
    assert page.read_text().startswith("before\n") and page.read_text().endswith("\nafter\n")
    assert (tmp_path / "results" / "published.png").exists()


@pytest.mark.parametrize("text", [None, "", "objective,approach\ntb,tlm\n"], ids=["no file", "empty", "other columns"])
def test_what_it_cannot_read_is_one_sentence(text, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(published, "SUITE", tmp_path)
    (tmp_path / "results").mkdir()
    tables()[0].to_csv(tmp_path / "results" / "published_curves.csv", index=False)
    if text is not None:
        (tmp_path / "results" / "published_ours.csv").write_text(text)
    assert published.main(["--out", str(tmp_path / "out")]) == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and error.count("\n") == 1 and "published_ours.csv" in error
    assert not (tmp_path / "out").exists()


def test_the_sweep_has_a_run_of_the_published_length_for_each_cell_and_seed():
    env = {"PATH": os.environ["PATH"], "SEEDS": "101 102"}  # which no results have
    done = subprocess.run(SWEEP, capture_output=True, text=True, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [shlex.split(line) for line in done.stdout.splitlines()]
    assert all(line[:2] == ["python", "bitseq/run.py"] for line in lines)
    found = [settings.parse(line[2:]) for line in lines]
    curves = pd.read_csv(CURVES)
    lengths = curves[curves["seed"] == 1].groupby(["objective", "approach"])["step"].max()
    wanted = {(*cell, seed): step for cell, step in lengths.items() for seed in (101, 102)}
    assert {(c.objective, c.backward_approach, c.seed): c.num_iterations for c in found} == wanted
    assert {(c.learning_rate, c.validate_every, c.n, c.k) for c in found} == {(0.002, 25, 120, 8)}


@pytest.mark.parametrize(("variable", "value"), [("SEEDS", "one"), ("OBJECTIVES", "subtb"), ("APPROACHES", "naive")])
def test_the_sweep_refuses_what_was_not_published(variable, value):
    done = subprocess.run(SWEEP, capture_output=True, text=True, env={"PATH": os.environ["PATH"], variable: value})
    assert done.returncode == 2 and done.stdout == "" and done.stderr.startswith(f"error: {variable} ")
