"""Molecules: sEH fragments with TrajectoryBalance, DetailedBalance, SubTrajectoryBalance, SoftDQN, MunchausenDQN."""
