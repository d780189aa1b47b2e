"""What the results have, complete and of today's version, is not run again; everything else is."""

import io
import json
import sys
from importlib import import_module

import pytest
from each import each
from sweeps import config_of, lines

from hypergrid.analysis import collect, pending
from hypergrid.suite import NEWER, RESULTS_VERSIONS

CHOICE = {"SEEDS": "1", "SCALE": "0.001", "OBJECTIVES": "tb", "APPROACHES": "tlm"}
HARD, STANDARD = lines("hypergrid/sweeps/figure1.sh", ENVIRONMENTS="hard standard", **CHOICE)
VERSION = RESULTS_VERSIONS["tb"]


def csv_of(folder, runs, suite="hypergrid", name="results.csv", **options):
    """The CSV of ``runs``: a finished line, its last number of trajectories, and its results version."""
    for i, (line, n, version) in enumerate(runs):
        run = folder / f"runs-{name}" / str(i)
        run.mkdir(parents=True)
        meta = {"suite": suite, "results_version": version, "git_hash": "0", "machine": "", "resumed": []}
        config = {key: "original" if value == "auto" else value for key, value in config_of(line).items()}
        texts = {"config.json": json.dumps(config), "meta.json": json.dumps(meta), "DONE": ""}
        texts["metrics.csv"] = f"step,trajectories,wall_s\n1,16,1\n2,{n},2\n"
        for file, text in texts.items():
            (run / file).write_text(text)
    import_module(f"{suite}.analysis.collect").collect(
        [folder / f"runs-{name}"], folder / name, options.get("varying", []), suite
    )
    return folder / name


@each(
    "run,is_pending",
    [
        ((HARD, 1008, VERSION), False),
        ((HARD, 1008, VERSION - 1), True),
        ((HARD, 992, VERSION), True),  # collected unfinished
        ((STANDARD, 1008, VERSION), True),
        ((HARD.replace("1008", "2000"), 2000, VERSION), True),  # another length
        ((HARD.replace(":1 ", ":2 "), 1008, VERSION), True),
        ((f"{HARD} --algo.learning_rate 0.01", 1008, VERSION), True),
        ((f"{HARD} --env.height 8", 1008, VERSION), True),
        ((f"{HARD} --general.threads 2 --general.output_dir x", 1008, VERSION), False),  # storage
    ],
)
def test_a_run_is_there_if_all_of_it_is(tmp_path, run, is_pending):
    results = csv_of(tmp_path, [run])
    assert pending.pending([HARD], [results]) == ([HARD] if is_pending else [])
    assert pending.pending([HARD], [tmp_path / "none.csv", results]) == ([HARD] if is_pending else [])


@each(
    "suite,figure,objective,length",
    [
        ("hypergrid", "figure1", "tb", 1008),
        ("bitseq", "figure2", "tb", 800),
        ("mols", "qm9_figure2", "dqn", 2560),
        ("mols", "seh_small", "tb", 64),  # its network and test set are those at hand
    ],
)
def test_every_suite_leaves_out_what_it_has_in_the_order_of_the_lines(tmp_path, suite, figure, objective, length):
    choice = CHOICE | {"OBJECTIVES": objective, "APPROACHES": "uniform naive tlm", "SEEDS": "1 2"}
    sweep = lines(f"{suite}/sweeps/{figure}.sh", **choice | {"ENVIRONMENTS": "hard", "LEARNING_RATES": "5e-4"})
    version = import_module(f"{suite}.suite").RESULTS_VERSIONS[objective]
    results = csv_of(tmp_path, [(line, length, version) for line in sweep[1:4]], suite)
    assert import_module(f"{suite}.analysis.pending").pending(sweep, [results]) == [sweep[0], *sweep[4:]]


def test_varied_fields_tell_runs_apart(tmp_path):
    full, off = lines("hypergrid/sweeps/appendix.sh", ENVIRONMENTS="hard", TECHNIQUES="decay", **CHOICE)
    longer = f"{full} --algo.backward_learning_rate_decay=0.9999"
    varying = ["algo.backward_learning_rate_decay"]
    results = csv_of(tmp_path, [(off, 1008, VERSION), (longer, 1008, VERSION)], varying=varying)
    assert pending.pending([full, off, longer], [results]) == [full]


def test_fields_that_are_newer_than_the_csv_have_the_value_that_they_had(tmp_path, monkeypatch):
    results = csv_of(tmp_path, [(HARD, 1008, VERSION)])
    path = results.with_suffix(".configs.json")
    text = path.read_text()
    assert '"algo.tied_trunk": true,' in text
    path.write_text(text.replace('"algo.tied_trunk": true,', '"general.threads": 9,'))  # old files have storage
    assert pending.pending([HARD], [results]) == [HARD]
    monkeypatch.setitem(NEWER, "algo.tied_trunk", True)
    other = f"{HARD} --algo.tied_trunk=false"
    assert pending.pending([HARD, other], [results]) == [other]


def test_the_command_reads_and_prints_lines(tmp_path, monkeypatch, capsys):
    results = csv_of(tmp_path, [(HARD, 1008, VERSION)])
    for path, text, out, err in (
        (results, f"{HARD}\n\n{STANDARD}\n", f"{STANDARD}\n", ""),
        (results, f"# what is missing\n{HARD}\n", "", ""),
        (tmp_path / "no.csv", f"{HARD}\n", f"{HARD}\n", f"there is no {tmp_path}/no.csv yet: it counts as empty\n"),
    ):
        monkeypatch.setattr(sys, "stdin", io.StringIO(text))
        assert pending.main([str(path)]) == 0
        assert tuple(capsys.readouterr()) == (out, err)


@each("text", ["ls -l", "python bitseq/run.py --seed 1", "python 'hypergrid", HARD.replace("tlm", "best"), "python"])
def test_a_line_that_is_no_run_is_one_sentence(tmp_path, text):
    results = csv_of(tmp_path, [(HARD, 1008, VERSION)])
    with pytest.raises(pending.ExperimentError) as raised:
        pending.pending([HARD, text], [results])
    assert str(raised.value).count("\n") == 0
    assert "best" in text or repr(text) in str(raised.value)


def test_a_csv_without_its_configurations_is_one_sentence(tmp_path):
    results = csv_of(tmp_path, [(HARD, 1008, VERSION)])
    results.with_suffix(".configs.json").unlink()
    with pytest.raises(collect.ExperimentError, match="which this needs, is not there"):
        pending.pending([HARD], [results])
