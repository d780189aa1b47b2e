"""The sEH reward: the published network, its surrogate, their input."""
