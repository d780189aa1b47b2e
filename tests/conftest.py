"""What the tests of all suites share."""

import resource
from contextlib import contextmanager

import pytest
import torch
from each import ALGOS, OBJECTIVES


def pytest_configure(config):
    torch.set_num_threads(1)


@pytest.fixture(params=OBJECTIVES)
def objective(request) -> str:
    """Every objective, unless the test names its own."""
    return request.param


@pytest.fixture(params=ALGOS)
def algo(request) -> str:
    """Every objective as mols calls it, unless the test names its own."""
    return request.param


@pytest.fixture
def double():
    """Double precision as the default, for tests of exact identities."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def small_disk():
    """``with small_disk(n)``: no file can grow beyond n bytes, as on a disk that gets full."""

    @contextmanager
    def limited(n_bytes: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
