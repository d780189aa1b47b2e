"""What the copied files must know of this suite."""

# Raised when what is computed changes, never when code is only moved, renamed or made faster; a test says when
# (tests/mols/golden.json).
RESULTS_VERSIONS = {"tb": 1, "db": 1, "subtb": 1, "soft_dqn": 1, "dqn": 1}
