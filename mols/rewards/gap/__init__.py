"""The HOMO-LUMO gap reward: its network and its input."""
