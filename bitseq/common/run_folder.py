"""The run folder: configuration, metrics, checkpoints, and how an interrupted run goes on.

    <output_dir>/<suite>/<environment>/<objective>-<approach>[-<what differs>]/seed=<k>/
        config.json    the resolved configuration
        meta.json      results version, git hash, command, library versions, start, stop, status; of each stretch of the
                       run, the first and those in ``resumed``, its device, threads and machine
        metrics.csv    fixed columns, one row per evaluation; an empty cell was not due
        checkpoint.pt  weights, targets, optimisers, replay, all random states; written atomically
        DONE           the run is complete

Same seed, same machine, same device and thread count: the same metrics.csv apart from wall_s, however often the run
was killed. A run may go on elsewhere, on another device or with other threads: then its numbers are as good, but not
the same to the last bit. Code reads config.json, never folder names.
This file is the same, byte for byte, in every suite.
"""

import fcntl
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from .checkpoint import is_finite, read_checkpoint, restore_agent, write_checkpoint
from .files import append_line, make_folder, read_rows, write_text
from .provenance import describe_start, now
from .terminal import ExperimentError, reason, refused

COMMON_COLUMNS = ("step", "trajectories", "wall_s", "loss", "pb_loss", "pb_deviation")
IF_EXISTS = ("refuse", "resume", "overwrite")


