"""What a training step calls: sampling, losses, targets and evaluation of each objective."""
