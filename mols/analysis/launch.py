"""Run the lines of a sweep on Ray: the same way on one machine and on a cluster.

    bash <suite>/sweeps/<figure>.sh | python -m <suite>.analysis.launch [--address auto] [--cpus 1] [--gpus 0]

Each line is a shell command, run at the repository's root of the node that takes it. A line that fails, or whose worker
or node dies, is started again; going on from its checkpoint is its own business (``if_exists resume``). Ctrl-C, or the
death of a worker, interrupts the runs. This file is the same, byte for byte, in every suite.

    driver  --Ray task-->  worker (run_line)  --pipe-->  guard  -->  the line, in a process group of its own
"""

import argparse
import contextlib
import hashlib
import logging
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from ..common.files import append_line, make_folder
from ..common.terminal import ExperimentError, command, duration

ROOT, SUITE = Path(__file__).resolve().parents[2], Path(__file__).resolve().parents[1].name
RETRY_SECONDS = 2.0  # before the first retry; doubles
STOP_SECONDS = ((signal.SIGINT, 30.0), (signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0))
REPORT_SECONDS = 60.0  # between tables where there is no terminal
STORE_BYTES = 100 * 2**20  # of a local Ray's object store, which holds nothing but exit statuses


@dataclass
class Job:
    """A line, and what became of it."""

    line: str
    label: str
    log: Path
    attempts: int = 0
    changed: float = 0.0  # when it started, or may start again; time.monotonic()
    seconds: float = 0.0  # of its last attempt

    def last_words(self) -> str:
        """The last line of the log that says something."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 4096))
            return re.split(r"[\r\n]+", file.read().decode(errors="replace").strip())[-1]


def read_jobs(text: str, logs: Path) -> list[Job]:
    """A job for each distinct line; blank lines and comments are none. Raises ExperimentError when there is no line."""
    lines = dict.fromkeys(line.strip() for line in text.splitlines())
    words = {line: _words(line) for line in lines if line and not line.startswith("#")}
    if not words:
        raise ExperimentError(f"there is no command to run: pipe a sweep in, bash {SUITE}/sweeps/FIGURE.sh | ...")
    common = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    jobs = []
    for line, own in words.items():
        slug = re.sub(r"[^\w.=-]+", "-", " ".join(own), flags=re.ASCII)[:150]
        name = f"{slug}-{hashlib.sha256(os.fsencode(line)).hexdigest()[:8]}"
        jobs.append(Job(line, " ".join(word for word in own if word not in common) or name, logs / f"{name}.log"))
    return jobs


def _words(line: str) -> list[str]:
    """What a reader tells lines by: ``option=value`` for each option, without sections and folders."""
    pairs = re.sub(r"\s-+([\w.]+)[\s=](?=[^\s-])", r" \1=", line).split()
    return [re.sub(r"^[\w.]+\.(?=\w+=)|[^\s=]*[/:]|['\"]", "", word).strip("-") for word in pairs]


def run_line(line: str, log: Path) -> int:
    """Run a line to its end, in a Ray worker, with its output at the end of ``log``; returns its exit status."""
    make_folder(log.parent)
    append_line(log, f"[launch] {time.strftime('%Y-%m-%d %H:%M:%S')}, {os.uname().nodename}: {line}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    process = subprocess.Popen(
        [sys.executable, "-c", f"from {SUITE}.launch import guard; guard()", line, log],
        cwd=ROOT,
        env=os.environ | {"PATH": path},  # so that `python` is this one
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        while not select.select([process.stdout], [], [], 0.2)[0]:
            pass  # where Ray can cancel this task, by a KeyboardInterrupt
    finally:
        process.stdin.close()
        answer = process.stdout.read()
        process.wait()
    return int(answer)


def guard() -> None:
    """Run the line ``argv[1]``, output to the file ``argv[2]``; print its exit status.

    When the standard input ends, the worker has ended or was killed: then the line is stopped.
    """
    if os.fork():
        return  # Ray kills a worker's children with it: this one has to outlive it, to stop the line
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # Ray's processes block it, and bash leaves it so
    with Path(sys.argv[2]).open("ab") as log:
        streams = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": subprocess.STDOUT}
        child = subprocess.Popen(sys.argv[1], shell=True, process_group=0, **streams)
    while child.poll() is None:
        if select.select([sys.stdin], [], [], 0.2)[0]:
            _stop(child)
    print(child.returncode, flush=True)


def _stop(child: subprocess.Popen) -> None:
    """Signal the process group of ``child``, ever more strictly, until nothing of it is left."""
    with contextlib.suppress(ProcessLookupError):  # which says so
        for number, seconds in STOP_SECONDS:
            end = time.monotonic() + seconds
            os.killpg(child.pid, number)
            while time.monotonic() < end:
                child.poll()
                os.killpg(child.pid, 0)
                time.sleep(0.05)


class Screen:
    """On a terminal, events above a table that is drawn again and again; otherwise lines."""

    def __init__(self) -> None:
        self._live, self._drawn, self._shown = sys.stdout.isatty(), 0, time.monotonic()

    def show(self, *rows: str) -> None:
        """Print rows, in the place of the table."""
        print((f"\x1b[{self._drawn}F\x1b[J" if self._drawn else "") + "\n".join(rows), flush=True)
        self._drawn = 0

    def table(self, *rows: str) -> None:
        """Print rows, if it is time to, that the next ones take the place of."""
        if self._live or time.monotonic() - self._shown >= REPORT_SECONDS:
            width, height = shutil.get_terminal_size((200, 50))
            rows = tuple(row[: width - 1] for row in rows[: height - 1])
            self.show(*rows)
            self._drawn, self._shown = len(rows) if self._live else 0, time.monotonic()


def _row(job: Job) -> str:
    return f"  {duration(time.monotonic() - job.changed):>11}  {job.label}  {job.last_words()}"


class Sweep:
    """The jobs, on a Ray that is initialised.

    Args:
        jobs: what to run, in this order.
        cpus, gpus: that each takes.
        retries: how often a job that failed is started again.
    """

    def __init__(self, jobs: list[Job], *, cpus: float, gpus: float, retries: int) -> None:
        import ray

        self._ray, self._takes, self._retries = ray, {"CPU": cpus, "GPU": gpus}, retries
        self._task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(run_line)
        self.waiting, self.running, self.done, self.failed = list(jobs), {}, [], []
        self._screen, self._start = Screen(), time.monotonic()

    def slots(self) -> int:
        """How many jobs fit on the nodes that live."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        takes = [(name, amount) for name, amount in self._takes.items() if amount]
        return sum(min(int(node.get(name, 0) / amount + 1e-9) for name, amount in takes) for node in nodes)

    def run(self) -> None:
        """Until every job is done or has failed for good; on an interrupt, until every job has stopped."""
        try:
            while self.waiting or self.running:
                slots = self.slots()
                self._submit(slots - len(self.running))
                for ref in self._ray.wait(list(self.running), timeout=1.0)[0]:
                    self._finish(ref, self.running.pop(ref))
                if not self.running:
                    time.sleep(0.2)
                self._screen.table(self._status(slots), *map(_row, self.running.values()))
        except KeyboardInterrupt:
            self._screen.show(f"stopping {len(self.running)} runs")
            for ref in self.running:
                self._ray.cancel(ref)
            self._ray.wait(list(self.running), num_returns=len(self.running) or 1, timeout=60.0)
            raise

    def _submit(self, n: int) -> None:
        now = time.monotonic()
        for job in [job for job in self.waiting if job.changed <= now][: max(n, 0)]:
            self.waiting.remove(job)
            job.attempts, job.changed = job.attempts + 1, now
            self.running[self._task.remote(job.line, job.log)] = job

    def _finish(self, ref: object, job: Job) -> None:
        job.seconds = time.monotonic() - job.changed
        try:
            status = self._ray.get(ref)
            problem = f"exit status {status}" if status else ""
        except self._ray.exceptions.RayError as error:  # a dead worker or node, or a folder that cannot be written
            problem = f"{type(error).__name__}, {str(error).strip().splitlines()[-1].split('. ')[0]}"
        if not problem:
            self.done.append(job)
            self._screen.show(f"done in {duration(job.seconds)}: {job.label}")
        elif job.attempts <= self._retries:
            job.changed = time.monotonic() + RETRY_SECONDS * 2 ** (job.attempts - 1)
            self.waiting.insert(0, job)
            self._screen.show(f"will try again: {job.label}: {problem}: {job.last_words()}")
        else:
            self.failed.append(job)
            self._screen.show(f"failed: {job.label}: {problem}")

    def _status(self, slots: int) -> str:
        now, n_left = time.monotonic(), len(self.waiting) + len(self.running)
        text = f"{len(self.running)} running, {len(self.waiting)} waiting, {len(self.done)} done, "
        text += f"{len(self.failed)} failed, {duration(now - self._start)}"
        if not (self.done and n_left and slots):
            return text
        each = sum(job.seconds for job in self.done) / len(self.done)
        rest = each * n_left - sum(min(each, now - job.changed) for job in self.running.values())
        return f"{text}, about {duration(rest / min(slots, n_left))} left"

    def summary(self) -> str:
        """What became of the jobs; for those that failed, where to look."""
        n_retries = sum(job.attempts - 1 for job in self.done + self.failed)
        text = f"{len(self.done)} done, {len(self.failed)} failed, {n_retries} retries"
        return "\n".join([text, *(f"failed: {job.line}\n    {job.log}: {job.last_words()}" for job in self.failed)])


