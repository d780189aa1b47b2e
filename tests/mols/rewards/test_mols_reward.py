"""The sEH reward: its formula by hand, invalid molecules, what is kept and counted, checkpoints, worker processes."""

import math

import pytest
import torch
from rdkit import Chem
from shared_data import SHARED, needs

from mols.common.terminal import ExperimentError
from mols.rewards.seh.proxy import WEIGHTS_FILE, SehProxy
from mols.rewards.seh.reward import SehReward


class Recorder:
    """A proxy whose raw outputs are given, or else count its molecules, and that knows what it has been asked."""

    def __init__(self, *raw):
        self.raw, self.calls = list(raw), []

    def __call__(self, graphs):
        before = sum(map(len, self.calls))
        self.calls.append([len(graph.atoms) for graph in graphs])
        return torch.tensor([self.raw.pop(0) if self.raw else before + i + 1.0 for i in range(len(graphs))])


def molecules(*smiles):
    return [None if text is None else Chem.MolFromSmiles(text) for text in smiles]


DISTINCT = ["C", "CC", "CCC", "CCCC", "CCCCC", "CCCCCC", "CCCCCCC"]
RAW = [-1.0, 0.0, 1e-5, 4.0, 8.0, 12.0, 1e4]


@pytest.mark.parametrize("exponent", [10.0, 3.5, 1.0])
def test_the_formula_by_hand(exponent):
    log_reward, reward, smiles = SehReward(Recorder(*RAW), exponent=exponent)(molecules(*DISTINCT))
    assert smiles == DISTINCT
    expected = [1e-4, 1e-4, 1e-4, 0.5, 1.0, 1.5, 100.0]
    assert reward.tolist() == pytest.approx(expected, rel=1e-6)
    by_hand = [max(exponent * math.log(r), -75.0) for r in expected]
    assert log_reward.tolist() == pytest.approx(by_hand, rel=1e-6)
    assert (by_hand[0] == -75.0) == (exponent == 10.0)  # the floor shows, and shows where it should alone


@pytest.mark.parametrize("exponent", [10.0, 1.0])
def test_an_invalid_molecule_gets_the_least(exponent):
    proxy = Recorder(8.0)
    reward = SehReward(proxy, exponent=exponent)
    scores = reward(molecules(None, "CC", None))
    assert scores.log_reward.tolist() == [-75.0, 0.0, -75.0]
    assert scores.reward.tolist() == pytest.approx([1e-4, 1.0, 1e-4])
    assert scores.smiles == [None, "CC", None]
    assert reward.n_evaluated == 1
    assert reward([None]).log_reward.tolist() == [-75.0]
    assert proxy.calls == [[2], []]


def test_no_molecules_have_no_rewards():
    log_reward, reward, smiles = SehReward(Recorder())([])
    assert log_reward.shape == reward.shape == (0,) and smiles == []


def test_a_molecule_is_evaluated_once_however_it_is_written():
    proxy = Recorder(1.0, 2.0, 3.0)
    reward = SehReward(proxy, exponent=1.0)
    first = reward(molecules("OCC", "C", "CCO", "C"))
    assert first.smiles == ["CCO", "C", "CCO", "C"]
    assert (8 * first.reward).tolist() == pytest.approx([1.0, 2.0, 1.0, 2.0])
    second = reward(molecules("C", "C(C)O", "N"))
    assert (8 * second.reward).tolist() == pytest.approx([2.0, 1.0, 3.0])
    assert proxy.calls == [[3, 1], [1]]
    assert reward.n_evaluated == 3


def test_an_evaluation_neither_reads_nor_writes_what_training_keeps():
    proxy = Recorder()
    reward = SehReward(proxy)
    before = reward(molecules("C", "CC")).reward
    other = reward(molecules("CC", None, "N", "CC"), training=False)
    assert (8 * other.reward).tolist() == pytest.approx([3.0, 8e-4, 4.0, 3.0])
    assert proxy.calls == [[1, 2], [2, 1]]  # a molecule that occurs twice is one all the same
    assert reward.n_evaluated == 2
    assert torch.equal(reward(molecules("C", "CC")).reward, before)
    assert reward(molecules("N")).reward.item() == pytest.approx(5 / 8)


def test_a_checkpoint_brings_back_what_has_been_evaluated(tmp_path):
    raw = [0.1, 1 / 3, 7.123456]
    proxy = Recorder(*raw)
    reward = SehReward(proxy)
    before = reward(molecules("CCO", None, "C[C@H](F)/C=C\\Br", "[Na+].[Cl-]"))
    torch.save(reward.state_dict(), tmp_path / "state.pt")
    untouched = Recorder()
    restored = SehReward(untouched)
    restored(molecules("CCO", "N"))  # which is forgotten
    untouched.calls.clear()
    restored.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert restored.n_evaluated == 3
    after = restored(molecules("CCO", None, "C[C@H](F)/C=C\\Br", "[Na+].[Cl-]"))
    assert untouched.calls == [[]]
    assert torch.equal(after.log_reward, before.log_reward) and torch.equal(after.reward, before.reward)
    assert after.smiles == before.smiles
    torch.testing.assert_close(restored.state_dict()["raw"], reward.state_dict()["raw"], rtol=0, atol=0)


def test_a_checkpoint_before_the_first_reward(tmp_path):
    torch.save(SehReward(Recorder()).state_dict(), tmp_path / "state.pt")
    reward = SehReward(Recorder())
    reward.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert reward.n_evaluated == 0


def test_a_molecule_that_the_network_does_not_take_is_said():
    with pytest.raises(ExperimentError, match="H to Ba"):
        SehReward(Recorder())(molecules("CC", "[Au]"))


@pytest.mark.slow
def test_worker_processes_change_nothing():
    torch.manual_seed(0)
    proxy, many = SehProxy(), molecules("CCO", None, "c1ccccc1C#N", "O", "OCC", "O=S(=O)(c1ccccc1)N1CCOCC1")
    alone, helped = SehReward(proxy), SehReward(proxy, workers=2)
    try:
        for found, expected in zip(helped(many)[:2], alone(many)[:2], strict=True):
            assert torch.equal(found, expected)
    finally:
        helped.close()
    assert helped.state_dict()["smiles"] == alone.state_dict()["smiles"]


@needs(WEIGHTS_FILE)
def test_the_published_reward():
    scores = SehReward.load(SHARED, exponent=10.0)(molecules("CCO", "O", "c1ccc(-c2ccc(-c3ccccc3)cc2)cc1", None))
    expected = [0.0273122638 / 8, 1e-4, 5.8026919 / 8, 1e-4]  # of seh_reference.json
    assert scores.reward.tolist() == pytest.approx(expected, abs=1e-5)
    assert scores.log_reward[1:].tolist() == pytest.approx([-75.0, 10 * math.log(expected[2]), -75.0], abs=1e-4)


def test_a_data_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ExperimentError, match="which is not a folder"):
        SehReward.load(tmp_path / "none")
