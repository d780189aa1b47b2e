"""What the tests of all suites share."""

import resource
from contextlib import contextmanager

import pytest


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
