"""P_F, P_B, log F: trunk, heads, named disjoint parameter groups."""
