"""Equality of nested containers of tensors."""

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
