"""The environment of a hypergrid run: ``hypergrid.py:standard`` or ``hypergrid.py:hard``."""

from ml_collections import ConfigDict

from hypergrid import settings


def get_config(name: str = "standard") -> ConfigDict:
    """The paper's 20x20x20x20 grid; the argument names the reward.

    Raises:
        ValueError: there is no such reward.
    """
    return settings.environment(name)
