"""The molecule tasks: an environment, a reward and a test set each, and the command that trains on them."""
