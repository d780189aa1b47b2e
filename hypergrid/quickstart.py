"""The two runs of quickstart.sh at once: a bar of each, a table of both, and the path of their picture.

python -m hypergrid.quickstart [TRAJECTORIES]
"""

import argparse
import math
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import IO

from hypergrid import settings
from hypergrid.common.run_folder import read_metrics
from hypergrid.common.terminal import command
from hypergrid.common.tracking import Tracker

APPROACHES = ("tlm", "uniform")
CONFIGS = Path(__file__).parent / "experiments" / "config"
POLL_SECONDS = 0.5
COLUMNS = ("approach", "l1_dist", "floor", "exact total variation", "minutes")


def command_line(approach: str, n_trajectories: int) -> list[str]:
    """The program of a run and its arguments."""
    return [
        str(Path(__file__).with_name("run_hypergrid_exp.py")),
        *("--general", f"{CONFIGS}/general.py:3", "--env", f"{CONFIGS}/hypergrid.py:standard"),
        *("--algo", f"{CONFIGS}/algo.py:munchausen_dqn", f"--algo.backward_approach={approach}"),
        *(f"--general.n_trajectories={n_trajectories}", "--general.exact_interval=1000"),
        *(f"--general.output_dir=runs/quickstart-{n_trajectories}", "--general.if_exists=resume"),
    ]


@contextmanager
def started(argv: list[str], errors: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """A run in a process; if it is still there at the end it is interrupted, once, and waited for."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": errors}
    with subprocess.Popen([sys.executable, *argv], start_new_session=True, **quiet) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)


def watched(approach: str, argv: list[str], directory: Path, n_steps: int) -> Generator[None, None, None]:
    """A run from its start to its end; each step of the iteration is a look at how far it is."""
    seen, status = int(last_row(directory).get("step", 0)), None
    tracker = Tracker(
        f"{approach:7}",
        n_steps=n_steps,
        first_step=seen,
        main_metric="l1_dist",
        directory=directory,
        config={},
    )
    with tempfile.TemporaryFile() as errors, started(argv, errors) as process, tracker:
        while status is None:
            yield
            status, row = process.poll(), last_row(directory)  # in this order: no row is missed
            if row.get("step", 0) > seen:
                seen = int(row["step"])
                tracker.log(row)
                tracker.advance(seen, None if math.isnan(row["loss"]) else row["loss"])
        if status:
            errors.seek(0)
            sys.stderr.buffer.write(errors.read())
            sys.exit(status)


def last_row(directory: Path) -> dict[str, float]:
    """The last row of a run's metrics.csv; empty before the first."""
    if not (directory / "metrics.csv").exists():
        return {}
    return {name: values[-1] for name, values in read_metrics(directory).items()}


def table(rows: dict[str, dict[str, float]]) -> str:
    """The last row of each run, under one another."""
    cells = [COLUMNS]
    for approach, row in rows.items():
        distances = [f"{row[name]:.3g}" for name in ("l1_dist", "l1_floor", "exact_total_variation")]
        cells.append((approach, *distances, f"{row['wall_s'] / 60:.1f}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in cells)


def quickstart(n_trajectories: int) -> None:
    """Train what is not trained yet, print the table, draw the picture, print its path."""
    argvs = {approach: command_line(approach, n_trajectories) for approach in APPROACHES}
    configs = {approach: settings.parse(argv) for approach, argv in argvs.items()}
    directories = {approach: settings.run_directory(config).absolute() for approach, config in configs.items()}
    n_steps = -(-n_trajectories // configs["tlm"].general.n_envs)
    with ExitStack() as stack:  # what stops one run stops both
        runs = [watched(name, argvs[name], directories[name], n_steps) for name in APPROACHES]
        running = [stack.enter_context(closing(run)) for run in runs]
        while running := [run for run in running if next(run, "ended") != "ended"]:
            time.sleep(POLL_SECONDS)
    from hypergrid.plots import draw_comparison  # seconds, which the runs need more

    picture = directories["tlm"].parents[3] / "quickstart.png"
    draw_comparison(list(directories.values()), picture)
    print(table({approach: last_row(directory) for approach, directory in directories.items()}))
    print(picture)


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hypergrid.quickstart", description=__doc__.splitlines()[0])
    parser.add_argument("trajectories", type=int, nargs="?", default=120_000, help="of each run; the paper's: 1000000")
    n_trajectories = parser.parse_args(argv).trajectories
    for stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(stop, signal.default_int_handler)
    return command(lambda: quickstart(n_trajectories), "bash hypergrid/quickstart.sh goes on where it stopped")


if __name__ == "__main__":
    sys.exit(main())
