"""The run folder: what exists is never lost, what is damaged is never used, what is killed goes on."""

import json
import pickle

import numpy as np
import pytest
import torch

from hypergrid.experiment import COMMON_COLUMNS, ExperimentError, Run, Streams
from hypergrid.provenance import code_version

CONFIG = {"general": {"seed": 1, "output_dir": "a"}, "algo": {"lr": 0.1}}


class Weights:
    """The smallest agent that can be checkpointed."""

    def __init__(self, value=0.0):
        self.value = torch.full((3,), value)

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.value = state["value"]


@pytest.fixture
def suite(tmp_path):
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "module.py").write_text("x = 1\n")
    return folder


@pytest.fixture
def open_run(tmp_path, suite):
    def make(config=CONFIG, if_exists="refuse", folder="run"):
        return Run(
            tmp_path / folder, config, if_exists=if_exists, flag="--if_exists", suite=suite, free=("output_dir",)
        )

    return make


def write_rows(run, steps):
    for step in steps:
        run.write_row({"step": step, "trajectories": 16 * step, "wall_s": 0.5, "loss": 1.25, "metric": 3.0})


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_leaves_all_its_files(open_run, tmp_path):
    run = open_run()
    with run.recorded(["metric"]):
        assert json.loads((run.directory / "meta.json").read_text())["status"] == "running"
        write_rows(run, [1, 2])
        run.save(Weights(), 2)
    assert json.loads((run.directory / "config.json").read_text()) == CONFIG
    lines = (run.directory / "metrics.csv").read_text().splitlines()
    assert lines[0] == ",".join((*COMMON_COLUMNS, "metric"))
    assert lines[1] == "1,16,0.5,1.25,,,3.0"  # what was not due is an empty cell
    meta = json.loads((run.directory / "meta.json").read_text())
    assert meta["status"] == "done" and meta["stop"] >= meta["start"]
    assert {"git_hash", "git_dirty", "code_version", "command", "versions", "machine"} <= meta.keys()
    assert meta["versions"]["torch"] == torch.__version__
    assert (run.directory / "DONE").exists()


def test_an_existing_run_is_refused_by_default_and_left_alone(open_run):
    with open_run().recorded([]):
        pass
    before = contents(open_run(if_exists="resume").directory)
    with pytest.raises(ExperimentError, match=r"--if_exists=resume.*--if_exists=overwrite"):
        open_run()
    done = open_run(if_exists="resume")
    assert done.done
    assert contents(done.directory) == before


def test_overwrite_starts_again(open_run):
    run = open_run()
    with run.recorded(["metric"]):
        write_rows(run, [1])
        run.save(Weights(1.0), 1)
    again = open_run(if_exists="overwrite")
    assert not again.done
    with again.recorded(["metric"]):
        assert again.restore(Weights()) == 0
        assert not (again.directory / "DONE").exists()


@pytest.mark.parametrize("if_exists", ["refuse", "resume", "overwrite"])
def test_what_is_no_run_folder_is_never_touched(open_run, tmp_path, if_exists):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    with pytest.raises(ExperimentError):
        open_run(if_exists=if_exists)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


def test_resume_refuses_another_configuration_but_not_another_place(open_run):
    with open_run().recorded([]):
        pass
    other = {"general": {"seed": 1, "output_dir": "b"}, "algo": {"lr": 0.1}}
    assert open_run(other, "resume").done
    other["algo"]["lr"] = 0.2
    with pytest.raises(ExperimentError, match=r"algo\.lr = 0\.1, not 0\.2"):
        open_run(other, "resume")


def test_a_damaged_configuration_is_refused(open_run):
    with open_run().recorded([]):
        pass
    path = open_run(if_exists="resume").directory / "config.json"
    path.write_text("{")
    with pytest.raises(ExperimentError, match="damaged"):
        open_run(if_exists="resume")


def test_a_kill_before_config_json_leaves_nothing_in_the_way(open_run, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".lock").touch()
    (tmp_path / "run" / "config.json.partial").write_text("{")
    run = open_run()
    with run.recorded([]):
        assert run.restore(Weights()) == 0


def test_resume_cuts_the_metrics_back_to_the_checkpoint(open_run):
    run = open_run()
    with pytest.raises(KeyboardInterrupt), run.recorded(["metric"]):
        write_rows(run, [1, 2])
        run.save(Weights(2.0), 2)
        write_rows(run, [3])
        with (run.directory / "metrics.csv").open("a") as file:
            file.write("4,64")  # a kill in the middle of a line
        raise KeyboardInterrupt
    assert json.loads((run.directory / "meta.json").read_text())["status"] == "interrupted"
    run = open_run(if_exists="resume")
    weights = Weights()
    with run.recorded(["metric"]):
        assert run.restore(weights) == 2
        write_rows(run, [3])
    assert weights.value.tolist() == [2.0] * 3
    steps = [line.split(",")[0] for line in (run.directory / "metrics.csv").read_text().splitlines()]
    assert steps == ["step", "1", "2", "3"]
    assert len(json.loads((run.directory / "meta.json").read_text())["resumed"]) == 1


