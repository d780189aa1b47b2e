"""General settings of a hypergrid run: ``general.py:SEED``."""

from ml_collections import ConfigDict


def get_config(seed: str = "1") -> ConfigDict:
    """Defaults of the paper; the argument is the seed.

    Raises:
        ValueError: the seed is not a positive whole number.
    """
    if not seed.isdecimal() or int(seed) < 1:
        raise ValueError(f"the seed is {seed!r}: it must be a whole number, 1 or more")
    config = ConfigDict()
    config.seed = int(seed)  # positive; splits into streams for initialisation, sampling, replay, evaluation
    config.device = "cpu"  # or cuda, which is slower here: the network is small, and the rollout walks on the CPU
    config.threads = 1  # of torch on the CPU; two runs of one thread beat one run of two
    config.kernels = "auto"  # the rollout: compiled (auto), or torch, the readable form: the same draws, far slower
    config.n_trajectories = 1_000_000  # sampled in the whole run, rounded up to whole iterations
    config.n_envs = 16  # trajectories per iteration
    config.validation_interval = 100  # iterations between rows of metrics.csv
    config.validation_samples = 200_000  # last terminal states that the empirical distances are computed on
    config.exact_interval = 5_000  # iterations between exact distances; 0: never. Grids up to a million states
    config.checkpoint_interval = 1_000  # iterations
    config.output_dir = "runs"  # relative to the current directory
    config.if_exists = "refuse"  # what to do about an existing run folder: refuse, resume or overwrite
    config.wandb_project = ""  # empty: off; WANDB_MODE=offline works without a network
    config.tensorboard = False  # event files in the run folder
    return config
