"""Files as people have them and as disks take them: CSVs that are read, outputs that are whole or not there."""

import csv
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from each import each
from matplotlib.figure import Figure
from small_runs import SMALL, command, quicken
from suites import contents, only_run

from mols import plots
from mols.common.terminal import ExperimentError
from mols.molecules import csv_files, qm9
from mols.molecules.csv_files import read_columns, require_writable, write_table
from mols.molecules.structures import read_structures
from mols.proxy_training import training
from mols.proxy_training.surrogate_molecules import read_part
from mols.rewards.gap import best as qm9_best
from mols.rewards.mxmnet import network as mxmnet
from mols.rewards.mxmnet.graph import ELEMENTS
from mols.rewards.seh import proxy as seh_proxy
from mols.tasks import sample, seh_frag

ROOT = Path(__file__).resolve().parents[3]

# Reading

ROWS = [("CCO", "1"), ("CCN", "2"), ("CCC", "3")]
READ = {
    "plain": b"smiles,x\nCCO,1\nCCN,2\nCCC,3\n",
    "no last line end": b"smiles,x\nCCO,1\nCCN,2\nCCC,3",
    "another order, another column": b"x,y,smiles\n1,,CCO\n2,,CCN\n3,,CCC\n",
    "another column twice": b"y,x,y,smiles\n0,1,,CCO\n,2,,CCN\n,3,,CCC\n",
    "a byte order mark": b"\xef\xbb\xbfsmiles,x\nCCO,1\nCCN,2\nCCC,3\n",
    "CRLF": b"smiles,x\r\nCCO,1\r\nCCN,2\r\nCCC,3\r\n",
    "CR": b"smiles,x\rCCO,1\rCCN,2\rCCC,3\r",
    "all of these": b"\xef\xbb\xbfsmiles,x\r\nCCO,1\nCCN,2\r\n\r\nCCC,3\r\n",
    "blank lines": b"\n\nsmiles,x\n\nCCO,1\n  \nCCN,2\n,\nCCC,3\n\n",
    "quotes": b'"smiles","x"\n"CCO","1"\n"CCN",2\nCCC,"3"\n',
}
REFUSED = {
    "a quote too many": (b'smiles\nCCO\n"CCN\nCCC\nCCF\n', "line 3 is no row (unexpected end of data)"),
    "two of them": (b'smiles\nCCO\n"CCN\nCCC\n"CCF\n', "line 3 is no row ("),
    "two that make a cell": (b'smiles\nCCO\n"CCN\nCCC"\nCCF\n', "line 3 is no row (it ends within quotes)"),
    "with blank lines and CRLF": (b'\r\nsmiles\r\n\r\nCCO\r\n"CCN\r\nCCC"\r\n', "line 5 is no row (it ends within"),
    "in the head": (b'"smiles\nCCO\nCCN"\nCCC\n', "line 1 is no row (it ends within quotes)"),
    "within a line": (b'smiles\n"CC"O\n', "line 2 is no row ("),
    "on the last line": (b'smiles\nCCO\n"CCN', "line 3 is no row ("),
    "semicolons": (b"smiles;x\nCCO;1\n", "has no column smiles: give it a first line with that name, and commas"),
    "tabs": (b"smiles\tx\nCCO\t1\n", "has no column smiles"),
    "the column twice": (b"smiles,x,smiles\nCCO,1,CCN\n", "has the column smiles 2 times: leave one of them"),
    "more cells": (b"smiles,x\nCCO,1\nCCN,2,3\n", "line 3 has 3 cells, the first 2: correct it"),
    "fewer cells": (b"smiles,x\nCCO,1\n\nCCN\n", "line 4 has 1 cells, the first 2: correct it"),
    "blank": (b"\n\n", "has no column smiles"),
    "UTF-16": ("smiles\nCCO\n".encode("utf-16"), "is not a CSV in UTF-8"),
    "latin-1": (b"smiles,x\nCCO,\xe9\n", "is not a CSV in UTF-8"),
}


@pytest.fixture
def given(tmp_path):
    def given(content):
        (tmp_path / "in.csv").write_bytes(content)
        return tmp_path / "in.csv"

    return given


@each("case", READ)
def test_a_csv_as_people_have_it_is_read_right(case, given):
    assert read_columns(given(READ[case]), ("smiles", "x")) == ROWS


@each("case", REFUSED)
def test_a_csv_that_could_be_misread_is_refused(case, given):
    content, message = REFUSED[case]
    with pytest.raises(ExperimentError) as error:
        read_columns(given(content), ["smiles"])
    assert message in str(error.value) and "\n" not in str(error.value)


