"""What the copied files must know of this suite."""

# Raised when what is computed changes, never when code is only moved, renamed or made faster; a test says when
# (tests/bitseq/golden.json). Version 2: the correlation scores the target network; with TB, P_B's loss steps the
# backward head alone; with the DQN objectives, a drawn transition has the priority of its loss.
RESULTS_VERSIONS = {"tb": 2, "db": 2, "subtb": 2, "soft_dqn": 2, "munchausen_dqn": 2}
