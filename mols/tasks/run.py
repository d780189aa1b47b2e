"""How a run of a molecule task goes from its arguments to its pictures."""

import json
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from ml_collections import ConfigDict
from tqdm import tqdm

from mols import settings
from mols.common.options import Group, free_fields
from mols.common.run_folder import Run
from mols.common.terminal import ExperimentError, command, duration
from mols.common.tracking import Tracker
from mols.suite import NEWER, RESULTS_VERSIONS

SUITE = Path(__file__).resolve().parents[1]
LONG_S = 12 * 3600  # a run that takes more says so
TIMED_ITERATIONS = 3  # after so many; the one before them compiles


def main(argv: list[str], model: type[Group], make_task: Callable, resolve: Callable | None = None) -> int:
    """Run the arguments ``argv`` of a task; returns the exit status.

    Args:
        argv: without the program's name.
        model: its settings.
        make_task: configuration -> ``mols.agents.task.Task``.
        resolve: replaces, in a configuration, what this machine decides; None: nothing.
    """

    def work() -> None:
        config = settings.parse(argv, model)
        directory = settings.run_directory(config, model)  # before: its name is to be the same on every machine
        settle(config, directory, resolve)
        run_experiment(config, directory, model, make_task)

    return command(work, "go on with --if_exists resume")


def settle(config: ConfigDict, directory: Path, resolve: Callable | None) -> None:
    """Replace what a configuration leaves open by what the run folder says, else by what this machine has.

    Args:
        config: in which auto is replaced, and the source of an own reward is recorded.
        directory: of the run.
        resolve: as above.

    Raises:
        ExperimentError: a file or an own reward cannot be found, or the reward's source has changed.
    """
    recorded = {} if config.if_exists == "overwrite" else recorded_config(directory)
    for name in ("proxy", "test_set"):
        if config.get(name) == settings.AUTO:
            config[name] = recorded.get(name, settings.AUTO)
    if resolve is not None:
        resolve(config)
    if "reward" in config:
        from mols.rewards.own_function import load_function

        config.reward_source = load_function(config.reward).source
        before = recorded.get("reward_source", "")
        if config.if_exists == "resume" and before not in ("", config.reward_source) and not config.reward_changed:
            raise ExperimentError(
                f"the source of --reward {config.reward} has changed since {directory} began: add --reward_changed to "
                "go on with it, the rewards that are known already being kept, or use --if_exists=overwrite"
            )


def recorded_config(directory: Path) -> dict[str, Any]:
    """The configuration in a run folder; empty where there is none that can be read."""
    try:
        return dict(json.loads((directory / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # which ``Run`` says
        return {}


def run_experiment(config: ConfigDict, directory: Path, model: type[Group], make_task: Callable) -> None:
    """Train and draw one run.

    Raises:
        ExperimentError: the run cannot start, or cannot go on.
    """
    run = Run(
        directory,
        config.to_dict(),
        if_exists=config.if_exists,
        flag="--if_exists",
        suite=SUITE,
        results_version=RESULTS_VERSIONS[config.algo],
        free=(*free_fields(model), "reward_source"),  # which ``settle`` looks at
        newer=NEWER,
    )
    if run.done:
        print(f"{run.directory} is done")
        return
    # Seconds to import: what can be answered without them is answered before.
    from mols.agents.table import columns, make_agent
    from mols.common.algorithm import train
    from mols.plots import draw_run

    torch.set_num_threads(config.threads)
    with closing(make_task(config)) as task, run.recorded(own := columns(task.thresholds)):
        agent = make_agent(config, task)
        train(
            agent,
            run,
            validation_interval=config.validate_every,
            checkpoint_interval=config.checkpoint_every,
            tracker=EstimatingTracker,
            main_metric=own[0],
            tensorboard=config.tensorboard,
            wandb_project=config.wandb,
        )
        draw_run(run.directory, agent.molecules)
    print(run.directory)


class EstimatingTracker(Tracker):
    """A tracker that says once, of a long run, what it will take, and what takes minutes."""

    _timed, _start = -1, 0.0

    def advance(self, step: int, loss: float | None) -> None:
        """One step is done."""
        super().advance(step, loss)
        self._timed += 1
        if self._timed == 0:
            self._start = time.perf_counter()
        elif self._timed == TIMED_ITERATIONS:
            seconds = (time.perf_counter() - self._start) / TIMED_ITERATIONS * (self._n_steps - step)
            if seconds > LONG_S:
                small = "bash mols/sweeps/seh_small.sh and qm9_small.sh print runs of minutes"
                tqdm.write(f"{self._name}: this will take about {duration(seconds)} on this machine; {small}")
