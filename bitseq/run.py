"""One bit-sequence run: train an objective with a backward approach, evaluate it, draw it.

python bitseq/run.py --objective db --learning_rate 0.002 --backward_approach tlm
"""

import sys
from pathlib import Path

import torch

from bitseq import settings
from bitseq.common.options import free_fields
from bitseq.common.run_folder import Run
from bitseq.common.terminal import command
from bitseq.suite import NEWER, RESULTS_VERSIONS


def main(argv: list[str]) -> int:
    """Run the arguments ``argv``, without the program's name; returns the exit status."""
    return command(lambda: run_experiment(argv), "go on with --if_exists resume")


def run_experiment(argv: list[str]) -> None:
    """Parse, train and draw one run.

    Raises:
        ExperimentError: the run cannot start, or cannot go on.
    """
    config = settings.parse(argv)
    run = Run(
        settings.run_directory(config),
        config.to_dict(),
        if_exists=config.if_exists,
        flag="--if_exists",
        suite=Path(__file__).resolve().parent,
        results_version=RESULTS_VERSIONS[config.objective],
        free=free_fields(settings.Settings),
        newer=NEWER,
    )
    if run.done:
        print(f"{run.directory} is done")
        return
    # Seconds to import: what can be answered without them is answered before.
    from bitseq.agents.table import COLUMNS, make_agent
    from bitseq.common.algorithm import train
    from bitseq.plots import draw_run

    torch.set_num_threads(config.threads)
    agent = make_agent(config)
    with run.recorded(COLUMNS):
        train(
            agent,
            run,
            validation_interval=config.validate_every,
            checkpoint_interval=config.checkpoint_every,
            main_metric="modes_found",
            tensorboard=config.tensorboard,
            wandb_project=config.wandb,
        )
        draw_run(run.directory, agent)
    print(run.directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
