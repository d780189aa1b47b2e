"""Trees of fragments as molecules: joining, cutting into the fewest fragments, and the two test sets."""

from collections import Counter

import numpy as np
import pytest
import torch
from each import each
from rdkit import Chem
from shared_data import SHARED, needs

from mols.common.terminal import ExperimentError
from mols.environments.base import concatenate, rows_of
from mols.environments.fragments import FragmentEnvironment, Trees
from mols.environments.vocabulary import FRAGMENTS, Fragment
from mols.molecules.fragments import FragmentMolecules, join
from mols.molecules.reference_set import generated_test_set, random_finished_states, read_seh_test_set

TEST_SET = "seh_test_set.csv"
# Fragments of which a molecule can be made in several ways.
AMBIGUOUS = (Fragment("C", (0,)), Fragment("CC", (0, 1)), Fragment("CCC", (1,)), Fragment("CO", (0, 1)))
METHANE = 1
NUMBER = {fragment.smiles: number for number, fragment in enumerate(FRAGMENTS)}


@pytest.fixture(scope="module")
def environment():
    return FragmentEnvironment()


@pytest.fixture(scope="module")
def molecules(environment):
    return FragmentMolecules(environment)


@pytest.fixture(scope="module")
def finished(environment):
    """300 finished states of every size."""
    states = random_finished_states(environment, 300, np.random.default_rng(3))
    assert set(environment.n_nodes(states).tolist()) == set(range(1, 9))
    return states


@pytest.fixture(scope="module")
def test_set():
    return read_seh_test_set(SHARED / TEST_SET)


def chain(environment, *fragments):
    """The state of fragments in a row: (SMILES, point towards the left, point towards the right)."""
    state = environment.initial_states(1)
    for slot, (smiles, left, right) in enumerate(fragments):
        state.fragment[0, slot] = NUMBER[smiles]
        if slot > 0:
            state.attachment[0, slot, slot - 1] = 2 + left
        if slot < len(fragments) - 1:
            state.attachment[0, slot, slot + 1] = 2 + right
    return state


def every_finished_state(environment):
    """All states that can stop, level by level from s_0."""
    level, seen, found = environment.initial_states(1), set(), []
    while len(level.fragment):
        row, action = environment.legal_actions(level).nonzero(as_tuple=True)
        found.append(rows_of(level, row[action == 0]))
        level = environment.step(rows_of(level, row[action != 0]), action[action != 0])
        new = [i for i, key in enumerate(environment.keys(level).tolist()) if not (key in seen or seen.add(key))]
        level = rows_of(level, new)
    return concatenate(found)


@each(
    "fragments,smiles",
    [
        ([("Br", None, None)], "Br"),
        ([("Br", None, 0), ("c1ccccc1", 3, None)], "Brc1ccccc1"),
        ([("Br", None, 0), ("c1ccccc1", 0, 2), ("CO", 1, None)], "COc1cccc(Br)c1"),
        ([("F", None, 0), ("c1ncc2nc[nH]c2n1", 1, None)], "Fn1cnc2cncnc21"),  # [nH] gives its hydrogen
        ([("F", None, 0), ("c1ncc2nc[nH]c2n1", 0, None)], "Fc1ncnc2[nH]cnc12"),  # another atom does not
        ([("C[SH2+]", None, 0), ("C", 0, None)], "C[SH+]C"),
        ([("N[SH](=O)=O", None, 0), ("c1ccccc1", 0, None)], "NS(=O)(=O)c1ccccc1"),
        ([("C[NH3+]", None, 0), ("C", 0, None)], "CC[NH3+]"),
        ([("O=[NH+][O-]", None, 0), ("C", 0, None)], "C[N+](=O)[O-]"),
        ([("O=PO", None, 0), ("C", 0, None)], "C[PH](=O)O"),  # three-valent phosphorus becomes five-valent
        ([("O=S=O", None, 0), ("C", 0, None)], "C[SH](=O)=O"),  # four-valent sulphur becomes six-valent
        ([("C#N", None, 0), ("c1cscn1", 0, 1), ("C=C", 1, None)], "C=Cc1nc(C#N)cs1"),
    ],
)
def test_molecules_by_hand(environment, molecules, fragments, smiles):
    state = chain(environment, *fragments)
    expected = Chem.MolToSmiles(Chem.MolFromSmiles(smiles))
    assert molecules.to_smiles(state) == [expected]
    again = molecules.from_molecule(smiles)
    assert sorted(again.fragment[0].tolist()) == sorted(state.fragment[0].tolist())
    assert molecules.to_smiles(again) == [expected]


