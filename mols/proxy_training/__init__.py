"""How the networks that are shipped were trained."""