READERS = {
    "seh_proxy": lambda path: seh_proxy.write_outputs(path, path.with_name("raw.csv")),
    "the test set of QM9": qm9.read_test_set,
    "a part of the surrogate's molecules": read_part,
}


@pytest.mark.parametrize("reader", READERS)
def test_every_command_reads_them_so(reader, given, monkeypatch):
    monkeypatch.setattr(seh_proxy, "load_proxy", lambda data_dir: lambda graphs: torch.zeros(len(graphs)))
    READERS[reader](given(b"\xef\xbb\xbfsmiles,raw,gap\r\nCCO,1,2\r\n\r\n"))
    with pytest.raises(ExperimentError):
        READERS[reader](given(b'smiles,raw,gap\nCCO,1,2\n"CCN,1,2\nCCC",1,2\n'))


# Writing


def test_a_table_is_written_in_any_locale_and_read_again(tmp_path):
    rows = [("smiles", "x"), ("CC\u2212O", 0.1), ('F,"F', ""), ("", 1)]
    write_table(tmp_path / "a.csv", rows)
    assert (tmp_path / "a.csv").read_bytes() == 'smiles,x\nCC\u2212O,0.1\n"F,""F",\n,1\n'.encode()
    assert read_columns(tmp_path / "a.csv", rows[0]) == [("CC\u2212O", "0.1"), ('F,"F', ""), ("", "1")]


@pytest.mark.parametrize("text", ["C\ud800", "C\nC"])
def test_a_smiles_that_is_no_line_of_text_is_refused(text, tmp_path):
    water = {"smiles": text, "atomic_numbers": [8], "positions": [[0, 0, 0]], "bonds": []}
    (tmp_path / "in.json").write_text(json.dumps({"molecules": [water]}))
    with pytest.raises(ExperimentError, match="molecule 1: its smiles is not text of one line"):
        read_structures(tmp_path / "in.json", ELEMENTS)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, ZeroDivisionError])
def test_what_stops_a_table_leaves_nothing_of_it(stop, tmp_path):
    def rows():
        yield ("smiles",)
        raise stop

    with pytest.raises(stop):
        write_table(tmp_path / "a", rows())
    assert not list(tmp_path.iterdir())


def test_a_new_table_takes_no_other_ones_place(tmp_path):
    def rows():
        yield ("smiles",)
        (tmp_path / "a").write_text("old")

    with pytest.raises(ExperimentError, match="a exists: delete it, or choose another name"):
        write_table(tmp_path / "a", rows())
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"


