"""The QM9 reward: its formula by hand, molecules that are invalid or have no gap, and the two networks behind it."""

import math

import numpy as np
import pytest
import torch
from rdkit import Chem

from mols.agents.task import Task
from mols.common.terminal import ExperimentError
from mols.molecules.qm9 import read_test_set
from mols.molecules.structures import Structure
from mols.rewards.gap.proxy import GapProxy
from mols.rewards.gap.reward import GapReward
from mols.rewards.mxmnet import gaps as mxmnet_gaps
from mols.rewards.mxmnet.gaps import MXMNetGap

NONE = float("nan")


class Recorder:
    """A network whose gaps (eV) are given, and that knows what it has been asked."""

    def __init__(self, *gaps):
        self.gaps, self.calls, self.closed = list(gaps), [], 0

    def __call__(self, molecules):
        self.calls.append([Chem.MolToSmiles(molecule) for molecule in molecules])
        return torch.tensor([self.gaps.pop(0) for _ in molecules])

    def close(self):
        self.closed += 1


def molecules(*smiles):
    return [None if text is None else Chem.MolFromSmiles(text) for text in smiles]


HARTREE = 27.2114
# Gap in Hartree -> r: 1 at the 5th percentile, and a straight line of slope -1 / 0.5975.
BY_HAND = {
    -1.0: 2.0,  # clipped
    -0.4215: 2.0,
    0.0246: 1.2533891,  # the least gap of QM9
    0.176: 1.0,
    0.47475: 0.5,
    0.6221: 0.2533891,  # the largest
    0.7729025: 1e-3,
    0.77320125: 5e-4,  # whose tenth power is below the floor
    1.0: 1e-4,  # clipped
}


@pytest.mark.parametrize("exponent", [10.0, 3.5, 1.0])
def test_the_formula_by_hand(exponent):
    smiles = ["C" * n for n in range(1, 1 + len(BY_HAND))]
    network = Recorder(*(gap * HARTREE for gap in BY_HAND))
    log_reward, reward, named = GapReward(network, exponent=exponent)(molecules(*smiles))
    assert named == smiles
    expected = list(BY_HAND.values())
    assert reward.tolist() == pytest.approx(expected, abs=1e-6)
    by_hand = [max(exponent * math.log(r), -75.0) for r in expected]
    assert log_reward.tolist() == pytest.approx(by_hand, abs=5e-3)
    floored = [value == -75.0 for value in log_reward.tolist()]
    assert floored == [exponent == 10.0 and r < 1e-3 for r in expected]


def test_the_reward_exponent_is_ten_unless_given():
    (log_reward,) = GapReward(Recorder(0.47475 * HARTREE))(molecules("C")).log_reward.tolist()
    assert log_reward == pytest.approx(10 * math.log(0.5), abs=1e-4)


@pytest.mark.parametrize("exponent", [10.0, 1.0])
def test_an_invalid_molecule_gets_the_least(exponent):
    network = Recorder(0.176 * HARTREE)
    reward = GapReward(network, exponent=exponent)
    scores = reward(molecules(None, "CC", None))
    assert scores.log_reward.tolist() == pytest.approx([-75.0, 0.0, -75.0], abs=1e-5)
    assert scores.reward.tolist() == pytest.approx([1e-4, 1.0, 1e-4])
    assert scores.smiles == [None, "CC", None]
    assert (reward.n_evaluated, network.calls[0]) == (1, ["CC"])


@pytest.mark.parametrize("exponent", [10.0, 1.0])
def test_a_molecule_without_a_gap_is_invalid_and_never_has_anothers_reward(exponent):
    network = Recorder(0.176 * HARTREE, NONE, 0.47475 * HARTREE, NONE)
    reward = GapReward(network, exponent=exponent)
    asked = molecules("CC", "CO", None, "CN", "CF", "OC")
    scores = reward(asked)
    assert scores.smiles == ["CC", None, None, "CN", None, None]
    assert scores.reward.tolist() == pytest.approx([1.0, 1e-4, 1e-4, 0.5, 1e-4, 1e-4])
    least, half = -75.0, exponent * math.log(0.5)
    assert scores.log_reward.tolist() == pytest.approx([0.0, least, least, half, least, least], abs=1e-4)
    again = reward(asked)
    assert network.calls == [["CC", "CO", "CN", "CF"], []]  # what has no gap is not asked for twice
    assert again.smiles == scores.smiles and torch.equal(again.log_reward, scores.log_reward)


def test_an_evaluation_keeps_nothing():
    reward = GapReward(Recorder(NONE, 1.0))
    scores = reward(molecules("CO", None, "C"), training=False)
    assert scores.smiles == [None, None, "C"] and scores.log_reward[:2].tolist() == [-75.0, -75.0]
    assert reward.n_evaluated == 0