def test_every_point_holds_a_bond():
    gained = []
    for smiles, points in FRAGMENTS:
        part = Chem.MolFromSmiles(smiles)
        for point in points:
            joined = join([part, Chem.MolFromSmiles("Br")], [(0, point, 1, 0)])
            assert Chem.MolFromSmiles(Chem.MolToSmiles(joined)) is not None
            before, after = part.GetAtomWithIdx(point), joined.GetAtomWithIdx(point)
            assert after.GetDegree() == before.GetDegree() + 1
            if after.GetTotalNumHs() != before.GetTotalNumHs() - 1:
                gained.append(smiles)
    assert gained == ["O=PO", "O=P[O-]", "O=S=O"]  # which have no hydrogen to give, and get one with a higher valence


def test_finished_states_are_valid_molecules(environment, molecules, finished):
    sizes = [Chem.MolFromSmiles(smiles).GetNumAtoms() for smiles, _ in FRAGMENTS]
    bonds = [Chem.MolFromSmiles(smiles).GetNumBonds() for smiles, _ in FRAGMENTS]
    built = molecules.to_molecules(finished)
    for fragments, molecule in zip(finished.fragment.tolist(), built, strict=True):
        present = [fragment for fragment in fragments if fragment < len(FRAGMENTS)]
        assert molecule.GetNumAtoms() == sum(sizes[fragment] for fragment in present)
        assert molecule.GetNumBonds() == sum(bonds[fragment] for fragment in present) + len(present) - 1
        again = Chem.MolFromSmiles(Chem.MolToSmiles(molecule))
        assert Chem.MolToSmiles(again) == Chem.MolToSmiles(molecule)
        assert Chem.AddHs(again).GetNumAtoms() == Chem.AddHs(molecule).GetNumAtoms()
    assert molecules.to_smiles(finished) == [Chem.MolToSmiles(molecule) for molecule in built]


def test_slots_make_no_difference(environment, molecules, finished):
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    renamed = Trees(finished.fragment[:, order], finished.attachment[:, order][:, :, order])
    assert molecules.to_smiles(renamed) == molecules.to_smiles(finished)


def test_unfinished_states_are_no_molecules(environment, molecules):
    unset = environment.step(chain(environment, ("C=C", None, None)), torch.tensor([1 + METHANE]))
    for state in (environment.initial_states(1), unset):
        with pytest.raises(ValueError, match="cannot stop"):
            molecules.to_molecules(state)


def test_an_impossible_valence_is_no_molecule():
    environment = FragmentEnvironment((Fragment("O=O", (0,)), Fragment("C", (0,))), max_fragments=2)
    state = environment.initial_states(3)
    state.fragment[:] = torch.tensor([[0, 1], [1, 1], [0, 2]])
    state.attachment[:2, 0, 1] = state.attachment[:2, 1, 0] = 2
    molecules = FragmentMolecules(environment)
    assert molecules.to_smiles(state) == [None, "CC", "O=O"]
    assert molecules.from_molecule("CC") is not None and molecules.from_molecule("COO") is None


def test_cutting_a_molecule_gives_it_back(environment, molecules, finished):
    smiles = molecules.to_smiles(finished)
    cut = [molecules.from_molecule(one) for one in smiles]
    assert all(state.fragment.shape == (1, 8) for state in cut)
    assert molecules.to_smiles(concatenate(cut)) == smiles
    assert (environment.n_nodes(concatenate(cut)) <= environment.n_nodes(finished)).all()


def test_cutting_is_deterministic_and_takes_molecules(molecules, finished):
    for molecule in molecules.to_molecules(rows_of(finished, torch.arange(20))):
        first, second = molecules.from_molecule(molecule), molecules.from_molecule(Chem.Mol(molecule))
        assert torch.equal(first.fragment, second.fragment) and torch.equal(first.attachment, second.attachment)


def test_cut_states_can_be_reached(environment, molecules, finished):
    states = concatenate(
        [molecules.from_molecule(one) for one in molecules.to_smiles(rows_of(finished, range(0, 300, 10)))]
    )
    for _ in range(environment.max_length - 1):
        running = environment.backward_mask(states).any(1)
        states = rows_of(states, running)
        actions = environment.backward_mask(states).to(torch.uint8).argmax(1)
        states, forward = environment.backward_step(states, actions)
        assert environment.legal_actions(states).gather(1, forward[:, None]).all()
    assert environment.is_empty(states).all()


def test_cutting_finds_the_fewest_fragments():
    environment = FragmentEnvironment(AMBIGUOUS, max_fragments=4)
    molecules, states = FragmentMolecules(environment), every_finished_state(environment)
    fewest, most = {}, {}
    for smiles, n_nodes in zip(molecules.to_smiles(states), environment.n_nodes(states).tolist(), strict=True):
        fewest[smiles] = min(n_nodes, fewest.get(smiles, n_nodes))
        most[smiles] = max(n_nodes, most.get(smiles, n_nodes))
    assert Counter(fewest.values()) == {1: 4, 2: 13, 3: 37, 4: 111}
    assert sum(fewest[smiles] < most[smiles] for smiles in fewest) == 9
    found = {smiles: environment.n_nodes(molecules.from_molecule(smiles)).item() for smiles in fewest}
    assert found == fewest


