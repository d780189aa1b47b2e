"""The command of MXMNet: what it writes, and one sentence for each thing that can be wrong with what it is given."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mols.molecules.structures import read_structures
from mols.rewards.mxmnet.graph import ELEMENTS
from mols.rewards.mxmnet.network import MXMNet, main

ROOT = Path(__file__).resolve().parents[3]
WATER = {
    "smiles": "O",
    "atomic_numbers": [8, 1, 1],
    "positions": [[0, 0.4, 0.0], [-0.76, -0.2, 0.0], [0.76, -0.2, 0.0]],
    "bonds": [[0, 1], [0, 2]],
}
FLUORINE = {"smiles": 'F,"F', "atomic_numbers": [9, 9], "positions": [[0, 0, 0], [0, 0, 1.4]], "bonds": [[0, 1]]}


@pytest.fixture(scope="module")
def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return MXMNet()


@pytest.fixture
def given(tmp_path, network):
    """The command's arguments: two molecules and weights for them in a folder; its output is raw.csv."""
    (tmp_path / "in.json").write_text(json.dumps({"molecules": [WATER, FLUORINE]}))
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    return [str(tmp_path / "in.json"), "--weights", str(tmp_path / "weights.pt"), "--out", str(tmp_path / "raw.csv")]


def require_written(folder, network):
    values = network([structure for _, structure in read_structures(folder / "in.json", ELEMENTS)]).tolist()
    with (folder / "raw.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["smiles", "raw"] and [row[0] for row in rows] == ["O", 'F,"F']
    assert [float(row[1]) for row in rows] == pytest.approx(values, abs=1e-6) and values[0] != values[1]


def test_the_command_writes_a_row_for_each_molecule(given, tmp_path, network, capsys):
    assert main(given) == 0
    assert capsys.readouterr() == (f"2 molecules in {tmp_path / 'raw.csv'}\n", "")
    require_written(tmp_path, network)


def test_the_command_as_it_is_typed(given, tmp_path, network):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "mols.rewards.mxmnet.network",
        "in.json",
        "--weights",
        "weights.pt",
        "--out",
        "raw.csv",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 molecules in raw.csv\n", "")
    require_written(tmp_path, network)


def test_no_molecules_make_no_rows(given, tmp_path, capsys):
    (tmp_path / "in.json").write_text('{"molecules": []}')
    assert main(given) == 0 and capsys.readouterr().out.startswith("0 molecules")
    assert (tmp_path / "raw.csv").read_text() == "smiles,raw\n"


def require_refused(given, capsys, message):
    """One sentence, status 2, and no output."""
    assert main(given) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not Path(given[-1]).is_file()


MOLECULES = {
    "missing": (None, "No such file or directory"),
    "no JSON": ("{", "is not JSON"),
    "no molecules": ("[]", "has no list of molecules"),
    "a field missing": ([{"smiles": "O"}], "molecule 1 has no atomic_numbers and no positions and no bonds"),
    "lists of different lengths": ([WATER, WATER | {"atomic_numbers": [8]}], "molecule 2 (O): it has 1 atomic_numbers"),
    "an unknown atom": (
        [WATER | {"atomic_numbers": [16, 1, 1]}],
        "molecule 1 (O): atomic number 16 is none of 1, 6, 7, 8, 9",
    ),
}


@pytest.mark.parametrize("case", MOLECULES)
def test_bad_molecules_get_one_sentence(given, tmp_path, capsys, case):
    content, message = MOLECULES[case]
    (tmp_path / "in.json").unlink()
    if content is not None:
        text = content if isinstance(content, str) else json.dumps({"molecules": content})
        (tmp_path / "in.json").write_text(text)
    require_refused(given, capsys, message)


def test_bad_weights_get_one_sentence(given, tmp_path, capsys, network):
    path = tmp_path / "weights.pt"
    path.write_bytes(path.read_bytes()[:-1000])
    require_refused(given, capsys, "weights.pt is not a file of weights")
    torch.save(torch.nn.Linear(2, 2).state_dict(), path)
    require_refused(given, capsys, "weights.pt holds the weights of another network")
    torch.save({name: tensor * 1e30 for name, tensor in network.state_dict().items()}, path)
    require_refused(given, capsys, "weights.pt gives outputs that are not finite: name the published MXMNet's")
    path.unlink()
    require_refused(given, capsys, "weights.pt is not there")


def test_an_output_that_cannot_be_written_is_said(given, tmp_path, capsys):
    require_refused([*given[:-1], str(tmp_path / "none" / "raw.csv")], capsys, "none is not a folder: make it")
    (tmp_path / "raw.csv").write_text("precious")
    assert main(given) == 2
    assert capsys.readouterr().err == f"error: {tmp_path / 'raw.csv'} exists: delete it, or choose another name\n"
    assert (tmp_path / "raw.csv").read_text() == "precious"


def test_weights_and_output_must_be_named(given, capsys):
    for missing in ("--weights", "--out"):
        at = given.index(missing)
        with pytest.raises(SystemExit) as error:
            main(given[:at] + given[at + 2 :])
        assert error.value.code == 2 and missing in capsys.readouterr().err
