"""Molecules as arrays for the sEH network: columns and edges, what is refused, batches, worker processes."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from each import each
from rdkit import Chem

from mols.common.terminal import ExperimentError
from mols.rewards.seh.features import N_FEATURES, Featuriser, atom_features, collate, featurise

ROOT = Path(__file__).resolve().parents[3]

SMILES = [
    "CCO",
    "O",  # no bonds
    "[Na+].[Cl-]",  # no bonds, two atoms
    "C.CC",  # an atom without a bond beside a bond: no self-loop
    "N#Cc1ccncc1",
    "CC(=O)Oc1ccccc1C(=O)O",
    "O=S(=O)(c1ccccc1)N1CCOCC1",
    "O=[PH]([O-])Br",
    "CC(=O)NCc1nc2c(ncn2C2C(c3cn([NH+]4CCOCC4)c(=O)[nH]c3=O)OCC2[n+]2ccccc2)c(=O)[nH]1",
    "FC(I)=C=C",
]


def molecules(*smiles):
    return [Chem.MolFromSmiles(text) for text in smiles or SMILES]


def graphs(*smiles):
    return [featurise(molecule) for molecule in molecules(*smiles)]


def slow_features(molecule):
    """(n, 71) an atom's features, column by column, as the published code lays them out."""
    rows = []
    for atom in molecule.GetAtoms():
        row = [float(atom.GetSymbol() == symbol) for symbol in ("H", "C", "N", "O", "F")]
        row += [float(atom.GetSymbol() not in ("H", "C", "N", "O", "F"))]
        row += [0.0, 0.0, 0.0]  # atomic number, acceptor, donor: not used
        row += [float(atom.GetIsAromatic())]
        row += [float(str(atom.GetHybridization()) == name) for name in ("SP", "SP2", "SP3")]
        row += [float(atom.GetTotalNumHs(includeNeighbors=True))]
        row += [float(atom.GetAtomicNum() == number) for number in range(1, 57)]
        rows.append([*row, 0.0])
    return np.array(rows)


def test_features_are_the_published_columns():
    for molecule in [*molecules(), Chem.AddHs(Chem.MolFromSmiles("CC#N")), Chem.MolFromSmiles("[BaH2]")]:
        features = atom_features(featurise(molecule).atoms)
        assert features.dtype == np.float32 and features.shape[1] == N_FEATURES == 71
        np.testing.assert_array_equal(features, slow_features(molecule))


def test_features_of_pyrrole_by_hand():
    columns = [{int(c) for c in row.nonzero()[0]} for row in atom_features(graphs("c1cc[nH]c1")[0].atoms)]
    carbon, nitrogen = {1, 9, 11, 13, 14 + 5}, {2, 9, 11, 13, 14 + 6}
    assert columns == [carbon, carbon, carbon, nitrogen, carbon]


def test_edges_are_the_bonds_in_both_directions():
    for molecule in molecules("N#CC=Cc1ccccc1"):
        order = {"SINGLE": 0, "DOUBLE": 1, "TRIPLE": 2, "AROMATIC": 3}
        expected = set()
        for bond in molecule.GetBonds():
            i, j, kind = bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), order[str(bond.GetBondType())]
            expected |= {(i, j, kind), (j, i, kind)}
        edges = featurise(molecule).edges.tolist()
        assert set(map(tuple, edges)) == expected and len(edges) == len(expected)


def test_only_a_molecule_without_bonds_gets_a_self_loop_at_its_first_atom():
    assert [graph.edges.tolist() for graph in graphs("O", "[Na+].[Cl-]")] == [[[0, 0, 4]], [[0, 0, 4]]]
    assert graphs("C.CC")[0].edges.tolist() == [[1, 2, 0], [2, 1, 0]]


def test_a_molecule_that_changed_is_seen_as_it_is_now():
    molecule = Chem.MolFromSmiles("CC")
    Chem.GetAdjacencyMatrix(molecule, useBO=True)  # RDKit keeps it
    molecule.GetBondWithIdx(0).SetBondType(Chem.BondType.DOUBLE)
    assert featurise(molecule).edges[:, 2].tolist() == [1, 1]


def test_collating_shifts_edges_and_leaves_its_input():
    one, two = graphs("CO", "O")
    before = [one.edges.copy(), two.edges.copy()]
    batch = collate([two, one, one])
    assert batch.sizes.tolist() == [1, 2, 2]
    assert batch.edges.tolist() == [[0, 0, 4], [1, 2, 0], [2, 1, 0], [3, 4, 0], [4, 3, 0]]
    np.testing.assert_array_equal(one.edges, before[0])
    np.testing.assert_array_equal(two.edges, before[1])


REFUSED = {"": "elements", "*C": "elements", "[Au]": "elements", "C~C": "bonds", "C$C": "bonds", "N->[Fe]": "bonds"}


@each("smiles", REFUSED)
def test_what_the_network_does_not_know_is_refused(smiles):
    with pytest.raises(ExperimentError, match=REFUSED[smiles]):
        featurise(Chem.MolFromSmiles(smiles))


def test_workers_give_the_same_and_end():
    featuriser = Featuriser(workers=1)  # two: the slow test of the reward
    assert multiprocessing.active_children() == []  # not before they are needed
    try:
        for many in (molecules() * 3, []):
            for found, expected in zip(featuriser(many), Featuriser()(many), strict=True):
                np.testing.assert_array_equal(found.atoms, expected.atoms)
                np.testing.assert_array_equal(found.edges, expected.edges)
        with pytest.raises(ExperimentError, match="elements"):
            featuriser(molecules("CCO", "[Au]", "CC"))
        (child,) = multiprocessing.active_children()
    finally:
        featuriser.close()
    assert not child.is_alive()
    featuriser.close()  # twice does no harm


@pytest.mark.slow
def test_a_worker_that_dies_is_said():
    featuriser = Featuriser(workers=1)
    try:
        featuriser(molecules("CCO"))
        (child,) = multiprocessing.active_children()
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        with pytest.raises(ExperimentError, match="fewer --workers"):
            featuriser(molecules("CCO"))
    finally:
        featuriser.close()


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import multiprocessing, time\nfrom rdkit import Chem\nfrom mols.rewards.seh.features import Featuriser\n"
        "if __name__ == '__main__':\n"
        "    Featuriser(workers=1)([Chem.MolFromSmiles('CCO')])\n"
        "    print(multiprocessing.active_children()[0].pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        worker = Path("/proc") / parent.stdout.readline().strip()
        assert worker.is_dir()
        parent.kill()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and worker.is_dir() and " Z " not in (worker / "stat").read_text():
        time.sleep(0.1)
    assert not worker.is_dir() or " Z " in (worker / "stat").read_text()
