"""How to learn and how to keep a run: the same in every suite."""
