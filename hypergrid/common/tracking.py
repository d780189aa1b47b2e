"""What a run shows while it runs: a progress bar or plain lines, and TensorBoard or wandb when asked for.

The run folder is complete without any of this; nothing here is read back. wandb and TensorBoard are imported
only when they are switched on, and wandb works without a network under ``WANDB_MODE=offline``.
This file is the same, byte for byte, in every suite.
"""

import sys
import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .terminal import ExperimentError, duration

PLAIN_LINE_SECONDS = 10.0


class Tracker:
    """Progress of one run, as a context manager.

    Args:
        name: shown before the progress.
        n_steps: total iterations.
        first_step: the step that a resumed run starts from.
        main_metric: the column shown beside rate, loss and time left.
        directory: the run folder, for the back-ends' own files.
        config: shown by wandb.
        tensorboard: write event files to ``<directory>/tensorboard``.
        wandb_project: wandb project; empty: off.
    """

    def __init__(
        self,
        name: str,
        *,
        n_steps: int,
        first_step: int,
        main_metric: str,
        directory: Path,
        config: dict[str, Any],
        tensorboard: bool = False,
        wandb_project: str = "",
    ) -> None:
        self._name, self._n_steps, self._main_metric = name, n_steps, main_metric
        self._main_value: float | None = None
        self._line_step, self._line_time, self._started = first_step, time.perf_counter(), False
        self._bar = tqdm(total=n_steps, initial=first_step, desc=name, unit="it") if sys.stderr.isatty() else None
        self._tensorboard = _tensorboard_writer(directory, first_step) if tensorboard else None
        self._wandb = _wandb_run(wandb_project, name, directory, config) if wandb_project else None

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=int(exception[0] is not None))

    def advance(self, step: int, loss: float | None) -> None:
        """So many steps are done: move the bar, or write a plain line now and then."""
        if self._bar is not None:
            self._bar.update(step - self._bar.n)
            if step % 50 == 0:
                self._bar.set_postfix_str(self._values(loss), refresh=False)
            return
        if not self._started and step < self._n_steps:
            # The first step also compiles and loads: it says nothing of the time left.
            self._line_step, self._line_time, self._started = step, time.perf_counter(), True
            return
        seconds = time.perf_counter() - self._line_time
        if seconds >= PLAIN_LINE_SECONDS or step == self._n_steps:
            rate = (step - self._line_step) / seconds
            self._line_step, self._line_time = step, time.perf_counter()
            left, values = duration((self._n_steps - step) / rate), self._values(loss)
            print(f"{self._name}: {step}/{self._n_steps}  {rate:.1f} it/s  {left} left  {values}", flush=True)

    def log(self, row: dict[str, Any]) -> None:
        """Hand a row of metrics to the back-ends."""
        self._main_value = row.get(self._main_metric, self._main_value)
        scalars = {k: v for k, v in row.items() if v is not None and k != "step"}
        if self._tensorboard is not None:
            for key, value in scalars.items():
                self._tensorboard.add_scalar(key, value, row["step"])
        if self._wandb is not None:
            self._wandb.log(scalars, step=row["step"])

    def _values(self, loss: float | None) -> str:
        shown = [("loss", loss), (self._main_metric, self._main_value)]
        return "  ".join(f"{key} {value:.4g}" for key, value in shown if value is not None)


def _tensorboard_writer(directory: Path, first_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(directory / "tensorboard"), purge_step=first_step + 1)


def _wandb_run(project: str, name: str, directory: Path, config: dict[str, Any]) -> Any:
    try:
        import wandb

        # No resumption by id: offline runs cannot be resumed, and the folder is the record that counts.
        return wandb.init(project=project, name=name, dir=str(directory), config=config)
    except ImportError as error:
        raise ExperimentError("wandb is not installed: pip install wandb, or leave the project empty") from error
    except (wandb.errors.CommError, wandb.errors.UsageError) as error:
        raise ExperimentError(
            f"wandb cannot start ({error}): set WANDB_MODE=offline, or leave the project empty"
        ) from error
