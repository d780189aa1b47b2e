"""The sEH network: published values, a slow loop beside the fast one, its weights, and its command."""

import csv
import gzip
import json
import math
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from rdkit import Chem
from shared_data import SHARED, needs
from test_mols_seh_features import SMILES
from torch.nn.functional import leaky_relu

from mols.common.terminal import ExperimentError
from mols.rewards.seh import proxy as seh_proxy
from mols.rewards.seh.features import atom_features, featurise
from mols.rewards.seh.proxy import ARRAYS, CHUNK, SehProxy, load_proxy, main

ROOT = Path(__file__).resolve().parents[3]
needs_data = needs("seh_reference.json", seh_proxy.WEIGHTS_FILE)


@pytest.fixture(scope="module")
def random_proxy():
    """Random weights in double precision, larger than initialisation makes them, so that molecules differ."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        proxy = SehProxy().double()
    with torch.no_grad():
        for parameter in proxy.parameters():
            parameter *= 2
    return proxy


@pytest.fixture(scope="module")
def published():
    return load_proxy(SHARED)


def molecules(*smiles):
    return [Chem.MolFromSmiles(text) for text in smiles or SMILES]


def graphs(*smiles):
    return [featurise(molecule) for molecule in molecules(*smiles)]


def slow_raw(proxy, molecule):
    """The network on one molecule, bond by bond with an evaluation of the edge network each, gate by gate."""
    weights = dict(proxy.named_parameters())
    order = {Chem.BondType.SINGLE: 0, Chem.BondType.DOUBLE: 1, Chem.BondType.TRIPLE: 2, Chem.BondType.AROMATIC: 3}
    edges = []
    for bond in molecule.GetBonds():
        feature = torch.zeros(4)
        feature[order[bond.GetBondType()]] = 1
        edges += [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), feature)]
        edges += [(bond.GetEndAtomIdx(), bond.GetBeginAtomIdx(), feature)]
    edges = edges or [(0, 0, torch.zeros(4))]

    def linear(name, x):
        return weights[f"{name}.weight"] @ x + weights[f"{name}.bias"]

    def gates(name, part, x):
        return weights[f"{name}.weight_{part}"] @ x + weights[f"{name}.bias_{part}"]

    dtype = proxy.out.bias.dtype
    state = [
        leaky_relu(linear("embed", x)) for x in torch.from_numpy(atom_features(featurise(molecule).atoms)).to(dtype)
    ]
    for _ in range(12):
        received = [[] for _ in state]
        for source, target, feature in edges:
            matrix = linear("edge.2", leaky_relu(linear("edge.0", feature.to(dtype)))).view(64, 64)
            received[target].append(state[source] @ matrix)
        following = []
        for h, messages in zip(state, received, strict=True):
            mean = sum(messages) / len(messages) if messages else 0.0
            m = leaky_relu(linear("root", h) + mean)
            reset_m, update_m, new_m = gates("update", "ih", m).chunk(3)
            reset_h, update_h, new_h = gates("update", "hh", h).chunk(3)
            update = torch.sigmoid(update_m + update_h)
            new = torch.tanh(new_m + torch.sigmoid(reset_m + reset_h) * new_h)
            following.append((1 - update) * new + update * h)
        state = following
    read, hidden, cell = torch.zeros(128, dtype=dtype), torch.zeros(64, dtype=dtype), torch.zeros(64, dtype=dtype)
    for _ in range(3):
        into, forget, new, out = (gates("query", "ih", read) + gates("query", "hh", hidden)).chunk(4)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(into) * torch.tanh(new)
        hidden = torch.sigmoid(out) * torch.tanh(cell)
        weight = [math.exp(h @ hidden) for h in state]
        read = torch.cat([hidden, sum(w * h for w, h in zip(weight, state, strict=True)) / sum(weight)])
    return linear("out", read).item()


@needs_data
def test_published_values(published):
    reference = json.loads((SHARED / "seh_reference.json").read_text())["molecules"]
    raw = published(graphs(*[one["smiles"] for one in reference]))
    assert raw.dtype == torch.float32
    np.testing.assert_allclose(raw, [one["raw"] for one in reference], rtol=0, atol=1e-4)
    assert [one["smiles"] for one in reference if featurise(Chem.MolFromSmiles(one["smiles"])).edges[0, 2] == 4] == [
        "O"
    ]


def test_the_slow_loop_gives_the_same(random_proxy):
    raw = random_proxy(graphs())
    assert raw.std() > 0.05  # otherwise agreement would say little
    expected = [slow_raw(random_proxy, molecule) for molecule in molecules()]
    np.testing.assert_allclose(raw, expected, rtol=0, atol=1e-10)


def test_many_at_once_are_one_by_one_in_any_order(random_proxy):
    some = graphs() * (2 * CHUNK // len(SMILES) + 1)
    assert len(some) > 2 * CHUNK and len(some) % CHUNK
    one_by_one = torch.cat([random_proxy([graph]) for graph in some[: len(SMILES)]])
    expected = one_by_one.repeat(len(some) // len(SMILES))
    torch.testing.assert_close(random_proxy(some), expected, rtol=0, atol=1e-10)
    order = torch.randperm(len(some), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(random_proxy([some[i] for i in order]), expected[order], rtol=0, atol=1e-10)
    assert random_proxy([]).shape == (0,)


def test_the_numbering_of_atoms_does_not_matter(random_proxy):
    for molecule in molecules():
        order = np.random.default_rng(0).permutation(molecule.GetNumAtoms()).tolist()
        if molecule.GetNumBonds():  # otherwise the first atom is special
            other = featurise(Chem.RenumberAtoms(molecule, order))
            torch.testing.assert_close(random_proxy([other]), random_proxy([featurise(molecule)]), rtol=0, atol=1e-10)


def test_the_edge_network_is_evaluated_once_per_type(random_proxy):
    shapes = []
    hook = random_proxy.edge.register_forward_hook(lambda module, inputs, output: shapes.append(inputs[0].shape))
    random_proxy(graphs())
    hook.remove()
    assert shapes == [(5, 4)]


def write_arrays(path, arrays):
    with gzip.open(path, "wb", compresslevel=1) as file:
        pickle.dump(arrays, file, protocol=4)
    return path


def arrays_of(proxy):
    parameters = {name: parameter.float().numpy() for name, parameter in proxy.named_parameters()}
    return [np.zeros(3, np.float32) if name is None else parameters[name] for name in ARRAYS]


def test_weights_are_read_in_the_order_of_the_file(tmp_path, random_proxy):
    proxy = SehProxy.load(write_arrays(tmp_path / "a.pkl.gz", arrays_of(random_proxy)))
    assert not any(parameter.requires_grad for parameter in proxy.parameters()) and not proxy.training
    for (name, found), expected in zip(proxy.named_parameters(), random_proxy.parameters(), strict=True):
        assert torch.equal(found, expected.float()), name


def test_weights_of_another_network_are_refused(tmp_path, random_proxy):
    arrays = arrays_of(random_proxy)
    wider = [np.zeros((2 * len(array), *array.shape[1:]), np.float32) for array in arrays]
    transposed = [array.T if array.shape == (64, 71) else array for array in arrays]
    for other in (arrays[:-1], [*arrays, arrays[0]], wider, transposed, []):
        path = write_arrays(tmp_path / "a.pkl.gz", other)
        with pytest.raises(ExperimentError, match="weights of another network: replace it"):
            SehProxy.load(path)


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, random_proxy):
    """``run(text of a CSV)`` -> (status, stdout, stderr) of the command with random weights; its output is raw.csv."""
    monkeypatch.setattr(seh_proxy, "load_proxy", lambda data_dir: random_proxy)

    def run(text=None, name="in.csv", out="raw.csv"):
        if text is not None:
            (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        status = main([str(tmp_path / name), "--out", str(tmp_path / out)])
        return status, *capsys.readouterr()

    return run


def test_the_command_writes_a_row_for_each_row(run, tmp_path, random_proxy):
    status, out, err = run("id,smiles\n1,CCO\n2,not a molecule\n3,O\n4,\n5,[Au]\n6,CCO\n")
    assert (status, out) == (0, f"3 molecules in {tmp_path / 'raw.csv'}\n")
    assert err == "3 SMILES are not molecules that the network takes: their raw is empty\n"
    ethanol, water = random_proxy(graphs("CCO", "O")).tolist()
    expected = [("CCO", ethanol), ("not a molecule", None), ("O", water), ("", None), ("[Au]", None), ("CCO", ethanol)]
    with (tmp_path / "raw.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["smiles"] for row in rows] == [text for text, _ in expected]
    for row, (_, value) in zip(rows, expected, strict=True):
        assert set(row) == {"smiles", "raw"}
        assert row["raw"] == "" if value is None else float(row["raw"]) == pytest.approx(value, abs=1e-6)


def test_the_command_says_nothing_of_molecules_left_out_where_there_are_none(run):
    assert run("\ufeffsmiles\nCCO\n")[::2] == (0, "")


BAD = {
    "no column": (b"SMILES\nCCO\n", "has no column smiles: give it a first line with that name"),
    "empty": (b"", "has no column smiles"),
    "binary": (b"smiles\n\xff\xfe\n", "is not a CSV in UTF-8"),
    "a huge field": (b"smiles\n" + b"C" * 200_000, "in.csv, line 2 is no row (field larger"),
    "missing": (None, "No such file or directory"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_sentence(run, tmp_path, case):
    text, message = BAD[case]
    status, out, err = run(text)
    assert status == 2 and out == ""
    assert err.startswith("error: ") and err.count("\n") == 1 and message in err
    assert not (tmp_path / "raw.csv").exists()


def test_an_existing_output_is_left_as_it_is(run, tmp_path):
    (tmp_path / "raw.csv").write_text("precious")
    status, _, err = run("smiles\nCCO\n")
    assert status == 2 and err == f"error: {tmp_path / 'raw.csv'} exists: delete it, or choose another name\n"
    assert (tmp_path / "raw.csv").read_text() == "precious"


def test_an_output_that_appears_meanwhile_is_left_as_it_is(run, tmp_path, monkeypatch, random_proxy):
    def load(_):
        (tmp_path / "raw.csv").write_text("precious")
        return random_proxy

    monkeypatch.setattr(seh_proxy, "load_proxy", load)
    status, _, err = run("smiles\nCCO\n")
    assert status == 2 and "raw.csv exists: delete it" in err and not list(tmp_path.glob("*.partial"))
    assert (tmp_path / "raw.csv").read_text() == "precious"


def test_an_output_that_cannot_be_written_is_said(run, tmp_path):
    assert f"{tmp_path / 'none'} is not a folder: make it" in run("smiles\nCCO\n", out="none/raw.csv")[2]
    assert "cannot write" in run("smiles\nCCO\n", out="x" * 300)[2]


def test_a_data_folder_that_is_not_there_is_said(tmp_path, capsys):
    (tmp_path / "in.csv").write_text("smiles\nCCO\n")
    status = main([str(tmp_path / "in.csv"), "--out", str(tmp_path / "raw.csv"), "--data_dir", str(tmp_path / "none")])
    assert status == 2 and "which is not a folder: name one" in capsys.readouterr().err
    assert not (tmp_path / "raw.csv").exists()


@needs_data
def test_the_command_as_it_is_typed(tmp_path):
    reference = json.loads((SHARED / "seh_reference.json").read_text())["molecules"]
    (tmp_path / "in.csv").write_text("smiles\n" + "".join(f"{one['smiles']}\n" for one in reference))
    command = [sys.executable, "-m", "mols.rewards.seh.proxy", "in.csv", "--out", "raw.csv", "--data_dir", str(SHARED)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{len(reference)} molecules in raw.csv\n", "")
    with (tmp_path / "raw.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, one in zip(rows, reference, strict=True):
        assert row["smiles"] == one["smiles"] and float(row["raw"]) == pytest.approx(one["raw"], abs=1e-4)