class Run:
    """One run folder. The constructor only looks; ``recorded`` opens it for writing.

    Args:
        directory: the run folder; a later change of the working directory does not lose it.
        config: the resolved configuration, JSON values in nested dictionaries.
        if_exists: what to do about an existing folder: ``refuse``, ``resume`` or ``overwrite``.
        flag: how the command line spells that option, for messages.
        suite: the suite's package folder.
        results_version: of what the program computes with this objective (``suite.py``).
        free: names of configuration fields that may differ between a run and its resumption, because the
            result does not depend on them.
        newer: configuration fields that older runs lack, and what they had in their place (``suite.py``).

    Raises:
        ExperimentError: the folder exists and is refused, belongs to another configuration or results version, is
            not a run folder, or is in use by another process.
    """

    def __init__(
        self,
        directory: Path,
        config: dict[str, Any],
        *,
        if_exists: str,
        flag: str,
        suite: Path,
        results_version: int,
        free: Sequence[str],
        newer: Mapping[str, Any],
    ) -> None:
        directory = directory.absolute()
        self.directory, self.config = directory, config
        self.name = f"{directory.parent.name} {directory.name}"
        self.columns: tuple[str, ...] = ()
        self.wall_s = 0.0
        self._flag, self._suite, self._if_exists = flag, suite, if_exists
        self._results_version = results_version
        self._meta: dict[str, Any] = {}
        exists = _holds_something(directory)
        if if_exists == "refuse":
            self._require_empty()
        if exists and not (directory / "config.json").is_file():
            raise ExperimentError(f"{directory} is not a run folder (no config.json): move it away")
        if exists and if_exists == "resume":
            self._require_same_config(free, newer)
            self._require_same_version()
        self.done = exists and if_exists == "resume" and (directory / "DONE").exists()

    @contextmanager
    def recorded(self, columns: Sequence[str]) -> Iterator[None]:
        """The folder open for writing; how the run stopped ends in meta.json, and DONE if it was complete.

        Args:
            columns: the suite's own columns of metrics.csv, after the common ones.
        """
        self.columns = (*COMMON_COLUMNS, *columns)
        make_folder(self.directory)
        with self._locked():
            if self._if_exists == "refuse":
                self._require_empty()  # again: now nobody else can write here
            try:
                self._start()
                yield
                self._write_meta(self._meta | {"stop": now(), "status": "done"})
                (self.directory / "DONE").touch()
            except BaseException as error:
                said = refused(error) if isinstance(error, OSError) else str(error)
                self._stopped("interrupted" if isinstance(error, KeyboardInterrupt) else f"failed: {said}")
                if isinstance(error, OSError):
                    raise ExperimentError(said) from error
                raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody else writes in the folder meanwhile."""
        try:
            with ExitStack() as opened:
                lock = opened.enter_context((self.directory / ".lock").open("ab"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = opened.pop_all()
        except BlockingIOError as error:
            raise ExperimentError(f"{self.directory} is in use by another process: wait for it") from error
        except OSError as error:
            raise ExperimentError(f"cannot write in {self.directory} ({reason(error)}): choose another one") from error
        with held:
            yield

    def _start(self) -> None:
        """Clear or reopen the folder, and write config.json and meta.json."""
        if self._if_exists == "overwrite":
            self._clear()
        _write_json(self.directory / "config.json", self.config)
        where = {key.split(".")[-1]: value for key, value in flatten(self.config).items()}
        stretch = {name: where.get(name) for name in ("device", "threads")}
        self._write_meta(describe_start(self._suite, self._results_version, self._previous_meta(), stretch))
        if not self._metrics.exists():
            write_text(self._metrics, ",".join(self.columns) + "\n")

    def restore(self, agent: Any) -> int:
        """Load the checkpoint, if any, into ``agent`` and cut metrics.csv back; its step, or 0, is returned."""
        path = self.directory / "checkpoint.pt"
        if not path.exists():
            self._cut_metrics(0)
            return 0
        advice = f"delete it to train this run again from the start, or use {self._flag}=overwrite"
        step, self.wall_s = restore_agent(agent, path, advice)
        self._cut_metrics(step)
        return step

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Append one row; what a row lacks, or has as None, becomes an empty cell.

        Raises:
            ExperimentError: a value is not finite.
        """
        bad = [name for name, value in row.items() if value is not None and not math.isfinite(value)]
        if bad:
            raise ExperimentError(f"step {row['step']}: {bad[0]} is {row[bad[0]]}; {self.last_checkpoint()}")
        unknown = set(row) - set(self.columns)
        if unknown:
            raise ValueError(f"not columns of metrics.csv: {sorted(unknown)}")
        cells = ["" if row.get(name) is None else repr(row[name]) for name in self.columns]
        append_line(self._metrics, ",".join(cells))

    def save(self, agent: Any, step: int) -> None:
        """Write checkpoint.pt atomically.

        Raises:
            ExperimentError: a weight is not finite; the previous checkpoint stays.
        """
        state = {"step": step, "wall_s": self.wall_s, "agent": agent.state_dict()}
        if not is_finite(state):
            raise ExperimentError(f"step {step}: a weight is not finite; {self.last_checkpoint()}")
        write_checkpoint(self.directory / "checkpoint.pt", state)

    def last_checkpoint(self) -> str:
        """A clause that names the last good checkpoint."""
        path = self.directory / "checkpoint.pt"
        if not path.exists():
            return "no checkpoint was written yet: lower the learning rate and start again"
        return f"the last good checkpoint is {path} of step {read_checkpoint(path)['step']}"

    def _stopped(self, status: str) -> None:
        """Note in meta.json how the run stopped; where there is no room for another file, that it did."""
        if not self._meta:
            return
        try:
            self._write_meta(self._meta | {"stop": now(), "status": status})
        except ExperimentError:
            path = self.directory / "meta.json"
            with suppress(OSError):
                text = path.read_bytes().replace(b'"status": "running"', b'"status": "stopped"')
                with path.open("r+b", buffering=0) as file:
                    file.write(text)  # as many bytes as before

    @property
    def _metrics(self) -> Path:
        return self.directory / "metrics.csv"

    def _require_empty(self) -> None:
        if _holds_something(self.directory):
            raise ExperimentError(
                f"{self.directory} exists: add {self._flag}=resume to go on, or {self._flag}=overwrite to start again"
            )

    def _clear(self) -> None:
        # A kill in between must leave a run folder (config.json goes last) that is not called done (DONE goes first).
        order = {"DONE": 0, "config.json": 2}
        for entry in sorted(self.directory.iterdir(), key=lambda entry: order.get(entry.name, 1)):
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != ".lock":
                entry.unlink()

    def _require_same_config(self, free: Sequence[str], newer: Mapping[str, Any]) -> None:
        try:
            old = flatten(json.loads((self.directory / "config.json").read_text(encoding="utf-8")))
        except (ValueError, AttributeError) as error:
            raise ExperimentError(f"{self.directory}/config.json is damaged: use {self._flag}=overwrite") from error
        new = flatten(json.loads(json.dumps(self.config)))
        old = {key: value for key, value in newer.items() if key in new} | old
        for key in sorted(old.keys() | new.keys()):
            if key.split(".")[-1] not in free and old.get(key) != new.get(key):
                raise ExperimentError(
                    f"{self.directory} was run with {key} = {old.get(key)}, not {new.get(key)}: repeat with the "
                    f"same value, or use {self._flag}=overwrite"
                )

    def _require_same_version(self) -> None:
        meta = self._previous_meta()
        if meta and meta.get("results_version") != self._results_version:
            raise ExperimentError(
                f"{self.directory} has results version {meta.get('results_version', 'none')}, this program computes "
                f"version {self._results_version}: use {self._flag}=overwrite, or the program of commit "
                f"{meta.get('git_hash')}"
            )

    def _previous_meta(self) -> dict[str, Any]:
        path = self.directory / "meta.json"
        if not path.exists():
            return {}
        try:
            return {**json.loads(path.read_text(encoding="utf-8"))}
        except (ValueError, TypeError) as error:
            raise ExperimentError(f"{path} is damaged: delete it to go on without what it said") from error

    def _write_meta(self, meta: dict[str, Any]) -> None:
        self._meta = meta
        _write_json(self.directory / "meta.json", meta)

    def _cut_metrics(self, step: int) -> None:
        try:
            names, rows = read_rows(self._metrics, list, torn=True)
        except ExperimentError as error:
            raise ExperimentError(f"{error}, or use {self._flag}=overwrite") from error
        if not {"step"} <= set(names) <= set(self.columns):  # a column that is newer than the run is empty so far
            raise ExperimentError(
                f"{self._metrics} has other columns than this program: use {self._flag}=overwrite, or the program of "
                f"commit {self._meta.get('git_hash')}"
            )
        kept = [",".join(row.get(name, "") for name in self.columns) for row in rows if float(row["step"]) <= step]
        write_text(self._metrics, "\n".join([",".join(self.columns), *kept]) + "\n")


def read_metrics(directory: Path) -> dict[str, list[float]]:
    """metrics.csv of a run folder as columns; an empty cell is NaN. Raises ExperimentError where it is damaged."""
    names, rows = read_rows(directory / "metrics.csv", list, torn=True)
    return {name: [float(row[name] or math.nan) for row in rows] for name in names if rows}


def _holds_something(directory: Path) -> bool:
    """Whether there is anything to lose; what a kill before config.json leaves behind does not count."""
    if not directory.is_dir():
        return directory.exists()
    return any(entry.name != ".lock" and entry.suffix != ".partial" for entry in directory.iterdir())


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _write_json(path: Path, value: dict[str, Any]) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")