def connect(address: str | None) -> None:
    """Join the cluster at ``address``, or start Ray on this machine alone. Raises ExperimentError."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}  # nor pages about dead nodes
    try:
        import ray
    except ImportError as error:
        raise ExperimentError("this needs Ray: pip install -e '.[cluster]'") from error
    local = {} if address else {"include_dashboard": False, "object_store_memory": STORE_BYTES}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ExperimentError(f"no Ray at {address or 'this machine'} ({reason}): start it by ray start") from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C; Ray has just set its own


def launch(file: Path | None, address: str | None, logs: Path, **takes: float) -> list[Job]:
    """Run a sweep, as the command line's options say; returns the jobs that failed. Raises ExperimentError."""
    if not (min(takes.values()) >= 0 and 0 < takes["cpus"] + takes["gpus"] < float("inf")):
        raise ExperimentError("--cpus, --gpus and --retries must be 0 or more, and a run must take some CPU or GPU")
    if file and not file.is_file():
        raise ExperimentError(f"there is no file {file}: name a file of commands, or pipe them into this")
    # Decoded as the system's calls encode: the bytes of a line stay what they are.
    text = os.fsdecode(file.read_bytes() if file else b"" if sys.stdin.isatty() else sys.stdin.buffer.read())
    jobs = read_jobs(text, logs.resolve())
    connect(address)
    sweep = Sweep(jobs, **takes)
    if not sweep.slots():
        raise ExperimentError(f"no node has {takes['cpus']:g} CPUs and {takes['gpus']:g} GPUs: lower --cpus or --gpus")
    make_folder(logs)
    sweep.run()
    print(sweep.summary())
    return sweep.failed


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {SUITE}.launch", description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="the lines; by default the standard input's")
    parser.add_argument("--address", help="of a running cluster; auto: this machine's. By default Ray starts here")
    parser.add_argument("--cpus", type=float, default=1.0, help="of each run (1)")
    parser.add_argument("--gpus", type=float, default=0.0, help="of each run; 0.5: two share one (0)")
    parser.add_argument("--retries", type=int, default=3, help="of a run that fails, or whose worker dies (3)")
    parser.add_argument("--logs", type=Path, default=ROOT / "runs" / "logs", help="folder of the log files (runs/logs)")
    arguments, failed = parser.parse_args(argv), []
    status = command(lambda: failed.extend(launch(**vars(arguments))), "repeat the command to go on")
    return status or int(bool(failed))


if __name__ == "__main__":
    from .launch import main as command  # this module by its name: Ray's workers import it from where they are

    sys.exit(command())
