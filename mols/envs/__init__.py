"""The graph environments, and what turns their states into molecules and back."""
