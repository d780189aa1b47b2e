"""Molecules from a run: the CSV by hand, the picture, and every folder that is not a run."""

import csv
import importlib
import io
import json
import shlex
import shutil
import sys

import pytest
import torch
from rdkit import Chem
from rdkit.Chem import QED, Descriptors
from small_runs import command, quicken, stand_in, without_pictures
from suites import contents, only_run

from mols import plots
from mols.evaluation import fingerprint, is_unlike
from mols.tasks import qm9, sample, seh_frag

QM9 = "--width 16 --n_layers 1 --n_heads 1 --batch_size 4 --n 2 --max_atoms 4 --corr_every 0 --device cpu --algo dqn"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs, one for each environment."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        without_pictures(patch)
        argv = command("tb", folder / "a", "--proxy=auto", "--reward=qed", "--corr_every=0", "--n=2")
        assert seh_frag.main(argv) == 0
        assert qm9.main([*shlex.split(QM9), "--output_dir", str(folder / "b")]) == 0
    return {"seh_frag": only_run(folder / "a"), "qm9": only_run(folder / "b")}


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of the first run, to be spoilt."""
    return shutil.copytree(runs["seh_frag"], tmp_path / "run")


@pytest.fixture
def take(tmp_path, monkeypatch, capsys):
    """``take(run, option, ...)`` -> (status, stdout, stderr, rows); what is drawn is kept in ``take.drawn``."""
    monkeypatch.setattr(sample, "draw_grid", lambda *drawn: take.drawn.append(drawn))

    def take(run, *options, out="molecules.csv"):
        status = sample.main([str(run), "--out", str(tmp_path / out), *options])
        path, rows = tmp_path / out, []
        if status == 0:
            with path.open(newline="") as file:
                rows = list(csv.DictReader(file))
        return status, *capsys.readouterr(), rows

    take.drawn = []
    return take


@pytest.mark.parametrize("name", ["seh_frag", "qm9"])
def test_the_rows_by_hand(name, runs, take, tmp_path):
    status, out, err, rows = take(runs[name], "--n", "70", "--rounds", "2")
    assert (status, err) == (0, "") and len(rows) == 70
    assert list(rows[0]) == ["smiles", "reward", "log_prob", "qed", "sa", "mol_weight"]
    rewards = [float(row["reward"]) for row in rows]
    assert rewards == sorted(rewards, reverse=True) and rewards[0] > rewards[-1]
    for row in rows[:10]:
        molecule = Chem.MolFromSmiles(row["smiles"])
        assert Chem.MolToSmiles(molecule) == row["smiles"]
        assert float(row["qed"]) == pytest.approx(QED.qed(molecule), rel=1e-5)
        assert float(row["mol_weight"]) == pytest.approx(Descriptors.MolWt(molecule), rel=1e-5)
        assert 1 <= float(row["sa"]) <= 10 and float(row["log_prob"]) < 0
        if name == "seh_frag":
            assert float(row["reward"]) == pytest.approx(float(row["qed"]), rel=1e-5)
    distinct = len({row["smiles"] for row in rows})
    assert f"molecules.csv: 70 molecules, {distinct} of them distinct, of step 2 of 2\n" in out
    ((_, molecules, title),) = take.drawn
    assert (tmp_path / "molecules.png").exists() and len(molecules) <= 20
    bits = [fingerprint(smiles) for smiles, _ in molecules]
    assert all(is_unlike(one, bits[:i]) for i, one in enumerate(bits))
    assert molecules[0][0] == rows[0]["smiles"] and f"r = {rewards[0]:.3f}, QED" in molecules[0][1]
    assert title.startswith({"seh_frag": "seh_frag, reward qed: tb", "qm9": "qm9, embedded proxy: dqn"}[name])


def test_synthetic_accessibility_is_rdkits_own():
    assert sample.properties("CCO")[1] == pytest.approx(1.9802570386349831)


def test_distinct_molecules_and_no_estimates(runs, take):
    _, _, _, rows = take(runs["seh_frag"], "--n", "100", "--rounds", "0", "--distinct")
    assert len({row["smiles"] for row in rows}) == len(rows) == 100
    assert {row["log_prob"] for row in rows} == {""}


def test_the_seed_decides(runs, take):
    options = ["--n", "10", "--rounds", "1"]
    first, again, other = (
        take(runs["seh_frag"], *options, "--seed", seed, out=f"{i}.csv")[3] for i, seed in enumerate("112")
    )
    assert first == again and first != other


def test_fewer_distinct_molecules_than_wanted_are_written_all_the_same(runs, take, monkeypatch):
    monkeypatch.setattr(sample, "MAX_DRAWS", 1)
    status, out, err, rows = take(runs["qm9"], "--n", "500", "--rounds", "0", "--distinct")
    assert status == 0 and 0 < len(rows) < 500
    assert err == f"warning: 500 draws gave {len(rows)} distinct molecules, not 500\n"
    assert f"{len(rows)} molecules, {len(rows)} of them distinct" in out


@pytest.mark.parametrize("no_sampling_model", [False, True])
def test_the_model_that_sampled_in_training_is_sampled(copy, take, no_sampling_model):
    config = json.loads((copy / "config.json").read_text()) | {"no_sampling_model": no_sampling_model}
    (copy / "config.json").write_text(json.dumps(config))
    other, sampled = ("average", "policies") if no_sampling_model else ("policies", "average")
    before = take(copy, "--n", "20", "--rounds", "0", out="a.csv")[3]
    state = torch.load(copy / "checkpoint.pt", weights_only=True)
    for value in state["agent"][other].values():
        value *= 3
    torch.save(state, copy / "checkpoint.pt")
    assert take(copy, "--n", "20", "--rounds", "0", out="b.csv")[3] == before
    for value in state["agent"][sampled].values():
        value *= 3
    torch.save(state, copy / "checkpoint.pt")
    assert take(copy, "--n", "20", "--rounds", "0", out="c.csv")[3] != before


def test_a_run_that_is_not_finished_and_leaves_no_trace(copy, take):
    (copy / "DONE").unlink()
    before = contents(copy)
    assert take(copy, "--n", "3", "--rounds", "0")[0] == 0
    assert contents(copy) == before


def test_the_picture_is_drawn(runs, tmp_path):
    argv = [str(runs["seh_frag"]), "--n", "2", "--rounds", "0", "--out", str(tmp_path / "m.csv")]
    assert sample.main(argv) == 0
    assert (tmp_path / "m.png").read_bytes().startswith(b"\x89PNG")


def test_the_grid_has_a_row_for_five(monkeypatch):
    figures = []
    monkeypatch.setattr(plots.plt, "close", figures.append)
    for n in (0, 5, 6):
        plots.draw_grid(io.BytesIO(), [("CCO", "r = 1")] * n, "title")
    monkeypatch.undo()
    heights = [figure.get_size_inches()[1] for figure in figures]
    plots.plt.close("all")
    assert heights[0] == heights[1] < heights[2]


# What is refused


def refused(taken, message, tmp_path):
    status, out, err, _ = taken
    assert status == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "molecules.csv").exists()


def spoil(run, how):
    """A folder that is not, or no more, a run with a checkpoint."""
    path, config = run / "checkpoint.pt", json.loads((run / "config.json").read_text())
    if how == "missing":
        return run / "nowhere"
    if how == "a file":
        return path
    if how == "no config":
        (run / "config.json").unlink()
    elif how == "hypergrid":
        (run / "config.json").write_text(json.dumps({"env": {"name": "hypergrid"}, "general": {"seed": 1}}))
    elif how == "no json":
        (run / "config.json").write_text("{")
    elif how == "a list":
        (run / "config.json").write_text("[1]")
    elif how == "no checkpoint":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    elif how == "a bit":
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "wider":
        (run / "config.json").write_text(json.dumps(config | {"width": 32}))
    elif how == "another objective":
        (run / "config.json").write_text(json.dumps(config | {"algo": "dqn"}))
    elif how == "another file":
        torch.save({"step": 3}, path)
    return run


CASES = {
    "missing": "is not a folder: name a run folder",
    "a file": "is not a folder: name a run folder",
    "no config": "is not a run folder (no config.json)",
    "hypergrid": "is not a run of seh_frag or qm9: name one of this suite",
    "no json": "config.json is damaged",
    "a list": "config.json is damaged",
    "no checkpoint": "has no checkpoint yet: train longer",
    "cut": "checkpoint.pt is damaged or of another program",
    "a bit": "checkpoint.pt is damaged or of another program",
    "empty": "checkpoint.pt is damaged or of another program",
    "wider": "checkpoint.pt is damaged or of another program",
    "another objective": "config.json is damaged (it lacks m_alpha): name another run",
    "another file": "checkpoint.pt is damaged or of another program",
}


@pytest.mark.parametrize("how", CASES)
def test_a_folder_that_is_no_run_with_a_checkpoint(how, copy, take, tmp_path):
    refused(take(spoil(copy, how), "--n", "3"), CASES[how], tmp_path)


@pytest.mark.parametrize("options", ["--n 0", "--n -1", "--seed 0", "--rounds -1"])
def test_numbers_that_make_no_sense(options, runs, take, tmp_path):
    refused(take(runs["seh_frag"], *options.split()), "start at 1 and --rounds at 0: choose others", tmp_path)


@pytest.mark.parametrize("name", ["m.csv", "m.png"])
def test_what_exists_is_left_as_it_is(name, runs, take, tmp_path):
    (tmp_path / name).write_text("precious")
    status, _, err, _ = take(runs["seh_frag"], out="m.csv")
    assert status == 2 and err == f"error: {tmp_path / name} exists: delete it, or choose another name\n"
    assert (tmp_path / name).read_text() == "precious"


def test_a_picture_has_another_name_than_the_csv(runs, take):
    status, _, err, _ = take(runs["seh_frag"], out="m.png")
    assert status == 2 and "m.png is the picture's name: choose another --out" in err


@pytest.mark.parametrize("out", ["", ".", "/"])
def test_an_output_without_a_name(out, runs, capsys):
    assert sample.main([str(runs["seh_frag"]), "--out", out]) == 2
    assert capsys.readouterr().err.startswith("error: --out is not the name of a file: write one")


def test_a_folder_of_weights_that_the_run_does_not_need(runs, take, tmp_path):
    for run in runs.values():
        refused(
            take(run, "--data_dir", "there"),
            "sEH's published weights, which this run does not use",
            tmp_path,
        )


def test_an_output_folder_that_is_not_there(runs, take):
    status, _, err, _ = take(runs["seh_frag"], out="none/m.csv")
    assert status == 2 and "is not a folder: make it" in err


def test_a_changed_reward_is_said(tmp_path, monkeypatch, take):
    monkeypatch.syspath_prepend(str(tmp_path))
    quicken(monkeypatch)
    without_pictures(monkeypatch)
    (tmp_path / "changing.py").write_text("def score(smiles):\n    return [1.0] * len(smiles)\n")
    try:
        argv = command("tb", tmp_path / "r", "--proxy=auto", "--reward=changing:score", "--corr_every=0", "--n=1")
        assert seh_frag.main(argv) == 0
        take(tmp_path, out="x.csv")
        (tmp_path / "changing.py").write_text("def score(smiles):\n    return [0.5] * len(smiles)\n\n")
        del sys.modules["changing"]
        importlib.invalidate_caches()
        status, _, err, _ = take(only_run(tmp_path / "r"), "--n", "3", "--rounds", "0")
        assert status == 0 and err.startswith("warning: the source of --reward changing:score has changed since")
        (tmp_path / "changing.py").unlink()
        del sys.modules["changing"]
        importlib.invalidate_caches()
        assert "there is no module changing" in take(only_run(tmp_path / "r"), out="y.csv")[2]
    finally:
        sys.modules.pop("changing", None)


def test_the_published_weights_may_be_elsewhere_now(tmp_path, monkeypatch, take):
    quicken(monkeypatch)
    stand_in(monkeypatch)
    without_pictures(monkeypatch)
    assert seh_frag.main(command("tb", tmp_path / "r", "--corr_every=0", "--n=1")) == 0
    seen, load = [], seh_frag.make_task
    monkeypatch.setattr(seh_frag, "make_task", lambda config: seen.append(config.data_dir) or load(config))
    assert take(only_run(tmp_path / "r"), "--n", "3", "--rounds", "0", "--data_dir", "there")[0] == 0
    assert seen == ["there"]
