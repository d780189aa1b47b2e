"""The quickstart's two runs at once: a bar of each or plain lines, a table, and the picture's path last."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from hypergrid import quickstart, settings

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "hypergrid.quickstart"]


def started(folder: Path, trajectories="320", **streams) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*COMMAND, trajectories], cwd=folder, env=environment, stdin=subprocess.DEVNULL, **streams)


@pytest.mark.slow
def test_two_runs_end_in_a_table_and_a_picture_and_again_at_once(tmp_path):
    outputs = []
    for _ in range(2):
        with started(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            output, errors = process.communicate()
        assert (process.returncode, errors) == (0, "")
        assert output.isprintable() or set(re.findall(r"[^ -~]", output)) == {"\n"}, "no control characters"
        outputs.append(output.splitlines())
    *progress, heads, tlm, uniform, picture = outputs[0]
    assert outputs[1] == [heads, tlm, uniform, picture]
    assert {line.split(":")[0].strip() for line in progress} == {"tlm", "uniform"}
    assert re.split("  +", heads) == list(quickstart.COLUMNS)
    assert (tlm.split()[0], uniform.split()[0]) == ("tlm", "uniform")
    assert float(tlm.split()[1]) >= float(tlm.split()[2]) > 0, "not below the floor"
    assert 0 < float(tlm.split()[3]) < 1, "a total variation"
    assert Path(picture) == tmp_path / "runs/quickstart-320/quickstart.png" and Path(picture).stat().st_size > 0


@pytest.mark.slow
def test_a_terminal_shows_a_bar_of_each_run(tmp_path):
    """Whatever the cursor did, each bar ends complete on a line of its own, and the table begins below both."""
    mine, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    with started(tmp_path, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        screen = Screen()
        while text := read(mine):
            screen.write(text)
    assert process.returncode == 0
    bars, rest = screen.lines[:2], screen.lines[2:]
    assert sorted(bar.split(":")[0].strip() for bar in bars) == ["tlm", "uniform"]
    assert all("100%" in bar and " 20/20 " in bar for bar in bars)
    assert rest[0].startswith("approach") and rest[-2].endswith("quickstart.png"), screen.lines


def read(terminal: int) -> str:
    try:
        return os.read(terminal, 65536).decode(errors="replace")
    except OSError:  # the other end is closed
        return ""


class Screen:
    """What a terminal of endless width would show: text, \\r, \\n and cursor up."""

    def __init__(self) -> None:
        self.lines, self.row, self.column = [""], 0, 0

    def write(self, text: str) -> None:
        for part in re.findall(r"\x1b\[A|[\r\n]|[^\r\n\x1b]+", text):
            if part == "\r":
                self.column = 0
            elif part == "\n":
                self.row += 1
            elif part == "\x1b[A":
                self.row -= 1
            else:
                line = self.lines[self.row].ljust(self.column)
                self.lines[self.row] = (line[: self.column] + part + line[self.column + len(part) :]).rstrip()
                self.column += len(part)
            self.lines += [""] * (self.row + 1 - len(self.lines))


def test_what_stops_a_run_is_said_as_the_run_says_it(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    folder = settings.run_directory(settings.parse(quickstart.command_line("tlm", 320)))
    folder.mkdir(parents=True)
    (folder / "notes.txt").touch()
    with pytest.raises(SystemExit) as stopped:
        quickstart.quickstart(320)
    assert stopped.value.code == 2
    assert re.search(r"^error: .*seed=3 is not a run folder .*$", capfd.readouterr().err, re.MULTILINE)


@pytest.mark.slow
def test_an_interrupt_reaches_both_runs(tmp_path):
    """Each once, and nothing goes on in the background."""
    with started(tmp_path, "1000000", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        while len(list(tmp_path.rglob("meta.json"))) < 2:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate()[1]
    assert process.returncode == 130
    assert errors == "interrupted: bash hypergrid/quickstart.sh goes on where it stopped\n"
    assert [json.loads(path.read_text())["status"] for path in tmp_path.rglob("meta.json")] == ["interrupted"] * 2
