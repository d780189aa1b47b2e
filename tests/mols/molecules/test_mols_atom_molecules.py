"""Graphs of atoms as molecules: RDKit both ways, QM9's molecules taken apart and rebuilt, invalid ones counted."""

import csv
from itertools import combinations, combinations_with_replacement, product
from pathlib import Path

import numpy as np
import pytest
import torch
from each import each
from rdkit import Chem
from rdkit.Chem.Descriptors import NumRadicalElectrons

from mols.environments.atom_moves import ATOM, BOND
from mols.environments.atom_vocabulary import CHIRALITY, HYDROGENS, NEUTRAL, NO_IMPLICIT, AtomVocabulary
from mols.environments.atoms import AtomEnvironment
from mols.environments.base import concatenate, finished_states, rows_of
from mols.molecules.atoms import AtomMolecules
from mols.molecules.reference_set import random_finished_states

# Of QM9's molecules (qm9pack 1.0.3) of n = 1..8 heavy atoms, in its order, every (count // 48)th up to 48 for each n;
# then, for each multiset of charged atoms, the first 8.
SAMPLE = Path(__file__).parent / "qm9_sample.csv"
CHIRAL = ["C[C@H](N)O", "C[C@@H](N)O", "C[C@](N)(O)F", "F[C@H]1CO[C@@H]1N", "F[C@H]1CO[C@H]1N", "N[C@@]12C[C@@H]1O2"]


@pytest.fixture(scope="module")
def environment():
    return AtomEnvironment()


@pytest.fixture(scope="module")
def molecules(environment):
    return AtomMolecules(environment)


