"""Bit-sequence experiments: five objectives, five backward approaches (Gritsaev et al. 2025)."""
