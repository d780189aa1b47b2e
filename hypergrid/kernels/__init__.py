"""Compiled functions (numba), each with a form in torch that tests compare it with."""
