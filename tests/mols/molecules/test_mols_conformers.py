"""Conformers: the lowest of five, one for a molecule, none where there is none; worker processes."""

import csv
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from each import each
from rdkit import Chem
from rdkit.Chem import rdDistGeom
from rdkit.Chem.rdForceFieldHelpers import MMFFGetMoleculeForceField, MMFFGetMoleculeProperties

import mols
from mols.molecules import conformers
from mols.molecules.conformers import ConformerMap, conformer

SMILES = ["CCO", "C", "N#CC=O", "CC(N)C(C)O", "Nc1cnoc1", "C[NH3+]", "CCCCCO", "O=CNC1CC1"]


def embedded(smiles):
    """A molecule with its hydrogens and five conformers."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(smiles))
    parameters = rdDistGeom.ETKDGv3()
    parameters.useSmallRingTorsions, parameters.randomSeed = True, conformers.SEED
    rdDistGeom.EmbedMultipleConfs(molecule, 5, parameters)
    return molecule


def energy(molecule, positions, variant="MMFF94s"):
    """kcal/mol at (n, 3) positions."""
    properties = MMFFGetMoleculeProperties(molecule, mmffVariant=variant)
    return MMFFGetMoleculeForceField(molecule, properties).CalcEnergy(positions.flatten().tolist())


def test_it_is_the_lowest_of_five():
    best = []
    for smiles in SMILES:
        molecule = embedded(smiles)
        positions = [one.GetPositions() for one in molecule.GetConformers()]
        energies = [energy(molecule, one) for one in positions]
        assert len(energies) == 5
        best.append(int(np.argmin(energies)))
        np.testing.assert_array_equal(conformer(smiles).positions, positions[best[-1]])
    assert len(set(best)) > 2  # not just the first


def test_energies_are_of_mmff94s():
    molecule = embedded("O=CNC1CC1")
    found = conformers._energies(molecule, [0, 3])
    positions = {i: molecule.GetConformer(i).GetPositions() for i in (0, 3)}
    assert found == pytest.approx({i: energy(molecule, one) for i, one in positions.items()}, abs=1e-9)
    assert found[0] != pytest.approx(energy(molecule, positions[0], "MMFF94"), abs=1e-3)


def test_atoms_and_bonds_are_the_molecules():
    structure = conformer("C#N")
    assert structure.numbers.tolist() == [6, 7, 1]
    assert sorted(map(tuple, np.sort(structure.bonds).tolist())) == [(0, 1), (0, 2)]
    assert structure.positions.shape == (3, 3) and structure.positions.dtype == np.float64
    lengths = np.linalg.norm(structure.positions[[1, 2]] - structure.positions[0], axis=1)
    assert lengths == pytest.approx([1.16, 1.07], abs=0.06)  # Angstrom
    assert conformer("[F-]").bonds.shape == (0, 2)


def test_a_chiral_centre_keeps_its_hand():
    volumes = []
    for smiles in ("N[C@@H](F)C", "N[C@H](F)C"):
        p = conformer(smiles).positions
        volumes.append(np.linalg.det(p[[0, 2, 3]] - p[1]))
    assert volumes[0] * volumes[1] < 0 and min(map(abs, volumes)) > 0.5


@pytest.mark.slow
def test_ten_of_the_pages_thirty_best_molecules_of_qm9_have_none():
    with (Path(mols.__file__).parent / "results" / "molecules" / "qm9_best.csv").open(newline="") as file:
        smiles = [row["smiles"] for row in csv.DictReader(file)]
    assert (len(smiles), sum(conformer(each) is None for each in smiles)) == (30, 10)


def test_a_molecule_has_one_conformer():
    for smiles in SMILES[:3]:
        np.testing.assert_array_equal(conformer(smiles).positions, conformer(smiles).positions)


@each("smiles", ["C1#CC1", "not a molecule", "C1CC", "F(C)(C)C", ""])
def test_there_may_be_none(smiles, capfd):
    assert conformer(smiles) is None
    assert capfd.readouterr() == ("", "")


def test_where_mmff_does_not_know_the_molecule_it_is_the_first(capfd):
    molecule = embedded("C[F+]C")
    assert MMFFGetMoleculeProperties(molecule, mmffVariant="MMFF94s") is None
    capfd.readouterr()
    np.testing.assert_array_equal(conformer("C[F+]C").positions, molecule.GetConformer(0).GetPositions())
    assert capfd.readouterr() == ("", "")


def test_where_rdkit_fails_at_small_rings_it_does_without(monkeypatch):
    embed, asked = rdDistGeom.EmbedMultipleConfs, []

    def failing(molecule, n_conformers, parameters):
        asked.append(parameters.useSmallRingTorsions)
        if parameters.useSmallRingTorsions:
            raise RuntimeError("Invariant Violation")
        return embed(molecule, n_conformers, parameters)

    monkeypatch.setattr(conformers, "EmbedMultipleConfs", failing)
    assert conformer("CCO").positions.shape == (9, 3) and asked == [True, False]


def test_where_rdkit_fails_altogether_there_is_none(monkeypatch):
    def failing(*_):
        raise RuntimeError("Invariant Violation")

    monkeypatch.setattr(conformers, "EmbedMultipleConfs", failing)
    assert conformer("CCO") is None


def test_bicyclobutane_has_one(capfd):
    assert conformer("C1C2CC12").numbers.tolist() == [6] * 4 + [1] * 6
    assert capfd.readouterr() == ("", "")


def test_workers_give_the_same_and_end():
    many, few = ConformerMap(workers=1), ConformerMap()
    assert multiprocessing.active_children() == []
    try:
        smiles = ["CCO", "C1#CC1", "N#CC=O"]
        found, expected = many(smiles), few(smiles)
        assert found[1] is None is expected[1]
        for i in (0, 2):
            for one, other in zip(found[i], expected[i], strict=True):
                np.testing.assert_array_equal(one, other)
        assert len(multiprocessing.active_children()) == 1 and many([]) == []
    finally:
        many.close()
    assert multiprocessing.active_children() == []
