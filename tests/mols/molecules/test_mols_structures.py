"""The JSON of molecules in space: what is read, and a refusal for everything that is wrong with one."""

import json

import numpy as np
import pytest
from each import each

from mols.common.terminal import ExperimentError
from mols.molecules.structures import read_structures

WATER = {
    "smiles": "O",
    "atomic_numbers": [8, 1, 1],
    "positions": [[0, 0.4, 0.0], [-0.76, -0.2, 0.0], [0.76, -0.2, 0.0]],
    "bonds": [[0, 1], [0, 2]],
}


ELEMENTS = (1, 2, 8)


def write(path, *molecules, **more):
    path.write_text(json.dumps({"note": "any", "molecules": molecules} | more))
    return path


def test_molecules_are_read_as_they_stand_there(tmp_path):
    atom = {"smiles": "[He]", "atomic_numbers": [2], "positions": [[0, 0, 1]], "bonds": [], "output": 3}
    (first, water), (second, helium) = read_structures(write(tmp_path / "a.json", WATER, atom), ELEMENTS)
    assert (first, second) == ("O", "[He]")
    assert [x.tolist() for x in water] == [WATER["atomic_numbers"], WATER["positions"], WATER["bonds"]]
    assert [x.tolist() for x in helium] == [[2], [[0, 0, 1]], []]
    for structure in (water, helium):
        assert [x.dtype for x in structure] == [np.int64, np.float64, np.int64]
        assert structure.bonds.shape[1] == 2
    assert read_structures(write(tmp_path / "b.json"), ELEMENTS) == []


FAR = [[0, 0, 0], [1, 0, 0], [float("inf"), 0, 0]]
WRONG = {
    "atomic_numbers": {
        "no list of whole numbers": ([], 6, "CHH", ["C", "H", "H"], [8.0, 1, 1], [[8, 1, 1]], [8, 1, None], {}),
        "atomic number 7 is none of 1, 2, 8: leave": ([8, 1, 7], [8, 7, 7, 7]),
        "atomic number -8 is none of": ([-8, 1, 1],),
        "atomic number 18446744073709551615 is none of": ([2**64 - 1] * 3,),
        "3 positions": ([8, 1], [8, 1, 1, 1]),
    },
    "positions": {
        "no list of three numbers": (None, [0, 1, 2], [[0, 1]] * 3, [[0, 0, 0], [1, 1]], [["0", "0", "0"]] * 3, FAR),
        "3 atomic_numbers and 0 positions": ([],),
        "3 atomic_numbers and 2 positions": ([[0, 0, 0], [0, 0, 1]],),
        "less than 0.1 Angstrom apart": ([[0, 0, 0], [0, 0, 1], [0.05, 0, 1]],),
    },
    "bonds": {
        "no list of pairs": (3, [0, 1], [[0, 1, 2]], [[0, 1], [2]], [[0, 1.0]], [["0", "1"]], [[0, 10**30]]),
        "does not join two of its 3 atoms: count atoms from 0": ([[1, 3]], [[0, -1]], [[1, 1]]),
        "join the same atoms: give every bond once": ([[0, 1], [1, 0]], [[0, 1], [0, 2], [0, 1]]),
    },
}
CASES = [
    (field, value, message)
    for field, messages in WRONG.items()
    for message, values in messages.items()
    for value in values
]


@each("field,value,message", CASES)
def test_a_wrong_field_is_said_with_its_molecule(tmp_path, field, value, message):
    path = write(tmp_path / "a.json", WATER, WATER | {field: value})
    with pytest.raises(ExperimentError) as error:
        read_structures(path, ELEMENTS)
    text = str(error.value)
    assert text.startswith(f"{path}, molecule 2 (O): ") and message in text and "\n" not in text


@pytest.mark.parametrize("field", WATER)
def test_a_missing_field_is_named(tmp_path, field):
    lacking = {name: value for name, value in WATER.items() if name != field}
    with pytest.raises(ExperimentError, match=f"a.json, molecule 1 has no {field}: add it"):
        read_structures(write(tmp_path / "a.json", lacking), ELEMENTS)


def test_all_missing_fields_are_named(tmp_path):
    with pytest.raises(ExperimentError, match="has no atomic_numbers and no positions and no bonds: add"):
        read_structures(write(tmp_path / "a.json", {"smiles": "O"}), ELEMENTS)


@pytest.mark.parametrize(
    ("molecule", "message"), [(3, "is not an object"), (WATER | {"smiles": 5}, "smiles is not text")]
)
def test_a_molecule_that_is_none_is_said(tmp_path, molecule, message):
    with pytest.raises(ExperimentError, match=f"molecule 3.* {message}"):
        read_structures(write(tmp_path / "a.json", WATER, WATER, molecule), ELEMENTS)


@each("text", ["", "{", "[1, 2", b"\xff\xfe\x00", "[" * 100_000, '{"molecules": [}'])
def test_what_is_no_json_is_said(tmp_path, text):
    (tmp_path / "a.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ExperimentError, match=r"a\.json is not JSON .*: name a JSON of molecules"):
        read_structures(tmp_path / "a.json", ELEMENTS)


@each("content", [[], {}, 3, None, "molecules", {"molecules": {}}, {"molecules": None}, [WATER]])
def test_a_json_without_molecules_is_said(tmp_path, content):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ExperimentError, match=r'a\.json has no list of molecules: write it as \{"molecules"'):
        read_structures(tmp_path / "a.json", ELEMENTS)


def test_a_file_that_cannot_be_read_is_said(tmp_path):
    for path, reason in ((tmp_path / "none.json", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(ExperimentError, match=f"cannot read .*{reason}.*: name a JSON"):
            read_structures(path, ELEMENTS)
