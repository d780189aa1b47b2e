"""MXMNet (Zhang et al. 2020), the paper's own gap network, on conformers."""
