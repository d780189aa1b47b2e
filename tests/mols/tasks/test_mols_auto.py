"""What auto means: which network and which test set a run takes, says, records, and keeps when it goes on."""

import json
import socket
import time

import pytest
from small_runs import command, quicken, refused, stand_in, without_pictures
from suites import only_run

from mols import settings
from mols.rewards import downloads as files
from mols.rewards.downloads import Unavailable
from mols.rewards.seh.proxy import WEIGHTS_FILE
from mols.rewards.seh.surrogate import SehSurrogate
from mols.tasks import run, seh_frag

AUTO = ["--proxy=auto", "--test_set=auto", "--n=2", "--corr_every=1"]


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine that has no data and no network; ``machine["here"]`` lists the files that can be had all the same."""
    quicken(monkeypatch)
    stand_in(monkeypatch)
    without_pictures(monkeypatch)
    monkeypatch.delenv("GFLOWNET_TLM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "mols.molecules.reference_set.read_seh_test_set", lambda path: ["c1ccccc1-c1ccccc1", "C1CCNCC1"]
    )
    state = {"here": [], "asked": []}

    def look(name, data_dir=None):
        state["asked"].append(name)
        if name not in state["here"]:
            raise Unavailable(f"{name} is nowhere", "fetch it")
        return tmp_path / name

    monkeypatch.setattr(files, "find", look)
    return state


def config_of(folder):
    return json.loads((only_run(folder) / "config.json").read_text())


def chosen(folder):
    config = config_of(folder)
    return config["proxy"], config["test_set"]


TEST_SET = "seh_test_set.csv"


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        ([], ("surrogate", "generated")),
        ([WEIGHTS_FILE], ("original", "generated")),
        ([TEST_SET], ("surrogate", "original")),
        ([WEIGHTS_FILE, TEST_SET], ("original", "original")),
    ],
)
def test_the_first_at_hand_is_taken_said_and_recorded(here, expected, machine, tmp_path, capsys):
    machine["here"] = here
    assert seh_frag.main(command("tb", tmp_path, *AUTO)) == 0
    assert chosen(tmp_path) == expected
    lines = capsys.readouterr().err.splitlines()
    warnings = [f"warning: {WEIGHTS_FILE} is nowhere: this run has --proxy surrogate"] * (WEIGHTS_FILE not in here)
    warnings += [f"warning: {TEST_SET} is nowhere: this run has --test_set generated"] * (TEST_SET not in here)
    assert [line for line in lines if line.startswith("warning")] == warnings
    assert only_run(tmp_path).parent.name.startswith("tb-tlm-n=2-batch_size=4-max_fragments=2")
    assert "proxy" not in str(only_run(tmp_path)) and "test_set" not in only_run(tmp_path).parent.name


def test_the_surrogate_is_what_rewards(tmp_path, machine, monkeypatch):
    calls, call = [], SehSurrogate.__call__
    monkeypatch.setattr(SehSurrogate, "__call__", lambda self, graphs: calls.append(len(graphs)) or call(self, graphs))
    assert seh_frag.main(command("tb", tmp_path / "a", "--proxy=auto", "--corr_every=0")) == 0
    assert sum(calls) > 0
    machine["here"], before = [WEIGHTS_FILE], len(calls)
    assert seh_frag.main(command("tb", tmp_path / "b", "--proxy=auto", "--corr_every=0")) == 0
    assert len(calls) == before


def test_no_test_set_is_looked_for_where_none_is_needed(machine, tmp_path):
    assert seh_frag.main(command("tb", tmp_path, "--proxy=surrogate", "--test_set=auto", "--corr_every=0")) == 0
    assert machine["asked"] == [] and chosen(tmp_path) == ("surrogate", "original")


def unfinished(folder):
    (only_run(folder) / "DONE").unlink()


def test_a_run_goes_on_with_what_it_used(machine, tmp_path, capsys):
    argv = [*command("tb", tmp_path, *AUTO), "--if_exists=resume"]
    assert seh_frag.main(argv) == 0
    unfinished(tmp_path)
    machine.update(here=[WEIGHTS_FILE, TEST_SET], asked=[])
    capsys.readouterr()
    assert seh_frag.main(argv) == 0
    assert chosen(tmp_path) == ("surrogate", "generated")
    assert machine["asked"] == [] and "warning" not in capsys.readouterr().err


def test_a_run_with_the_published_network_says_what_it_needs_to_go_on(machine, tmp_path, monkeypatch, capsys):
    machine["here"] = [WEIGHTS_FILE, TEST_SET]
    argv = [*command("tb", tmp_path, *AUTO, "--corr_every=0"), "--if_exists=resume"]
    assert seh_frag.main(argv) == 0
    unfinished(tmp_path)

    def load(*_, **__):
        raise Unavailable(f"{WEIGHTS_FILE} is nowhere", "fetch it")

    monkeypatch.setattr("mols.rewards.seh.reward.SehReward.load", load)
    capsys.readouterr()
    refused(argv, f"{WEIGHTS_FILE} is nowhere: fetch it", tmp_path, capsys)
    assert chosen(tmp_path)[0] == "original"


def test_a_run_that_exists_is_refused_without_looking_for_anything(machine, tmp_path, capsys):
    argv = command("tb", tmp_path, *AUTO)
    assert seh_frag.main(argv) == 0
    machine["asked"] = []
    capsys.readouterr()
    refused(argv, "exists: add --if_exists=resume", tmp_path, capsys)
    assert machine["asked"] == []


def test_a_run_that_starts_again_looks_again(machine, tmp_path):
    argv = command("tb", tmp_path, *AUTO)
    assert seh_frag.main(argv) == 0
    machine["here"] = [WEIGHTS_FILE, TEST_SET]
    assert seh_frag.main([*argv, "--if_exists=overwrite"]) == 0
    assert chosen(tmp_path) == ("original", "original")


def test_a_choice_on_the_command_line_names_a_folder_of_its_own():
    for proxy in ("original", "surrogate"):
        config = settings.parse([f"--proxy={proxy}"], seh_frag.Settings)
        assert settings.run_directory(config, seh_frag.Settings).parent.name == f"tb-tlm-proxy={proxy}"


def test_a_damaged_configuration_is_left_to_the_run_to_say(tmp_path):
    assert run.recorded_config(tmp_path) == {}
    for text in ("{", "3", "null"):
        (tmp_path / "config.json").write_text(text)
        assert run.recorded_config(tmp_path) == {}


# Downloads


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server that accepts and then says nothing; its address is that of the weights."""
    monkeypatch.undo()
    monkeypatch.delenv("GFLOWNET_TLM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/weights"
        monkeypatch.setattr(files, "FILES", {WEIGHTS_FILE: files.FILES[WEIGHTS_FILE]._replace(url=url)})
        yield server


def test_a_server_that_is_silent_does_not_hold_a_run_up(server, monkeypatch, capsys):
    monkeypatch.setattr(files, "TIMEOUT_S", 0.2)
    config = settings.parse(["--corr_every=0"], seh_frag.Settings)
    start = time.monotonic()
    seh_frag.resolve(config)
    assert time.monotonic() - start < 5 and config.proxy == "surrogate"
    error = capsys.readouterr().err
    assert error.startswith("warning: cannot download http://127.0.0.1") and error.count("\n") == 1
    assert "this run has --proxy surrogate" in error


def test_what_cannot_be_had_is_told_from_what_is_wrong(server, tmp_path, monkeypatch, capsys):
    """A folder that was named, or a damaged file, is a mistake to be said; no network is none."""
    monkeypatch.setattr(files, "TIMEOUT_S", 0.2)
    argv = ["--corr_every=0", "--n=1", "--output_dir", str(tmp_path / "runs")]
    refused(
        [*argv, "--data_dir", str(tmp_path)], f"{WEIGHTS_FILE} is not in {tmp_path}: put it there", tmp_path, capsys
    )
    (tmp_path / "cache" / "gflownet-tlm").mkdir(parents=True)
    (tmp_path / "cache" / "gflownet-tlm" / WEIGHTS_FILE).write_bytes(b"damaged")
    refused(argv, "is damaged or another file", tmp_path, capsys)
