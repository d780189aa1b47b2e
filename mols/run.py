"""How a run of a molecule task goes from its arguments to its pictures."""

import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch
from ml_collections import ConfigDict

from mols import settings
from mols.experiment import ExperimentError, Run

SUITE = Path(__file__).resolve().parent


def main(argv: list[str], name: str, groups: settings.Groups, make_task: Callable) -> int:
    """Run the arguments ``argv`` of a task; returns the exit status.

    Args:
        argv: without the program's name.
        name: of the task.
        groups: its options.
        make_task: configuration -> ``mols.task.Task``.
    """
    try:
        run_experiment(settings.parse(argv, name, groups), groups, make_task)
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: go on with --if_exists resume", file=sys.stderr)
        return 130
    return 0


def run_experiment(config: ConfigDict, groups: settings.Groups, make_task: Callable) -> None:
    """Train and draw one run.

    Raises:
        ExperimentError: the run cannot start, or cannot go on.
    """
    run = Run(
        settings.run_directory(config, groups),
        config.to_dict(),
        if_exists=config.if_exists,
        flag="--if_exists",
        suite=SUITE,
        free=settings.FREE_OPTIONS,
    )
    if run.done:
        print(f"{run.directory} is done")
        return
    # Seconds to import: what can be answered without them is answered before.
    from mols.agent import columns, make_agent
    from mols.algorithm import train
    from mols.plots import draw_run
    from mols.tracking import Tracker

    torch.set_num_threads(config.threads)
    with closing(make_task(config)) as task, run.recorded(own := columns(task.thresholds)):
        agent = make_agent(config, task)
        first = run.restore(agent)
        tracker = Tracker(
            run.name,
            n_steps=agent.n_steps,
            first_step=first,
            main_metric=own[0],
            directory=run.directory,
            config=run.config,
            tensorboard=config.tensorboard,
            wandb_project=config.wandb,
        )
        with tracker:
            train(
                agent,
                run,
                tracker,
                first_step=first,
                n_steps=agent.n_steps,
                validation_interval=config.validate_every,
                checkpoint_interval=config.checkpoint_every,
            )
        draw_run(run.directory, agent.molecules)
    print(run.directory)