@pytest.fixture(scope="module")
def sample():
    with SAMPLE.open(newline="") as file:
        return [Chem.CanonSmiles(row["smiles"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def states(molecules, sample):
    """The sample's states."""
    return concatenate([molecules.from_molecule(smiles) for smiles in sample])


def taken_apart(environment, states, rng):
    """(running rows, child, backward action, parent, forward action) of each step of random backward trajectories."""
    running = torch.arange(len(states.element))
    while len(running):
        legal = environment.backward_mask(states)
        assert legal.any(1).all()
        backward = (legal * torch.from_numpy(rng.random(legal.shape))).argmax(1)
        parents, forward = environment.backward_step(states, backward)
        assert environment.legal_actions(parents).gather(1, forward[:, None]).all()
        yield running, states, backward, parents, forward
        goes_on = ~environment.is_empty(parents)
        states, running = rows_of(parents, goes_on), running[goes_on]


def rebuilt(environment, n_states, steps):
    """The states that the reversed trajectories lead to from s_0, where no slot is left empty."""
    rows = environment.moves.forward.T.tolist()
    number = {tuple(row): action for action, row in enumerate(rows)}
    states, slots = environment.initial_states(n_states), [{} for _ in range(n_states)]  # old slot -> new one
    for running, _, backward, _, forward in reversed(steps):
        actions = []
        for row, old, action in zip(running.tolist(), backward.tolist(), forward.tolist(), strict=True):
            (kind, here, there, value), name = rows[action], slots[row]
            here = name.get(here, 0)
            there = name[there] if kind == BOND else there
            here, there = sorted((here, there)) if kind == BOND else (here, there)
            actions.append(number[kind, here, there, value])
            if kind == ATOM:
                name[old] = len(name)
        before, actions = rows_of(states, running), torch.tensor(actions)
        assert environment.legal_actions(before).gather(1, actions[:, None]).all()
        for tensor, after in zip(states, environment.step(before, actions), strict=True):
            tensor[running] = after
    return states


def permuted(smiles, rng):
    """The molecule with its atoms in another order."""
    molecule = Chem.MolFromSmiles(smiles)
    return Chem.RenumberAtoms(molecule, rng.permutation(molecule.GetNumAtoms()).tolist())


def test_sample_goes_there_and_back(environment, molecules, sample, states):
    assert len(sample) == len(set(sample)) == 261
    assert molecules.to_smiles(states) == sample
    assert (environment.room(states) >= 0).all() and environment.forward_mask(states).stop.all()
    assert not states.attribute[..., [HYDROGENS, NO_IMPLICIT]].any()  # RDKit counts them itself


def test_sample_is_taken_apart_and_rebuilt(environment, molecules, sample, states):
    for seed in range(2):
        steps = list(taken_apart(environment, states, np.random.default_rng(seed)))
        assert molecules.to_smiles(rebuilt(environment, len(sample), steps)) == sample


def test_order_of_atoms_makes_no_difference(molecules, sample):
    rng = np.random.default_rng(0)
    again = [molecules.from_molecule(permuted(smiles, rng)) for smiles in [*sample[::3], *CHIRAL]]
    assert molecules.to_smiles(concatenate(again)) == [*sample[::3], *map(Chem.CanonSmiles, CHIRAL)]


@each("smiles", CHIRAL)
def test_chirality_survives_whatever_the_slots(environment, molecules, smiles):
    rng, expected = np.random.default_rng(0), Chem.CanonSmiles(smiles)
    states = concatenate([molecules.from_molecule(permuted(smiles, rng)) for _ in range(40)])
    assert molecules.to_smiles(states) == [expected] * 40
    assert len(set(states.attribute[..., CHIRALITY].flatten().tolist())) == 3  # none, and both ways round
    for _, child, _, parent, forward in taken_apart(environment, states, rng):
        assert molecules.to_smiles(environment.step(parent, forward)) == molecules.to_smiles(child)


def test_a_chirality_without_a_meaning_is_not_there(environment, molecules):
    states = concatenate([molecules.from_molecule(smiles) for smiles in ("CC(C)O", "CC(F)O")])
    states.attribute[:, 1, CHIRALITY] = 1
    tags = [molecule.GetAtomWithIdx(1).GetChiralTag() for molecule in molecules.to_molecules(states)]
    assert tags == [Chem.ChiralType.CHI_UNSPECIFIED, Chem.ChiralType.CHI_TETRAHEDRAL_CW]


@each(
    "smiles",
    [
        "[CH3]",
        "[CH2]",
        "[CH2]O",
        "[O]",
        "[CH3+]",
        "[CH3-]",
        "[NH4+]",
        "[F-]",
        "C[O-]",
        "C[NH-]",
        "O=[N+]([O-])C",
        "CN=O",
        "[C-]#[N+]C",
        "[N-]=[N+]=C",
        "F",
        "c1cc[nH]c1",
        "c1ccncc1",
        "O=c1cc[nH]cn1",
        "C1CC12CC2",
        "N#CC#N",
    ],
)
def test_molecules_by_hand(molecules, smiles):
    assert molecules.to_smiles(molecules.from_molecule(smiles)) == [Chem.CanonSmiles(smiles)]


def test_hydrogens_are_stated_where_rdkit_would_count_others(molecules):
    states = concatenate([molecules.from_molecule(smiles) for smiles in ("[CH2]O", "[C]O", "CO")])
    assert states.attribute[:, 0, [HYDROGENS, NO_IMPLICIT]].tolist() == [[2, 1], [0, 1], [0, 0]]


def test_five_valent_nitrogen_is_read_as_charges(environment, molecules):
    states = environment.initial_states(1)
    states.element[0, :4] = torch.tensor([0, 1, 3, 3])  # CN(=O)=O
    for i, j, bond in [(0, 1, 1), (1, 2, 2), (1, 3, 2)]:
        states.bond[0, i, j] = states.bond[0, j, i] = bond
    assert molecules.to_smiles(states) == [Chem.CanonSmiles("C[N+](=O)[O-]")]


@each(
    "smiles,near",
    [
        ("F/C=C/F", "FC=CF"),  # the geometry of a double bond
        ("C.C", "C"),  # two components
        ("[13CH4]", "C"),  # an isotope
        ("CS", "CO"),  # another element
        ("C[OH+]C", "C[OH2+]"),  # a charge makes no room
        ("[CH2-2]", "[CH3-]"),  # a charge that there is not
        ("CCCCCCCCC", "CCCCCCCC"),  # more atoms than slots
        ("F->C", "FC"),  # another type of bond
        ("C1CC", None),  # no SMILES
        ("", None),
    ],
)
def test_what_has_no_state(molecules, smiles, near):
    assert molecules.from_molecule(smiles) is None
    if near:
        assert molecules.from_molecule(near) is not None


def test_a_smaller_vocabulary_has_fewer_molecules():
    molecules = AtomMolecules(AtomEnvironment(AtomVocabulary(no_implicit=(False,), bonds=(1, 2)), 3))
    assert molecules.from_molecule("C=C") is not None
    assert [molecules.from_molecule(smiles) for smiles in ("C#C", "[CH3]", "CCCC")] == [None] * 3


def test_unfinished_states_are_no_molecules(environment, molecules):
    with pytest.raises(ValueError, match="cannot stop"):
        molecules.to_molecules(environment.initial_states(1))


def test_an_impossible_valence_is_no_molecule(environment, molecules):
    states = environment.initial_states(2)
    states.element[:, :2] = 2  # F-F, F=F
    states.bond[:, 0, 1] = states.bond[:, 1, 0] = torch.tensor([1, 2])
    assert molecules.to_smiles(states) == ["FF", None]


@pytest.mark.parametrize("elements", [("C", "N", "F", "O"), ("N", "O")])
def test_no_random_walk_ends_in_an_invalid_molecule(elements):
    environment, rng = AtomEnvironment(AtomVocabulary(elements=elements)), np.random.default_rng(0)
    states = random_finished_states(environment, 600, rng)
    grown = environment.initial_states(600)
    for _ in range(environment.max_length):  # until nothing but stop is left
        legal = environment.legal_actions(grown)
        legal[:, 0] &= ~legal[:, 1:].any(1)
        assert legal.any(1).all()
        grown = environment.step(grown, (legal * torch.from_numpy(rng.random(legal.shape))).argmax(1))
    built = AtomMolecules(environment).to_molecules(concatenate([states, grown]))
    assert built.count(None) == 0
    assert len({Chem.MolToSmiles(molecule) for molecule in built}) > 400
    assert max(molecule.GetNumAtoms() for molecule in built) == 8


# Neutral molecules alone


VALENCE = {"C": 4, "N": 3, "O": 2, "F": 1}


def neutral_smiles(n_atoms):
    """Of every connected graph of so many neutral atoms within their valences, by plain loops."""
    found, pairs = set(), list(combinations(range(n_atoms), 2))
    for symbols in combinations_with_replacement(VALENCE, n_atoms):
        for orders in product(range(4), repeat=len(pairs)):
            bonds = {pair: order for pair, order in zip(pairs, orders, strict=True) if order}
            used = [sum(order for pair, order in bonds.items() if i in pair) for i in range(n_atoms)]
            if any(order > VALENCE[symbol] for order, symbol in zip(used, symbols, strict=True)):
                continue
            molecule = Chem.RWMol()
            for symbol in symbols:
                molecule.AddAtom(Chem.Atom(symbol))
            for (i, j), order in bonds.items():
                molecule.AddBond(i, j, [Chem.BondType.SINGLE, Chem.BondType.DOUBLE, Chem.BondType.TRIPLE][order - 1])
            if len(Chem.GetMolFrags(molecule)) == 1:
                Chem.SanitizeMol(molecule)
                found.add(Chem.MolToSmiles(molecule))
    return found


def is_neutral(molecule):
    charges = any(atom.GetFormalCharge() for atom in molecule.GetAtoms())
    return not charges and NumRadicalElectrons(molecule) == 0


def test_neutral_molecules_of_few_atoms_are_all_there_are_and_no_others():
    environment = AtomEnvironment(NEUTRAL, 4)
    states, _ = finished_states(environment)
    found = AtomMolecules(environment).to_molecules(states)
    assert all(map(is_neutral, found))
    flat = {Chem.MolToSmiles(molecule, isomericSmiles=False) for molecule in found}
    assert flat == set.union(*map(neutral_smiles, range(1, 5)))


def test_neutral_walks_of_full_size_end_in_neutral_molecules():
    environment, rng = AtomEnvironment(NEUTRAL), np.random.default_rng(0)
    states = random_finished_states(environment, 600, rng)
    built = AtomMolecules(environment).to_molecules(states)
    assert all(map(is_neutral, built)) and max(molecule.GetNumAtoms() for molecule in built) == 8


def test_of_qm9_the_neutral_environment_has_the_molecules_without_charges(sample):
    environment = AtomEnvironment(NEUTRAL)
    molecules = AtomMolecules(environment)
    found = [molecules.from_molecule(smiles) for smiles in sample]
    uncharged = [smiles for smiles in sample if is_neutral(Chem.MolFromSmiles(smiles))]
    assert [smiles for smiles, state in zip(sample, found, strict=True) if state is not None] == uncharged
    assert 100 < len(uncharged) < len(sample)
    states = concatenate([state for state in found if state is not None])
    for seed in range(2):
        steps = list(taken_apart(environment, states, np.random.default_rng(seed)))
        assert molecules.to_smiles(rebuilt(environment, len(uncharged), steps)) == uncharged