def test_other_columns_are_refused(open_run):
    run = open_run()
    with pytest.raises(KeyboardInterrupt), run.recorded(["metric"]):
        raise KeyboardInterrupt
    run = open_run(if_exists="resume")
    with pytest.raises(ExperimentError, match="other columns"), run.recorded(["another"]):
        run.restore(Weights())


class Malicious:
    """Would print, were it ever unpickled by pickle itself."""

    def __reduce__(self):
        return print, ("pwned",)


@pytest.mark.parametrize("damage", ["truncated", "malicious", "another program's"])
def test_a_damaged_checkpoint_is_refused_and_left_alone(open_run, damage, capsys):
    run = open_run()
    with pytest.raises(KeyboardInterrupt), run.recorded([]):
        run.save(Weights(), 1)
        raise KeyboardInterrupt
    path = run.directory / "checkpoint.pt"
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "malicious":
        path.write_bytes(pickle.dumps(Malicious()))
    else:
        torch.save({"epoch": 3}, path)
    before = path.read_bytes()
    run = open_run(if_exists="resume")
    with (
        pytest.raises(ExperimentError, match=r"checkpoint\.pt is damaged or of another program.*overwrite"),
        run.recorded([]),
    ):
        run.restore(Weights())
    assert path.read_bytes() == before
    assert "pwned" not in capsys.readouterr().out


def test_a_checkpoint_that_fails_half_way_leaves_the_old_one(open_run, monkeypatch):
    run = open_run()
    with pytest.raises(OSError, match="disk full"), run.recorded([]):
        run.save(Weights(1.0), 1)

        def fail(state, file):
            file.write(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(torch, "save", fail)
        run.save(Weights(2.0), 2)
    monkeypatch.undo()
    assert torch.load(run.directory / "checkpoint.pt", weights_only=True)["step"] == 1
    assert json.loads((run.directory / "meta.json").read_text())["status"] == "failed: disk full"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_stops_the_run(open_run, value):
    run = open_run()
    with run.recorded(["metric"]):
        run.save(Weights(1.0), 4)
        with pytest.raises(ExperimentError, match=r"step 5: metric is .*checkpoint\.pt of step 4"):
            run.write_row({"step": 5, "metric": value})
        with pytest.raises(ExperimentError, match="step 5: a weight is not finite"):
            run.save(Weights(value), 5)
    assert torch.load(run.directory / "checkpoint.pt", weights_only=True)["step"] == 4
    assert len((run.directory / "metrics.csv").read_text().splitlines()) == 1


def test_an_unknown_column_is_an_error(open_run):
    run = open_run()
    with run.recorded(["metric"]), pytest.raises(ValueError, match="mertic"):
        run.write_row({"step": 1, "mertic": 1.0})


def test_two_processes_do_not_share_a_folder(open_run):
    first = open_run()
    with first.recorded([]):
        second = open_run(if_exists="resume")
        with pytest.raises(ExperimentError, match="in use"), second.recorded([]):
            pass
        assert json.loads((first.directory / "meta.json").read_text())["status"] == "running"


def test_code_version_follows_the_python_files_alone(suite):
    version = code_version(suite)
    (suite / "README.md").write_text("text")
    assert code_version(suite) == version
    (suite / "module.py").write_text("x = 2\n")
    assert code_version(suite) != version


def test_streams_are_independent_and_come_back():
    one, two = Streams.from_seed(5), Streams.from_seed(5)
    one.replay.random(100)  # drawing from one stream moves no other
    assert one.sampling.random() == two.sampling.random()
    assert one.evaluation.random() == two.evaluation.random()
    assert Streams.from_seed(5).initialisation != Streams.from_seed(6).initialisation
    assert len({Streams.from_seed(5).sampling.random(), Streams.from_seed(5).replay.random(), two.replay.random()}) == 2
    state = one.state_dict()
    expected = one.sampling.random(3), one.replay.random(3), torch.rand(3)
    other = Streams.from_seed(9)
    other.load_state_dict(state)
    for got, wanted in zip((other.sampling.random(3), other.replay.random(3), torch.rand(3)), expected, strict=True):
        assert np.array_equal(got, wanted)
