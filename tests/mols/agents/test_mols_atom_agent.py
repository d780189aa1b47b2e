"""An agent on the graphs of atoms: which parameters a step moves, what a resumed run repeats, what it measures."""

import io

import pytest
import torch
from each import each_algo, each_approach
from rdkit import Chem
from same import assert_same
from test_mols_agent import assert_moves_by_the_table

from mols import settings
from mols.agents import base as learning
from mols.agents.table import columns, make_agent
from mols.agents.task import Task
from mols.common.algorithm import train_step
from mols.environments.atoms import AtomEnvironment, Graphs
from mols.environments.base import concatenate
from mols.molecules.atoms import AtomMolecules
from mols.rewards.gap.reward import GapReward
from mols.tasks import qm9

SMALL = ["--width=16", "--n_layers=1", "--n_heads=1", "--batch_size=8", "--max_atoms=4", "--device=cpu"]
TEST_SET = ("C", "CO", "C=O", "C1CC1", "NC(F)F", "C[NH3+]")


class StandIn:
    """A gap in eV that falls with the molecule's size, so that there are modes."""

    def __call__(self, molecules):
        return torch.tensor([0.1 * (30 - len(Chem.MolToSmiles(molecule))) for molecule in molecules])

    def close(self):
        """Nothing to end."""


@pytest.fixture
def atom_agent():
    """``atom_agent(algo, approach, option, ...)``: a tiny agent on at most 4 atoms."""

    def new(algo, approach, *extra):
        argv = ["--algo", algo, "--backward_approach", approach, *SMALL, *extra]
        config = settings.parse(argv, qm9.Settings)
        environment = AtomEnvironment(max_atoms=config.max_atoms)
        molecules, reward = AtomMolecules(environment), GapReward(StandIn(), exponent=config.temp)
        states = concatenate([molecules.from_molecule(smiles) for smiles in TEST_SET])
        return make_agent(config, Task(environment, molecules, reward, states, qm9.THRESHOLDS))

    return new


@each_algo
@each_approach
def test_a_step_moves_exactly_the_groups_of_the_table(atom_agent, algo, approach):
    assert_moves_by_the_table(atom_agent(algo, approach), algo, approach)


def test_every_backward_head_of_a_likelihood_learns(atom_agent):
    """Rings and attributes are met soon enough."""
    agent = atom_agent("tb", "tlm", "--batch_size=64", "--rp=0.9")
    before = {name: head[-1].weight.clone() for name, head in agent.policies.backward_head.items()}
    train_step(agent)
    assert before.keys() == {"remove", "unset", "open", "untype"}
    for name, head in agent.policies.backward_head.items():
        assert not torch.equal(head[-1].weight, before[name])


@pytest.mark.parametrize("algo", ["tb", "dqn"])
def test_a_resumed_agent_repeats_an_uninterrupted_one_bit_by_bit(atom_agent, algo, monkeypatch):
    """Its buffer of recent batches holds states; whatever the new agent did before is forgotten."""
    monkeypatch.setattr(learning, "N_GENERATED", 5)
    options = ["--n=6", "--corr_every=3", "--validate_every=1", "--corr_rounds=1", "--rp=0.5"]
    agent, other = (atom_agent(algo, "pessimistic", *options, f"--seed={seed}") for seed in (1, 2))
    for _ in range(3):
        train_step(agent)
    agent.evaluate(3)
    file = io.BytesIO()
    torch.save(agent.state_dict(), file)
    train_step(other)
    other.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert_same(other.state_dict(), agent.state_dict())
    recent = other._recent.state_dict()
    assert len(recent) == 3 and all(isinstance(batch.visited, Graphs) for batch in recent)
    values = []
    for each in (agent, other):
        losses = [train_step(each) for _ in range(3)]
        values.append((losses, each.evaluate(6)))
    assert_same(values[0], values[1])
    assert_same(agent.state_dict(), other.state_dict())
    assert len(agent.state_dict()["recent"]) == 6


def test_what_is_measured_has_the_tasks_thresholds(atom_agent, monkeypatch):
    monkeypatch.setattr(learning, "N_GENERATED", 6)
    agent = atom_agent("dqn", "tlm", "--n=1", "--batch_size=32", "--corr_rounds=2")
    train_step(agent)
    metrics = agent.evaluate(1)
    assert set(metrics) == {"pb_deviation", *columns(qm9.THRESHOLDS)}
    found = [metrics[f"modes_found_{threshold}"] for threshold in ("1.125", "1.1875", "1.25")]
    best_first = [metrics[f"modes_sorted_{threshold}"] for threshold in ("1.125", "1.1875", "1.25")]
    assert found[0] >= found[1] >= found[2] and found[0] > 0 and best_first[0] > 0
    assert -1 <= metrics["reward_correlation"] <= 1 and -1 <= metrics["reward_correlation_generated"] <= 1
    assert 0 < metrics["rewards_evaluated"] <= 32
