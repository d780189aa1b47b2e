"""What the copied files must know of this suite."""

# Raised when what is computed changes, never when code is only moved, renamed or made faster; a test says when
# (tests/hypergrid/golden.json). Version 2 of the DQN objectives: a new transition enters the replay with its own
# priority, where version 1 gave it the largest so far.
RESULTS_VERSIONS = {"tb": 1, "db": 1, "subtb": 1, "soft_dqn": 2, "munchausen_dqn": 2, "perfect": 1, "uniform": 1}
