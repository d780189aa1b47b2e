"""The algorithm of a hypergrid run: ``algo.py:NAME``, NAME one of tb, db, subtb, soft_dqn, munchausen_dqn.

``perfect`` (draws from R / Z: the floor) and ``uniform`` (uniform P_F) are references that learn nothing.
"""

from ml_collections import ConfigDict

from hypergrid import settings


def get_config(name: str = "munchausen_dqn") -> ConfigDict:
    """The paper's settings of the named algorithm.

    Raises:
        ValueError: there is no such algorithm.
    """
    return settings.algorithm(name)
