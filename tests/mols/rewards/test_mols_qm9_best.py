"""The best molecules of QM9 runs beside QM9: order, rewards by hand, which are in QM9, and what is refused."""

import csv
import json
import math

import numpy as np
import pytest
import torch

from mols.molecules import qm9
from mols.rewards.gap import best as qm9_best
from mols.rewards.gap.best import main


@pytest.fixture
def run_of(tmp_path):
    def make(evaluated, name="run", **config):
        directory = tmp_path / name
        directory.mkdir()
        config = {"environment": "qm9", "objective": "tb", "backward_approach": "tlm", "seed": 3} | config
        (directory / "config.json").write_text(json.dumps(config))
        raw = torch.tensor([gap for _, gap in evaluated], dtype=torch.float64)
        reward = {"smiles": "\n".join(smiles for smiles, _ in evaluated), "raw": raw}
        torch.save({"step": 1, "agent": {"reward": reward}}, directory / "checkpoint.pt")
        return directory

    return make


@pytest.fixture
def small_qm9(monkeypatch):
    """Three molecules and the name of a fourth that no program can read."""
    smiles = ["OC", "CC(F)O", "NCCCCCCCC", "C%%"]
    gaps = np.array([0.3, 0.25, 0.1, 0.2])
    data = qm9.Qm9(smiles, np.array([2, 4, 9, 3]), gaps, gaps, gaps)
    monkeypatch.setattr(qm9, "read_qm9", lambda: data)


def written(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_rows_by_hand(run_of, small_qm9, tmp_path, capsys):
    first = run_of([("CO", 8.1), ("C[C@@H](O)F", 2.0), ("[CH2+][NH3+]", 1.0), ("[CH2]C", math.nan), ("[CH2]O", 5.0)])
    second = run_of([("CO", 8.1)], name="other", seed=4, objective="dqn")
    out = tmp_path / "best.csv"
    assert main([str(first), str(second), "--out", str(out), "--n", "3"]) == 0
    rows = written(out)
    assert [row["run"] for row in rows] == ["tb-tlm seed 3"] * 3 + ["dqn-tlm seed 4"]
    assert [row["smiles"] for row in rows] == ["[CH2+][NH3+]", "C[C@@H](O)F", "[CH2]O", "CO"]
    assert [row["predicted_gap"] for row in rows] == ["1.000", "2.000", "5.000", "8.100"]
    assert [row["qm9_gap"] for row in rows] == ["", f"{0.25 * 27.2114:.3f}", "", f"{0.3 * 27.2114:.3f}"]
    assert [row["charge"] for row in rows] == ["2", "0", "0", "0"]
    assert [row["radical_electrons"] for row in rows] == ["0", "0", "1", "0"]
    assert [row["conformer"] for row in rows] == ["1"] * 4
    rewards = [1 - (gap / 27.2114 - 0.176) / (0.6221 - 0.0246) for gap in (1.0, 2.0, 5.0, 8.1)]
    assert [float(row["reward"]) for row in rows] == pytest.approx(rewards, abs=1e-4)
    assert capsys.readouterr().out == f"4 molecules in {out}\n"


def test_what_is_refused_says_so_and_writes_nothing(run_of, small_qm9, tmp_path, capsys):
    good, out = run_of([("CO", 8.1)]), tmp_path / "best.csv"
    other = run_of([("CO", 1.0)], name="seh", environment="seh_frag")
    own = run_of([("CO", 1.0)], name="own", reward="qed")
    damaged = run_of([("CO", 1.0)], name="damaged")
    (damaged / "checkpoint.pt").write_bytes(b"no zip")
    for argv, words in (
        ([str(tmp_path / "nothing")], "is no run with a checkpoint"),
        ([str(other)], "run of seh_frag"),
        ([str(damaged)], "is no run with a checkpoint"),
        ([str(own)], "is a run of qm9 with the reward qed"),
        ([str(good), "--n", "0"], "--n is 0"),
    ):
        assert main([*argv, "--out", str(out)]) == 2
        assert words in capsys.readouterr().err
        assert not out.exists()
    out.write_text("kept")
    assert main([str(good), "--out", str(out)]) == 2
    assert "exists" in capsys.readouterr().err and out.read_text() == "kept"


def test_without_qm9_it_says_how_to_install_it(run_of, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(qm9_best.qm9, "find_spec", lambda name: None)
    assert main([str(run_of([("CO", 8.1)])), "--out", str(tmp_path / "best.csv")]) == 2
    assert "pip install -e '.[qm9]'" in capsys.readouterr().err
