"""Equality: of nested containers of tensors, of losses with their gradients, of counts with what they should be."""

import numpy as np
import pytest
import torch


def assert_same(one, two, where: str = "checkpoint") -> None:
    """Equality bit by bit; says where they differ."""
    if isinstance(one, torch.Tensor):
        assert one.dtype == two.dtype and torch.equal(one, two), where
    elif isinstance(one, dict):
        assert one.keys() == two.keys(), where
        for key in one:
            assert_same(one[key], two[key], f"{where}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(two), where
        for position, (a, b) in enumerate(zip(one, two, strict=True)):
            assert_same(a, b, f"{where}[{position}]")
    else:
        assert one == two, where


def assert_same_with_gradients(found: torch.Tensor, expected: torch.Tensor, agent) -> None:
    """Value, and gradient of every parameter of an agent: none where none should reach."""
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    parameters = list(agent.parameters())
    ours, theirs = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (found, expected))
    assert any(gradient is not None and gradient.abs().max() > 1e-6 for gradient in ours)
    for one, other in zip(ours, theirs, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def chi_square(counts: np.ndarray, expected: np.ndarray, least: float = 5.0) -> tuple[float, int]:
    """(statistic, degrees of freedom) with the cells that expect less than ``least`` taken together."""
    order = np.argsort(expected)
    counts, expected = counts[order], expected[order]
    small = int(np.searchsorted(expected, least))
    while small < len(expected) and 0 < expected[:small].sum() < least:
        small += 1
    if small:
        counts, expected = (np.concatenate([[of[:small].sum()], of[small:]]) for of in (counts, expected))
    at_all = expected > 0
    assert not counts[~at_all].any()
    return ((counts - expected)[at_all] ** 2 / expected[at_all]).sum(), int(at_all.sum()) - 1