def test_a_folder_that_cannot_be_written_into_is_known_before(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(ExperimentError, match=r"cannot write .* \(Permission denied\): choose another --out"):
        require_writable(tmp_path / "a")
    require_writable(tmp_path.parent / "a")


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class HalfWriter:
    """A writer of CSVs on a disk that has room for a line."""

    def __init__(self, file, **_):
        self.file = file

    def writerows(self, rows):
        self.file.write("smiles,ra")
        self.file.flush()
        raise FULL


def half_a_picture(figure, file, **_):
    file.write(b"half")
    raise FULL


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run of QED."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        quicken(patch)
        patch.setattr(plots, "draw_run", lambda *_: None)
        assert seh_frag.main(command("tb", folder, "--proxy=auto", "--reward=qed", "--corr_every=0", "--n=1")) == 0
    return only_run(folder)


@pytest.fixture
def commands(tmp_path, run, monkeypatch):
    """What each command that writes is called with."""
    monkeypatch.setattr(seh_proxy, "load_proxy", lambda data_dir: lambda graphs: torch.zeros(len(graphs)))
    monkeypatch.setattr(mxmnet.MXMNet, "load", lambda path: lambda structures: torch.zeros(len(structures)))
    data = qm9.Qm9(["CCO", "CCN"], np.array([3, 3]), *np.full((3, 2), 0.2))
    monkeypatch.setattr(qm9, "read_qm9", lambda: data)
    monkeypatch.setattr(qm9_best, "best_of_run", lambda directory, n: [("a run", "CCO", 5.0)])
    (tmp_path / "in.csv").write_text("smiles\nCCO\n")
    water = {"smiles": "O", "atomic_numbers": [8], "positions": [[0, 0, 0]], "bonds": []}
    (tmp_path / "in.json").write_text(json.dumps({"molecules": [water]}))
    out = str(tmp_path / "out.csv")
    return {
        "sample": (sample.main, [str(run), "--n", "3", "--rounds", "0", "--out", out]),
        "seh_proxy": (seh_proxy.main, [str(tmp_path / "in.csv"), "--out", out]),
        "mxmnet": (mxmnet.main, [str(tmp_path / "in.json"), "--weights", "none", "--out", out]),
        "qm9": (qm9.main, ["--test_set", out]),
        "qm9_best": (qm9_best.main, [str(run), "--out", out]),
    }


@pytest.mark.parametrize("name", ["sample", "seh_proxy", "mxmnet", "qm9", "qm9_best"])
def test_a_full_disk_leaves_nothing_and_the_command_can_be_repeated(name, commands, tmp_path, monkeypatch, capsys):
    main, argv = commands[name]
    before = contents(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(csv_files.csv, "writer", HalfWriter)
        assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: cannot write ") and err.count("\n") == 1
    assert "out.csv (No space left on device)" in err
    assert contents(tmp_path) == before
    assert main(argv) == 0
    assert (tmp_path / "out.csv").read_text().count("\n") > 1


def test_the_csv_of_samples_is_not_there_without_its_picture(commands, tmp_path, monkeypatch, capsys):
    main, argv = commands["sample"]
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", half_a_picture)
        assert main(argv) == 2
    assert not list(tmp_path.glob("*out*")) and "out.png (No space left on device)" in capsys.readouterr().err
    assert main(argv) == 0
    assert {path.name for path in tmp_path.glob("*out*")} == {"out.csv", "out.png"}


def test_a_run_that_cannot_draw_its_pictures_goes_on_to_draw_them(tmp_path, monkeypatch, capsys):
    quicken(monkeypatch)
    argv = command("tb", tmp_path, "--proxy=auto", "--reward=qed", "--corr_every=0", "--n=1")
    with monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", half_a_picture)
        assert seh_frag.main(argv) == 2
    assert "curves.png (No space left on device): make room" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.rglob("*.partial")) and not list(tmp_path.rglob("*.png"))
    assert json.loads((only_run(tmp_path) / "meta.json").read_text())["status"].startswith("failed: cannot write")
    assert seh_frag.main([*argv, "--if_exists=resume"]) == 0
    assert {path.name for path in tmp_path.rglob("*.png")} == {"curves.png", "top_molecules.png"}


def test_weights_that_cannot_be_saved_leave_the_old_ones(tmp_path, monkeypatch):
    training.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    before = contents(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: half_a_picture(None, io.BytesIO()))
    with pytest.raises(ExperimentError, match=r"cannot write .*a.pt \(No space left on device\)"):
        training.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    assert contents(tmp_path) == before


# Locales

IN_C = """
import sys
from pathlib import Path
from mols.rewards.mxmnet import network as mxmnet
from mols.tasks import sample, seh_frag
folder, *small = sys.argv[1:]
assert sys.stdout.encoding == "ascii" and folder.encode("utf-8", "surrogateescape").decode().endswith("\\u2212")
sys.exit(
    mxmnet.main([f"{folder}/in.json", "--weights", f"{folder}/weights.pt", "--out", f"{folder}/raw.csv"])
    or seh_frag.main(["--output_dir", folder, *small])
    or print("a \\u2212")
    or sample.main([str(next(Path(folder).rglob("seed=1"))), "--n", "2", "--out", f"{folder}/molecules.csv"])
)
"""


def test_any_text_in_any_locale(tmp_path):
    """A SMILES and a path with a Unicode minus, where the locale knows ASCII alone."""
    folder = tmp_path / "\u2212"
    folder.mkdir()
    water = {"smiles": "O\u2212", "atomic_numbers": [8], "positions": [[0, 0, 0]], "bonds": []}
    (folder / "in.json").write_text(json.dumps({"molecules": [water]}, ensure_ascii=False), encoding="utf-8")
    torch.save(mxmnet.MXMNet().state_dict(), folder / "weights.pt")
    small = ["--proxy=auto", "--reward=qed", "--corr_every=0", "--n=1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", IN_C, str(folder), *SMALL, *small], env=environment, capture_output=True, check=False
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0, err
    assert f"1 molecules in {folder}/raw.csv\n" in out and f"{folder}/molecules.csv: 2 molecules" in out
    assert "a \\u2212\n" in out  # ASCII has no other name for it
    with (folder / "raw.csv").open(encoding="utf-8", newline="") as file:
        assert [row["smiles"] for row in csv.DictReader(file)] == ["O\u2212"]
    assert (only_run(folder) / "DONE").exists()
