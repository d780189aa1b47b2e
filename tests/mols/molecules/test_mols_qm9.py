"""QM9: the committed constants and test set are what the package says, and a package that is not there is said."""

from collections import Counter
from importlib.util import find_spec

import numpy as np
import pytest
from each import each
from rdkit import Chem

from mols.common.terminal import ExperimentError
from mols.molecules import qm9
from mols.molecules.qm9 import Qm9, main, read_qm9, read_test_set, rows_of_test_set, write_test_set

needs_qm9 = pytest.mark.skipif(find_spec(qm9.PACKAGE) is None, reason="the extra qm9 is not installed")

HEADER = "Index,SMILES,Stoichiometry,HOMO_au,LUMO_au,HOMO_LUMO_gap_au\n"
PARTS = (
    '1,C,"[4,1,0,0,0]",-0.4,0.1,0.5\n2,CC#N,"[3,2,1,0,0]",-0.3,0.06,0.36\n',
    '5,FC=O,"[1,1,0,1,1]",-0.3,-0.01,0.29\n',
    '9,NCCO,"[7,2,1,1,0]",-0.2,0.1,0.3\n',
)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of four molecules that cannot be imported; returns the folder of its tables."""
    folder = tmp_path / "site" / "aqm9" / "data"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')\n")
    for name, rows in zip(qm9.TABLES, PARTS, strict=True):
        (folder / name).write_text(HEADER + rows)
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.setattr(qm9, "PACKAGE", "aqm9")
    monkeypatch.setattr(qm9, "N_MOLECULES", 4)
    return folder


def test_the_constants_are_those_of_the_paper():
    assert (qm9.GAP_PERCENTILE_5, qm9.GAP_MIN, qm9.GAP_MAX) == (0.176, 0.0246, 0.6221)
    assert qm9.EV_PER_HARTREE == 27.2114


def test_the_committed_test_set_is_of_the_right_molecules():
    smiles, gaps = read_test_set()
    molecules = [Chem.MolFromSmiles(text) for text in smiles]
    sizes = [molecule.GetNumAtoms() for molecule in molecules]
    assert Counter(sizes) == {3: 9, 4: 31, 5: 127, 6: 201, 7: 201, 8: 201}
    assert {atom.GetSymbol() for molecule in molecules for atom in molecule.GetAtoms()} == set("CNOF")
    # SMILES of the package have no stereochemistry: three graphs are there twice, as in QM9.
    assert (len(set(smiles)), len({Chem.MolToSmiles(molecule) for molecule in molecules})) == (770, 767)
    assert (smiles[0], gaps[0]) == ("CC#C", 0.3222)
    assert gaps.shape == (770,) and qm9.GAP_MIN <= gaps.min() < gaps.max() <= qm9.GAP_MAX


@needs_qm9
def test_the_package_says_what_is_committed(tmp_path, capsys):
    assert main(["--test_set", str(tmp_path / "out.csv")]) == 0
    assert capsys.readouterr().out == (
        "gap of 130831 molecules, Hartree: 5th percentile 0.1760, min 0.0246, max 0.6221\n"
        f"770 molecules in {tmp_path / 'out.csv'}\n"
    )
    assert (tmp_path / "out.csv").read_bytes() == qm9.TEST_SET.read_bytes()


def test_molecules_are_read_in_order_and_the_package_is_not_imported(package):
    data = read_qm9()
    assert data.smiles == ["C", "CC#N", "FC=O", "NCCO"]
    assert data.n_heavy.tolist() == [1, 3, 3, 4]
    np.testing.assert_array_equal(data.homo, [-0.4, -0.3, -0.3, -0.2])
    np.testing.assert_array_equal(data.lumo, [0.1, 0.06, -0.01, 0.1])
    np.testing.assert_array_equal(data.gap, [0.5, 0.36, 0.29, 0.3])


def test_the_test_set_takes_the_first_of_each_size():
    sizes = np.random.default_rng(1).integers(1, 10, size=4000)
    data = Qm9([""] * len(sizes), sizes, *np.zeros((3, len(sizes))))
    taken, expected = Counter(), []
    for row, size in enumerate(sizes.tolist()):
        if 3 <= size <= 8 and taken[size] < 201:
            taken[size] += 1
            expected.append(row)
    assert len(expected) == 6 * 201
    assert rows_of_test_set(data).tolist() == expected


def test_what_is_written_is_read(tmp_path, package):
    assert write_test_set(read_qm9(), tmp_path / "a.csv") == 3
    assert (tmp_path / "a.csv").read_text() == "smiles,gap\nCC#N,0.3600\nFC=O,0.2900\nNCCO,0.3000\n"
    smiles, gaps = read_test_set(tmp_path / "a.csv")
    assert smiles == ["CC#N", "FC=O", "NCCO"] and gaps.tolist() == [0.36, 0.29, 0.3]


def fails(capsys, *argv):
    status = main(list(argv))
    out, err = capsys.readouterr()
    assert status == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


def test_a_missing_package_is_said(monkeypatch, capsys):
    monkeypatch.setattr(qm9, "PACKAGE", "no_such_package")
    assert "no_such_package, which is not installed: pip install -e '.[qm9]'" in fails(capsys)


def test_a_folder_of_that_name_is_no_package(tmp_path, monkeypatch, capsys):
    (tmp_path / "bqm9").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(qm9, "PACKAGE", "bqm9")
    assert "bqm9, which is not installed" in fails(capsys)


BROKEN = {
    "a table is missing": (None, "No such file"),
    "a column is missing": ("Index,SMILES\n1,C\n", "has no column Stoichiometry"),
    "a table is empty": ("", "has no column SMILES"),
    "no number": (HEADER + '5,FC=O,"[1,1,0,1,1]",-0.3,-0.01,wide\n', "could not convert"),
    "no formula": (HEADER + "5,FC=O,CHFO,-0.3,-0.01,0.3\n", "invalid literal"),
    "no UTF-8": (b"\xff\xfe", "codec"),
    "a stray quote": (HEADER + '5,"FC=O,"[1,1,0,1,1]",-0.3,-0.01,0.29\n', "qm9_part2.csv, line 2 is no row"),
    "another number of molecules": (HEADER, "has 3 molecules, not 4"),
}


@each("case", BROKEN)
def test_another_package_is_refused(package, capsys, case):
    content, reason = BROKEN[case]
    path = package / qm9.TABLES[1]
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    err = fails(capsys)
    assert reason in err and f"install {qm9.PACKAGE} 1.0.3" in err


def test_an_existing_file_is_left_as_it_is(tmp_path, package, capsys):
    (tmp_path / "a.csv").write_text("precious")
    err = fails(capsys, "--test_set", str(tmp_path / "a.csv"))
    assert "a.csv exists: delete it, or choose another name" in err
    assert (tmp_path / "a.csv").read_text() == "precious"


@each("content", [None, "", "smiles\nC\n", "smiles,gap\nC\n", "smiles,gap\nC,wide\n", "smiles,gap\n"])
def test_another_test_set_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "a.csv").write_text(content)
    with pytest.raises(ExperimentError, match=r"is not the QM9 test set .*: fetch it"):
        read_test_set(tmp_path / "a.csv")
