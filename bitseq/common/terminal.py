"""How a command answers: one sentence for whatever goes wrong, names that any terminal shows, durations.

This file is the same, byte for byte, in every suite.
"""

import codecs
import contextlib
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path


class ExperimentError(Exception):
    """What was asked for cannot be done; the message is one sentence that says how to fix it."""


def refused(error: OSError) -> str:
    """What the operating system refused, in one sentence."""
    where = error.filename if error.filename is not None else "the output"
    return f"cannot read or write {where} ({reason(error)}): make room, or take another place"


def reason(error: OSError) -> str:
    """What the operating system says, without its number."""
    return error.strerror or " ".join(str(error).split()) or type(error).__name__


def command(action: Callable[[], object], interrupted: str = "repeat the command") -> int:
    """The exit status of a command: 0; 2 after one sentence on stderr; 130 after Ctrl-C.

    Args:
        action: what it does.
        interrupted: how to go on after Ctrl-C.
    """
    codecs.register_error("shown", _shown)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="shown")
    try:
        action()
        print(end="", flush=True)
    except ExperimentError as error:
        sentence, status = f"error: {error}", 2
    except OSError as error:
        sentence, status = f"error: {refused(error)}", 2
    except KeyboardInterrupt:
        sentence, status = f"interrupted: {interrupted}", 130
    else:
        return 0
    try:
        print(end="", flush=True)
    except OSError:  # it would be tried again at the end, and take the place of the status
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 until the process ends
    with contextlib.suppress(OSError):
        print(sentence, file=sys.stderr)
    return status


def _shown(error: UnicodeError) -> tuple[str | bytes, int]:
    """A name's bytes as they came, and what the terminal has no character for as an escape."""
    try:
        return codecs.lookup_error("surrogateescape")(error)
    except UnicodeError:
        return codecs.backslashreplace_errors(error)


def file_name(path: Path) -> str:
    """The last part of a path as a picture can show it, whatever the locale decoded it by."""
    return os.fsencode(path.name).decode(errors="replace")


def duration(seconds: float) -> str:
    """``2 min 5 s``, ``81 h 26 min``."""
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {seconds} s"
