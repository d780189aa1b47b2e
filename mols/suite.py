"""What the copied files must know of this suite."""

# Raised when what is computed changes, never when code is only moved, renamed or made faster; a test says when
# (tests/mols/golden.json). Version 2: a QM9 node is the sum of one embedding per attribute; the DQN objectives have a Q
# target of their own. (sEH with TB, DB and SubTB computes what version 1 did.)
RESULTS_VERSIONS = {"tb": 2, "db": 2, "subtb": 2, "soft_dqn": 2, "dqn": 2}
