"""Trees of fragments and graphs of atoms: states, legal actions, steps."""
