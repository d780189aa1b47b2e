"""One hypergrid run: train an algorithm with a backward approach, evaluate it, draw it.

python run_hypergrid_exp.py --general experiments/config/general.py:3 --env experiments/config/hypergrid.py:standard
    --algo experiments/config/algo.py:munchausen_dqn --algo.backward_approach tlm
"""

import sys
from pathlib import Path

from hypergrid import settings
from hypergrid.common.run_folder import Run
from hypergrid.common.terminal import command
from hypergrid.suite import NEWER, RESULTS_VERSIONS

TOO_LARGE = (
    "note: a grid of {:.3g} states is not listed: only mean_log_reward, modes_visited and log_z_error are measured"
)


def main(argv: list[str]) -> int:
    """Run the command line ``argv``, program name first; returns the exit status."""
    return command(lambda: run_experiment(argv), "go on with --general.if_exists=resume")


def run_experiment(argv: list[str]) -> None:
    """Parse, train and draw one run.

    Raises:
        ExperimentError: the run cannot start, or cannot go on.
    """
    config = settings.parse(argv)
    run = Run(
        settings.run_directory(config),
        config.to_dict(),
        if_exists=config.general.if_exists,
        flag="--general.if_exists",
        suite=Path(__file__).resolve().parent,
        results_version=RESULTS_VERSIONS[config.algo.name],
        free=settings.FREE_FIELDS,
        newer=NEWER,
    )
    if run.done:
        print(f"{run.directory} is done")
        return
    # torchgfn takes seconds to import: bad flags and finished runs are answered before it.
    import torch

    from hypergrid.agents.table import COLUMNS, make_agent
    from hypergrid.common.algorithm import train
    from hypergrid.plots import draw_run

    torch.set_num_threads(config.general.threads)
    agent = make_agent(config)
    if not agent.environment.enumerated:
        print(TOO_LARGE.format(agent.environment.n_states), file=sys.stderr)
    with run.recorded(COLUMNS):
        train(
            agent,
            run,
            validation_interval=config.general.validation_interval,
            checkpoint_interval=config.general.checkpoint_interval,
            main_metric="l1_dist" if agent.environment.enumerated else "mean_log_reward",
            tensorboard=config.general.tensorboard,
            wandb_project=config.general.wandb_project,
        )
        draw_run(run.directory, agent)
    print(run.directory)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
