"""Run the lines of a sweep on Ray: the same way on one machine and on a cluster.

    bash <suite>/sweeps/<figure>.sh | python -m <suite>.analysis.launch [--address auto] [--cpus 1] [--gpus 0]

Each line is a shell command, run at the repository's root of the node that takes it. Ray queues the lines, and starts
one again that fails, or whose worker or node dies; going on from its checkpoint is its own business (``if_exists
resume``), so that a line may be killed at any moment. Ctrl-C, or the death of a worker, kills the lines that run.
This file is the same, byte for byte, in every suite.
"""

import argparse
import hashlib
import logging
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..common.files import append_line, make_folder
from ..common.terminal import ExperimentError, command, duration

ROOT, SUITE = Path(__file__).resolve().parents[2], Path(__file__).resolve().parents[1].name
RETRY_SECONDS = 2.0  # before a line that failed ends: time for what held it up to go
# Runs a line, and kills all that it started once the pipe that is this shell's input ends, which the worker holds.
SHELL = 'exec 3<&0 </dev/null; { cat <&3 >/dev/null; kill -KILL 0; } & exec 3<&-; eval "$0"'


def read_lines(text: str, logs: Path) -> dict[str, Path]:
    """Each line that is not blank or a comment, once, and its log file. Raises ExperimentError if there is none."""
    found = {}
    for line in map(str.strip, text.splitlines()):
        if line and not line.startswith("#"):
            words = re.sub(r"[^\w.=]+", "-", re.sub(r"[^\s=]*/", "", line), flags=re.ASCII)[:150].strip("-")
            found[line] = logs / f"{words}-{hashlib.sha256(os.fsencode(line)).hexdigest()[:8]}.log"
    if not found:
        raise ExperimentError(f"there is no command to run: pipe a sweep in, bash {SUITE}/sweeps/FIGURE.sh | ...")
    return found


def run_line(line: str, log: Path) -> float:
    """Run a line to its end, in a Ray worker, with its output at the end of ``log``; returns the seconds it took.

    Raises:
        ExperimentError: it failed.
    """
    make_folder(log.parent)
    append_line(log, f"[launch] {time.strftime('%Y-%m-%d %H:%M:%S')}, {os.uname().nodename}: {line}")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # so that `python` is this one
    with log.open("ab") as file:
        streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": file, "stderr": file}
        options: dict[str, Any] = {"cwd": ROOT, "env": os.environ | {"PATH": path}, "start_new_session": True}
        shell = subprocess.Popen(["bash", "-c", SHELL, line], **streams, **options)
    start = time.monotonic()
    try:
        while shell.poll() is None:
            time.sleep(0.2)  # where Ray can cancel this task, by a KeyboardInterrupt
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
    if shell.returncode:
        time.sleep(RETRY_SECONDS)
        last_words = re.split(r"[\r\n]+", log.read_text(encoding="utf-8", errors="replace").strip())[-1]
        raise ExperimentError(f"exit status {shell.returncode}: {last_words}")
    return time.monotonic() - start


def connect(address: str | None, cpus: float, gpus: float) -> None:
    """Join the cluster at ``address``, or start Ray on this machine alone.

    Raises:
        ExperimentError: there is no Ray, or no node that has what a run takes.
    """
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "."}  # nor pages about dead nodes
    try:
        import ray
    except ImportError as error:
        raise ExperimentError("this needs Ray: pip install -e '.[cluster]'") from error
    local: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": 100 * 2**20}
    try:
        ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ExperimentError(f"no Ray at {address or 'this machine'} ({reason}): start it by ray start") from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C; Ray has just set its own
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        raise ExperimentError(f"no node has {cpus:g} CPUs and {gpus:g} GPUs: lower --cpus or --gpus")


def launch(lines: dict[str, Path], cpus: float, gpus: float, retries: int) -> dict[str, str]:
    """Run lines on the Ray that is connected; returns those that failed for good, and why."""
    import ray

    task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=retries, retry_exceptions=True)(run_line)
    left, failed = {task.remote(line, log): line for line, log in lines.items()}, {}
    try:
        with tqdm(total=len(lines), unit="run", disable=None) as bar:  # on a terminal alone
            while left:
                (ref,), _ = ray.wait(list(left))
                line = left.pop(ref)
                try:
                    bar.write(f"done in {duration(ray.get(ref))}: {lines[line].stem}")
                except ray.exceptions.RayError as error:  # of the line, or of a worker or node that died
                    failed[line] = str(getattr(error, "cause", type(error).__name__))
                    bar.write(f"failed: {lines[line].stem}: {failed[line]}")
                bar.update()
    except KeyboardInterrupt:
        for ref in left:
            ray.cancel(ref)
        if left:
            ray.wait(list(left), num_returns=len(left), timeout=30.0)
        raise
    return failed


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status: 1 where a line failed."""
    parser = argparse.ArgumentParser(prog=f"python -m {SUITE}.analysis.launch", description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="the lines; by default the standard input's")
    parser.add_argument("--address", help="of a running cluster; auto: this machine's. By default Ray starts here")
    parser.add_argument("--cpus", type=float, default=1.0, help="of each run (1)")
    parser.add_argument("--gpus", type=float, default=0.0, help="of each run; 0.5: two share one (0)")
    parser.add_argument("--retries", type=int, default=3, help="of a run that fails, or whose worker dies (3)")
    parser.add_argument("--logs", type=Path, default=ROOT / "runs" / "logs", help="folder of the log files (runs/logs)")
    asked, failed = parser.parse_args(argv), {}

    def work() -> None:
        if not (min(asked.cpus, asked.gpus, asked.retries) >= 0 and 0 < asked.cpus + asked.gpus < float("inf")):
            raise ExperimentError("--cpus, --gpus and --retries must be 0 or more, and a run must take some CPU or GPU")
        # Decoded as the system's calls encode: the bytes of a line stay what they are.
        text = os.fsdecode(asked.file.read_bytes() if asked.file else sys.stdin.buffer.read())
        lines = read_lines(text, asked.logs.resolve())
        connect(asked.address, asked.cpus, asked.gpus)
        make_folder(asked.logs)
        failed.update(launch(lines, asked.cpus, asked.gpus, asked.retries))
        print(f"{len(lines) - len(failed)} done, {len(failed)} failed")
        for line, reason in failed.items():
            print(f"failed: {line}\n    {lines[line]}: {reason}")

    return command(work, "repeat the command to go on") or int(bool(failed))


if __name__ == "__main__":
    from .launch import main as by_name  # this module by its name: Ray's workers import it from where they are

    sys.exit(by_name())
