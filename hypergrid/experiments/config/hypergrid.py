"""The environment of a hypergrid run: ``hypergrid.py:standard`` or ``hypergrid.py:hard``."""

from ml_collections import ConfigDict

REWARDS = {"standard": (1e-3, 0.5, 2.0), "hard": (1e-4, 1.0, 3.0)}


def get_config(name: str = "standard") -> ConfigDict:
    """The paper's 20x20x20x20 grid; the argument names the reward.

    Raises:
        ValueError: there is no such reward.
    """
    if name not in REWARDS:
        raise ValueError(f"there is no environment {name!r}: it must be one of {', '.join(REWARDS)}")
    config = ConfigDict()
    config.name = name
    config.ndim = 4  # D, number of coordinates
    config.height = 20  # H, values per coordinate, at least 3
    config.R0, config.R1, config.R2 = REWARDS[name]  # reward of every state, of the shell, of the modes
    return config
