"""General settings of a hypergrid run: ``general.py:SEED``; ``hypergrid/settings.py`` has each with its meaning."""

from ml_collections import ConfigDict

from hypergrid import settings


def get_config(seed: str = "1") -> ConfigDict:
    """Defaults of the paper; the argument is the seed.

    Raises:
        ValueError: the seed is not a positive whole number.
    """
    if not seed.isdecimal() or int(seed) < 1:
        raise ValueError(f"the seed is {seed!r}: it must be a whole number, 1 or more")
    return settings.general(int(seed))
