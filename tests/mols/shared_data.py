"""Files that tests compare with and that may not be committed: the folder of GFLOWNET_TLM_DATA, or ../shared/data.

Where one is missing, the tests that compare with it are skipped: nothing that may be committed could take its place.
"""

import os
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("GFLOWNET_TLM_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def needs(*names: str) -> pytest.MarkDecorator:
    """Skip a test where one of the files is not at hand."""
    missing = [name for name in names if not (SHARED / name).is_file()]
    reason = f"{' and '.join(missing)} may not be committed and is not in {SHARED}: set GFLOWNET_TLM_DATA"
    return pytest.mark.skipif(bool(missing), reason=reason)