def test_a_checkpoint_brings_back_what_has_a_gap_and_what_has_none(tmp_path):
    reward = GapReward(Recorder(4.0, NONE, 5.0))
    before = reward(molecules("CC", "CO", "CN"))
    torch.save(reward.state_dict(), tmp_path / "state.pt")
    network = Recorder()
    restored = GapReward(network)
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert restored.n_evaluated == reward.n_evaluated
    after = restored(molecules("CC", "CO", "CN"))
    assert network.calls == [[]] and after.smiles == before.smiles == ["CC", None, "CN"]
    assert torch.equal(after.log_reward, before.log_reward)


# The embedded network


def test_the_embedded_network_is_the_committed_one_in_electronvolt():
    smiles, gaps = read_test_set()
    some = molecules(*smiles[::12])
    network = GapProxy.load()
    assert (network(some) - torch.from_numpy(gaps[::12]) * HARTREE).abs().mean() < 0.15
    reward = GapReward(network)(some).reward.double().numpy()
    true = np.clip(1 - (gaps[::12] - 0.176) / (0.6221 - 0.0246), 1e-4, 2)
    assert np.abs(reward - true).mean() < 0.01 < np.abs(true - true.mean()).mean() / 5
    network.close()


# MXMNet


class Conformers:
    """In place of the worker processes: as many atoms as the SMILES has letters; none for one with fluorine."""

    made = None

    def __init__(self, workers):
        Conformers.made = self
        self.workers, self.asked, self.closed = workers, [], 0

    def __call__(self, smiles):
        self.asked += smiles
        return [
            None if "F" in text else Structure(np.full(len(text), 6), np.zeros((len(text), 3)), np.zeros((0, 2)))
            for text in smiles
        ]

    def close(self):
        self.closed += 1


class Network:
    """In place of MXMNet: a gap of as many eV as there are atoms, in double precision."""

    calls: list = []  # noqa: RUF012 emptied by the fixture

    @classmethod
    def load(cls, path):
        cls.calls.append(path)
        return cls()

    def __call__(self, structures):
        self.calls.append(len(structures))
        return torch.tensor([float(len(structure.numbers)) for structure in structures], dtype=torch.float64)


@pytest.fixture
def network(monkeypatch):
    monkeypatch.setattr(Network, "calls", [])
    monkeypatch.setattr(mxmnet_gaps, "MXMNet", Network)
    return Network


@pytest.fixture
def conformers(monkeypatch):
    monkeypatch.setattr(mxmnet_gaps, "ConformerMap", Conformers)
    return Conformers


def test_every_molecule_has_the_gap_of_its_own_conformer(network, conformers):
    gap = MXMNetGap("weights", 3)
    found = gap(molecules("CF", "CCC", "FC", "C", "CC", "CCF"))
    assert found.isnan().tolist() == [True, False, True, False, False, True]
    assert found[[1, 3, 4]].tolist() == [3.0, 1.0, 2.0] and found.dtype == torch.float32
    assert network.calls == ["weights", 3] and conformers.made.workers == 3


def test_without_any_conformer_the_network_is_not_asked(network, conformers):
    gap = MXMNetGap("weights")
    assert gap(molecules("CF", "CCF")).isnan().all() and gap([]).shape == (0,)
    assert network.calls == ["weights"] and conformers.made.workers == 0


def test_conformers_are_those_of_canonical_smiles_and_made_once(network, conformers):
    """Another spelling has another conformer."""
    reward = GapReward(MXMNetGap("weights"))
    scores = reward(molecules("OCC", "FC", "C(O)C"))
    assert conformers.made.asked == ["CCO", "CF"]
    assert scores.smiles == ["CCO", None, "CCO"]
    expected = 1 - (3 / HARTREE - 0.176) / 0.5975
    assert scores.reward.tolist() == pytest.approx([expected, 1e-4, expected])
    reward(molecules("CCO", "CF"))
    assert conformers.made.asked == ["CCO", "CF"]


def test_conformers_of_rdkit_have_hydrogens(network):
    gap = MXMNetGap("weights")
    assert gap(molecules("C", "N#N", "CO")).tolist() == [5.0, 2.0, 6.0]


def test_closing_ends_the_workers(network, conformers):
    reward = GapReward(MXMNetGap("weights", 2))
    task = Task(None, None, reward, None, (1.0,))
    assert conformers.made.closed == 0
    task.close()
    assert conformers.made.closed == 1
    recorder = Recorder()
    GapReward(recorder).close()
    assert recorder.closed == 1


def test_weights_that_are_not_there_are_said(tmp_path):
    with pytest.raises(ExperimentError, match=r"none\.pt is not there"):
        MXMNetGap(tmp_path / "none.pt")