@each(
    "smiles,near",
    [
        ("Br/C=C/Br", "BrC=CBr"),  # stereochemistry
        ("CBr.CBr", "CBr"),  # two components
        ("[13CH3]Br", "CBr"),  # isotope
        ("[CH2]Br", "CBr"),  # radical
        ("CC(Br)(Br)Br", "CC"),  # an attachment atom used three times
        ("NC(Br)N1CCCCC1", "C1CCNCC1"),  # twice
        ("C[SH](C)C", "CS"),  # three times, with as many hydrogens as once
        ("BrC1CC(Br)C1", "BrC1CCCCC1"),  # a ring that is no fragment
        ("BrC#CBr", "BrC=CBr"),  # a bond that no fragment has
        ("C1CC", None),  # no SMILES
        ("", None),
        ("CC" * 100, None),
    ],
)
def test_what_cannot_be_cut(molecules, smiles, near):
    assert molecules.from_molecule(smiles) is None
    if near:
        assert molecules.from_molecule(near) is not None


def test_no_more_fragments_than_slots(environment, molecules):
    three = chain(environment, ("Br", None, 0), ("c1ccccc1", 0, 3), ("Cl", 0, None))
    smiles = molecules.to_smiles(three)[0]
    assert FragmentMolecules(FragmentEnvironment(max_fragments=3)).from_molecule(smiles) is not None
    assert FragmentMolecules(FragmentEnvironment(max_fragments=2)).from_molecule(smiles) is None


@needs(TEST_SET)
def test_how_many_of_the_test_set_can_be_cut(environment, molecules, test_set):
    cut = [molecules.from_molecule(smiles) for smiles in test_set]
    sizes = Counter(environment.n_nodes(concatenate([state for state in cut if state is not None])).tolist())
    assert (len(test_set), len(set(test_set)), cut.count(None)) == (950, 891, 40)
    assert sizes == {2: 102, 3: 57, 4: 36, 5: 25, 6: 22, 7: 21, 8: 647}


@needs(TEST_SET)
def test_another_test_set_is_refused(tmp_path, test_set):
    path = tmp_path / TEST_SET
    with pytest.raises(ExperimentError, match=r"put seh_test_set\.csv there"):
        read_seh_test_set(path)
    content = (SHARED / TEST_SET).read_bytes()
    path.write_bytes(content)
    assert read_seh_test_set(path) == test_set
    path.write_bytes(content + b"C\n")
    with pytest.raises(ExperimentError, match="is not the published test set"):
        read_seh_test_set(path)


def test_generated_test_set(environment, molecules):
    smiles = generated_test_set(environment, 100, seed=5)
    assert (
        smiles == generated_test_set(environment, 100, seed=5) == generated_test_set(FragmentEnvironment(), 100, seed=5)
    )
    assert len(set(smiles)) == 100 and smiles != generated_test_set(environment, 100, seed=6)
    assert all(molecules.from_molecule(one) is not None for one in smiles)


def test_too_few_molecules_to_generate():
    environment = FragmentEnvironment((Fragment("C", (0,)),), max_fragments=2)  # one fragment or two: methane, ethane
    assert sorted(generated_test_set(environment, 2, seed=0)) == ["C", "CC"]
    with pytest.raises(ExperimentError, match="gave 2 distinct molecules"):
        generated_test_set(environment, 3, seed=0)


def test_random_states_are_uniform_over_actions():
    environment = FragmentEnvironment(AMBIGUOUS, max_fragments=2)
    n_states, expected = 20_000, Counter()
    level, weight = environment.initial_states(1), torch.ones(1, dtype=torch.float64)
    for _ in range(environment.max_length):  # every trajectory with its probability
        row, action = environment.legal_actions(level).nonzero(as_tuple=True)
        weight = (weight / environment.legal_actions(level).sum(1))[row]
        level = rows_of(level, row)
        for key, mass in zip(environment.keys(level)[action == 0].tolist(), weight[action == 0].tolist(), strict=True):
            expected[key] += mass
        level, weight = environment.step(rows_of(level, action != 0), action[action != 0]), weight[action != 0]
    assert sum(expected.values()) == pytest.approx(1.0)
    states = random_finished_states(environment, n_states, np.random.default_rng(0))
    counts = Counter(environment.keys(states).tolist())
    assert set(counts) <= set(expected)
    squares = sum((counts[key] - n_states * mass) ** 2 / (n_states * mass) for key, mass in expected.items())
    assert squares < len(expected) + 4 * (2 * len(expected)) ** 0.5
