"""Configuration files of the hypergrid suite."""
