"""Configuration files: general settings, environment, algorithm."""
