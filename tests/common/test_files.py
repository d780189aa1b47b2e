"""Files are written whole or not at all, CSV files are read right or refused, and every failure is one sentence."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
from collected_csv import grid_run, write_csv

from hypergrid import plots
from hypergrid.analysis import claims, collect, figures, launch, tables
from hypergrid.common.files import append_line, read_rows, write_text, written
from hypergrid.common.terminal import ExperimentError, command, duration

ROOT = Path(tables.__file__).resolve().parents[1]
NAME = "l\N{LATIN SMALL LETTER A WITH DIAERESIS}ufe\N{MINUS SIGN}"
C_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}


def refusal(function, *arguments, **options) -> str:
    with pytest.raises(ExperimentError) as caught:
        function(*arguments, **options)
    assert str(caught.value).count("\n") == 0
    return str(caught.value)


# Writing


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with written(path) as file:
        file.write(f"{NAME}\r\n\udce9")  # the last: a byte of a name that is no UTF-8
        assert path.read_text() == "old"
    assert path.read_bytes() == f"{NAME}\r\n".encode() + b"\xe9"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), OSError(errno.EIO, "broken")])
def test_a_failure_leaves_what_was_there(error, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ExperimentError if isinstance(error, OSError) else type(error)), written(path) as file:
        file.write("new")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_sentence_and_leaves_what_was_there(tmp_path, small_disk):
    path = tmp_path / "a.txt"
    path.write_text("old\n")
    with small_disk(1000):
        assert refusal(write_text, path, "x" * 1001).startswith(f"cannot write {path} (File too large): make room")
        assert "make room" in refusal(append_line, path, "x" * 1000)
        append_line(path, "y" * 10)
    assert path.read_text() == "old\n" + "y" * 10 + "\n" and list(tmp_path.iterdir()) == [path]


def test_what_is_no_file_is_not_replaced(tmp_path):
    for path in (tmp_path, Path(os.devnull)):
        assert f"cannot write {path} (it exists, and is not a file)" in refusal(write_text, path, "x")
    assert not Path(os.devnull).is_file() and not Path(f"{os.devnull}.partial").exists()


# Reading

HEAD = b"step,loss,exact\n"
RIGHT = {
    "plain": HEAD + b"1,0.5,\n2,-1e-06,3.\n",
    "byte order mark": b"\xef\xbb\xbf" + HEAD + b"1,0.5,\n2,-1e-06,3.\n",
    "CRLF": (HEAD + b"1,0.5,\n2,-1e-06,3.\n").replace(b"\n", b"\r\n"),
    "blank lines": b"\n" + HEAD + b"\n1,0.5,\n\n\n2,-1e-06,3.\n\n",
    "no last line end": HEAD + b"1,0.5,\n2,-1e-06,3.",
    "quoted cells": b'"step","loss",exact\n"1","0.5",""\n2,-1e-06,3.\n',
}
WRONG = {
    "is empty or not a CSV: make it again": b"",
    "is not text in UTF-8": b"\x89PNG\xff",
    "semicolons between its cells": HEAD.replace(b",", b";"),
    "tabs between its cells": HEAD.replace(b",", b"\t"),
    "the column loss more than once": b"step,loss,loss\n1,2,3\n",
    "a column without a name": b"step,loss,\n1,2,\n",
    "line 3 has 2 cells, not 3": HEAD + b"1,0.5,\n2,0.5\n3,0.5,\n",
    "line 2 has 4 cells, not 3": HEAD + b"1,0,5,\n",
    "line 3 has text in the column loss: 'x' is not a number": HEAD + b"\n1,x,\n",
    "column loss: 'nan' is not a number": HEAD + b"1,nan,\n",
    "column loss: '1_0' is not a number": HEAD + b"1,1_0,\n",
    "column loss: '1e999' is not a number": HEAD + b"1,1e999,\n",
    "line 4 has a stray quote": HEAD + b'1,0.5,\n\n2,"0.5,\n3,0.5,\n4,"0.5,\n',  # closed by the next stray one
    "line 2 has a stray quote": HEAD + b'1,"0.5,\n3,0.5,\n',
    "line 2 has a stray quote or space": HEAD + b'1,0.5",\n',
    "line 3 has a stray quote or space": HEAD + b"1,0.5,\n   \n",
    "line 1 has a stray quote or space": b"step, loss\n1,2\n",
    "line 2 has a stray quote or is not a CSV": HEAD + b'1,"0.5"7,\n',
}


def test_a_csv_as_people_have_it_is_read_right(tmp_path):
    for name, content in RIGHT.items():
        (tmp_path / "a.csv").write_bytes(content)
        names, rows = read_rows(tmp_path / "a.csv", list)
        assert names == ["step", "loss", "exact"], name
        assert [list(row.values()) for row in rows] == [["1", "0.5", ""], ["2", "-1e-06", "3."]], name


def test_a_csv_that_is_not_plain_is_refused_by_its_line_or_column(tmp_path):
    for said, content in WRONG.items():
        (tmp_path / "a.csv").write_bytes(content)
        message = refusal(read_rows, tmp_path / "a.csv", list)
        assert said in message and message.startswith(str(tmp_path / "a.csv"))
    assert "cannot read" in refusal(read_rows, tmp_path, list)


def test_a_line_that_is_still_being_written_is_left_out(tmp_path):
    (tmp_path / "a.csv").write_bytes(HEAD + b"1,0.5,\n2,0.")
    assert len(read_rows(tmp_path / "a.csv", list, torn=True)[1]) == 1
    assert "line 3 has 2 cells" in refusal(read_rows, tmp_path / "a.csv", list)


def test_every_reader_of_collected_files_takes_and_refuses_the_same(tmp_path, capsys):
    good = tmp_path / "good.csv"
    rows = [row for a in ("tlm", "uniform") for seed in (1, 2) for row in grid_run(2.0, approach=a, seed=seed)]
    text = write_csv(good, rows).read_text()
    expected = tables.read_results([good])
    path = tmp_path / "a.csv"
    readers = {
        "figures": lambda: figures.main([str(path), "--out", str(tmp_path / "out")]),
        "claims": lambda: claims.main([str(path), "--out", str(tmp_path / "out")]),
        "collect": lambda: collect.main([str(tmp_path / "runs"), "--out", str(path), "--append"]),
    }
    for changed in ("\ufeff" + text, text.replace("\n", "\r\n"), text.replace("\n", "\n\n")):
        path.write_text(changed, newline="")
        assert tables.read_results([path]).equals(expected)
    assert readers["claims"]() == 0
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "config.json").write_text("{}")
    (tmp_path / "runs" / "DONE").touch()
    lines = text.splitlines()
    spoilt = {
        "line 3 has a stray quote": [*lines[:2], lines[2].replace("tlm", '"tlm'), *lines[3:]],
        "semicolons": [line.replace(",", ";") for line in lines],
        "the column seed more than once": [lines[0].replace("step", "seed"), *lines[1:]],
        "line 4 has": [*lines[:3], lines[3] + ",", *lines[4:]],
    }
    for said, changed in spoilt.items():
        for name, read in readers.items():
            path.write_text("\n".join(changed) + "\n")
            before = path.read_bytes()
            capsys.readouterr()
            assert read() == 2, (name, said)
            error = capsys.readouterr().err
            assert said in error and error.startswith("error: ") and error.count("\n") == 1, (name, error)
            assert path.read_bytes() == before
    for name in ("figures", "claims"):  # a metric that is text
        path.write_text(text.replace("2e-06", "high"))
        assert readers[name]() == 2
        assert "has text in the column l1_dist: 'high' is not a number" in capsys.readouterr().err


# Commands


def test_a_command_that_cannot_write_leaves_what_was_there(tmp_path, small_disk, capsys):
    data = tmp_path / "data.csv"
    write_csv(data, grid_run(2.0, approach="tlm") + grid_run(3.0, approach="uniform"))
    out, picture = tmp_path / "out", tmp_path / "out" / "runs.png"
    out.mkdir()
    for name in ("claims.md", "claims.bib", "figure1.png", "figure1.pdf", "runs.png"):
        (out / name).write_text("old")
    run = tmp_path / "seed=1"
    run.mkdir()
    general = '"general": {"seed": 1, "validation_samples": 10}'
    (run / "config.json").write_text(
        f'{{"env": {{"name": "a", "height": 4, "ndim": 2}}, "algo": {{"name": "tb"}}, {general}}}'
    )
    columns = "step,trajectories,l1_dist,total_variation,exact_total_variation,l1_floor"
    (run / "metrics.csv").write_text(f"{columns}\n1,16,0.1,0.1,0.1,0.1\n")
    commands = {
        "claims": lambda: claims.main([str(data), "--out", str(out)]),
        "figures": lambda: figures.main([str(data), "--out", str(out)]),
        "plots": lambda: plots.main([str(run), "--out", str(picture)]),
    }
    for name, do in commands.items():
        capsys.readouterr()
        with small_disk(100):
            assert do() == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: cannot write {out}") and error.count("\n") == 1, (name, error)
        assert {path.read_text() for path in out.iterdir()} == {"old"} and len(list(out.iterdir())) == 5, name
    assert commands["claims"]() == commands["plots"]() == 0
    assert {path.name for path in out.iterdir() if path.read_bytes() == b"old"} == {"figure1.png", "figure1.pdf"}


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").touch()
    data, out = write_csv(tmp_path / "data.csv", grid_run(2.0) + grid_run(3.0, approach="uniform")), tmp_path / "file"
    for do in (claims.main, figures.main):
        assert do([str(data), "--out", str(out / "x")]) == 2
        assert capsys.readouterr().err == (
            f"error: cannot create the folder {out / 'x'} (Not a directory): choose another one\n"
        )
    with pytest.raises(ExperimentError, match="cannot create the folder"):
        launch.run_line("true", out / "x" / "a.log")


def test_plots_takes_png_and_pdf(tmp_path, capsys):
    assert plots.main([str(tmp_path), "--out", "a.jpg"]) == 2
    assert "--out is a.jpg: its name must end in .png or .pdf" in capsys.readouterr().err


def test_the_status_of_a_command(capsys):
    def raises(error):
        def action():
            raise error

        return action

    statuses = {
        lambda: None: (0, ""),
        raises(ExperimentError("no")): (2, "error: no\n"),
        raises(PermissionError(13, "Permission denied", "/x")): (
            2,
            "error: cannot read or write /x (Permission denied): make room, or take another place\n",
        ),
        raises(KeyboardInterrupt()): (130, "interrupted: go on\n"),
    }
    for action, (status, said) in statuses.items():
        assert command(action, "go on") == status
        assert capsys.readouterr().err == said
    with pytest.raises(ZeroDivisionError):  # a defect of ours is not hidden
        command(lambda: 1 / 0)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_an_output_that_takes_nothing_is_one_sentence():
    code = "import sys; from hypergrid.common.terminal import command; sys.exit(command(lambda: print('x')))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", code], env=os.environ | C_LOCALE, stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: cannot read or write the output (No space left on device)")
    assert done.stderr.count(b"\n") == 1


def in_the_c_locale(code: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=os.environ | C_LOCALE, capture_output=True, **options)


def test_any_name_is_shown_in_any_locale(tmp_path):
    """In the names of files, and in what a program says by itself."""
    folder = tmp_path / NAME
    data = write_csv(folder / f"{NAME}.csv", grid_run(2.0) + grid_run(3.0, approach="uniform"))
    code = "import sys; from pathlib import Path\n"
    code += "from hypergrid.analysis import claims; from hypergrid.common import terminal\n"
    code += "status = claims.main(sys.argv[1:])\n"
    code += "print(ascii(terminal.file_name(Path(sys.argv[1]))))\n"
    code += "sys.exit(status or terminal.command(lambda: print('\\N{MINUS SIGN}', sys.argv[1])))"
    done = in_the_c_locale(code, str(data))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == b"\\u2212 " + str(data).encode()
    assert done.stdout.splitlines()[-2].decode() == ascii(data.name)  # as a picture shows it
    assert f"From {NAME}.csv" in (folder / "claims.md").read_text(encoding="utf-8")


def test_a_line_of_a_sweep_keeps_its_bytes_in_any_locale(tmp_path):
    (tmp_path / "lines").write_text(f"echo {NAME}\n", encoding="utf-8")
    code = "import sys; from hypergrid.analysis import launch; launch.connect = lambda *_: None\n"
    code += "def told(lines, *_): sys.exit(print(*(f'{log.name} {line}' for line, log in lines.items())))\n"
    code += "launch.launch = told\n"
    code += "launch.main([*sys.argv[1:], '--logs', '.'])"
    ((line, log),) = launch.read_lines(f"echo {NAME}", Path("logs")).items()
    for argv, stdin in (([str(tmp_path / "lines")], b""), ([], (tmp_path / "lines").read_bytes())):
        done = in_the_c_locale(code, *argv, input=stdin)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode() == f"{log.name} {line}\n"


def test_durations_are_read_at_a_glance():
    assert [duration(s) for s in (0, 65.9, 3600, 293185)] == ["0 min 0 s", "1 min 5 s", "1 h 0 min", "81 h 26 min"]
