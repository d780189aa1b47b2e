"""Compiled functions (numba), each with a form in torch that tests compare it with (``policies.forms``)."""

LANES = 64  # strings times heads that the encoder takes at once: the heads divide it
