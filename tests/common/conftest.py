"""The run folder of a test."""

from pathlib import Path

import pytest
from run_folders import CONFIG, FLAG, FREE

from hypergrid.common.run_folder import Run


@pytest.fixture
def suite(tmp_path) -> Path:
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "a.py").write_text("A = 1\n")
    return folder


@pytest.fixture
def open_run(tmp_path, suite):
    """``open_run(if_exists, ...)``: the run folder of this test, looked at."""

    def new(if_exists: str = "refuse", config: dict = CONFIG, results_version: int = 1, **newer: object) -> Run:
        return Run(
            tmp_path / "tb-tlm" / "seed=3",
            config,
            if_exists=if_exists,
            flag=FLAG,
            suite=suite,
            results_version=results_version,
            free=FREE,
            newer=newer,
        )

    return new
