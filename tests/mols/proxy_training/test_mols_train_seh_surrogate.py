"""The surrogate's training: what it is trained on, fidelity by hand, learning, going on, and its command."""

import csv
import hashlib

import numpy as np
import pytest
import torch
from rdkit import Chem
from small_runs import quicken, stand_in

from mols.environments.fragments import FragmentEnvironment
from mols.molecules.reference_set import finished_at_random, random_finished_states
from mols.proxy_training import surrogate_molecules, train_seh_surrogate
from mols.proxy_training import training as rules
from mols.proxy_training.surrogate_molecules import sampled, taken_apart
from mols.proxy_training.train_seh_surrogate import Labelled, SurrogateTraining, fidelity, main
from mols.rewards.seh.features import featurise
from mols.rewards.seh.reward import SehReward
from mols.rewards.seh.surrogate import SehSurrogate

PARTS = [f"{name}_seed={seed}.csv" for seed, name in enumerate(("random", "run_1", "run_2", "search"), 1)]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Few molecules, and a network with random weights that labels them."""
    quicken(monkeypatch)
    stand_in(monkeypatch)
    for name, value in {"N_RANDOM": 32, "BATCH_SIZE": 16, "N_STEPS": 2, "N_BEST": 10}.items():
        monkeypatch.setattr(surrogate_molecules, name, value)
    monkeypatch.setattr(SurrogateTraining.__init__, "__defaults__", (8,))
    monkeypatch.setattr(rules, "BATCH_SIZE", 16)


def rows_of(path):
    with path.open(newline="") as file:
        return {row["smiles"]: float(row["raw"]) for row in csv.DictReader(file)}


def test_the_parts_are_labelled_by_the_published_network_and_made_once(tmp_path, monkeypatch):
    found = sampled(tmp_path, 1, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == PARTS
    parts = [rows_of(tmp_path / name) for name in PARTS]
    assert set(found) == set().union(*parts) and min(map(len, parts)) > 15
    smiles = list(found)[::10]
    labels = SehReward.load().proxy([featurise(Chem.MolFromSmiles(text)) for text in smiles])
    np.testing.assert_allclose([found[text] for text in smiles], labels, rtol=0, atol=1e-4)
    best = sorted({**parts[0], **parts[1], **parts[2]}.items(), key=lambda pair: -pair[1])[:10]
    assert {smiles for smiles, _ in best} <= set(parts[3])  # which the search begins with
    monkeypatch.setattr(surrogate_molecules, "write_part", None)
    assert sampled(tmp_path, 1, "") == found
    monkeypatch.undo()


def test_a_damaged_part_is_said(tmp_path, capsys):
    for text in ("smiles,raw\nC,x\n", "SMILES\nC\n"):
        (tmp_path / PARTS[0]).write_text(text)
        assert main(["--run_dir", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert error == f"error: {tmp_path / PARTS[0]} is damaged: delete it, so that it is made again\n"


def test_taking_apart_and_finishing():
    environment, rng = FragmentEnvironment(max_fragments=4), np.random.default_rng(1)
    whole = random_finished_states(environment, 40, rng)
    before = environment.n_nodes(whole) + (whole.attachment > 1).sum((1, 2))
    apart = taken_apart(environment, type(whole)(*(tensor.clone() for tensor in whole)), rng)
    moves = before - environment.n_nodes(apart) - (apart.attachment > 1).sum((1, 2))
    assert set(moves[before >= 6].tolist()) == {1, 2, 3, 4, 5, 6}
    assert ((moves >= 1) & (moves <= before.clamp(max=6))).all()
    finished = finished_at_random(environment, apart, rng)
    assert environment.forward_mask(finished).stop.all()
    kept = apart.fragment != environment.n_fragments
    assert torch.equal(finished.fragment[kept], apart.fragment[kept])


def test_fidelity_by_hand():
    labels = np.arange(20) / 20
    predicted = labels.copy()
    predicted[[18, 19]] = predicted[[19, 18]]
    everything, top = fidelity(predicted, labels)
    # Spearman's correlation is 1 - 6 sum d^2 / (n (n^2 - 1)), with two ranks off by one.
    assert everything[:2] == ("all", 20) and everything[2] == pytest.approx(1 - 12 / (20 * 399))
    assert everything[3] == pytest.approx(0.1 / 20)
    assert top[:2] == ("the top tenth", 2) and top[2:] == pytest.approx((-1.0, 0.05))


@pytest.fixture
def labelled():
    smiles = ["C" * n + end for n in range(1, 30) for end in ("", "O", "N")]
    return Labelled(
        [featurise(Chem.MolFromSmiles(text)) for text in smiles], torch.tensor([0.1 * len(s) for s in smiles])
    )


def test_the_errors_are_in_units_of_r(labelled):
    training = SurrogateTraining(labelled, 1, 1)
    rows = torch.tensor([3, 5])
    raw = SehSurrogate(training.average)([labelled.graphs[3], labelled.graphs[5]])
    expected = (raw - labelled.raw[rows]).abs().mean().item() / 8
    assert training.error(training.average, rows) == pytest.approx(expected, rel=1e-4)


def test_training_lowers_the_error(labelled, monkeypatch):
    monkeypatch.setattr(rules, "EMA_DECAY", 0.5)
    monkeypatch.setattr(rules, "WARM_UP", 1)
    training = SurrogateTraining(labelled, 1, 8)
    before = training.error(training.average, training.train)
    for _ in range(8):
        training.run_epoch()
    assert training.error(training.average, training.train) < 0.5 * before


def test_the_command_goes_on_and_reports(tmp_path, capsys):
    argv = ["--epochs", "2", "--run_dir", str(tmp_path / "parts")]
    assert main([*argv, "--seconds", "0.0001"]) == 0
    assert "epoch 1 of 2" in capsys.readouterr().out
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert "epoch 2 of 2" in out and "epoch 1 of" not in out
    path = tmp_path / "parts" / "seh_surrogate.pt"
    assert "held out, all (" in out and "held out, the top tenth (" in out
    assert hashlib.sha256(path.read_bytes()).hexdigest() in out
    assert main(["--epochs", "2", "--run_dir", str(tmp_path / "whole")]) == 0
    whole, parts = (torch.load(tmp_path / n / "checkpoint.pt", weights_only=True) for n in ("whole", "parts"))
    for name, value in whole["average"].items():
        assert torch.equal(value, parts["average"][name]), name


def test_bad_input_gets_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_seh_surrogate, "sampled", None)
    assert main(["--epochs", "0", "--run_dir", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: --epochs, --seconds and --threads start above 0")
