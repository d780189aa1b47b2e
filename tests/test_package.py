"""What an installed package has: every file of the suites; and the versions that setup.py and requirements.txt name."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
from packaging.requirements import Requirement
from test_repository import ROOT, SUITES, tracked


def test_the_lock_has_a_version_of_every_range():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    first, *pins = [line for line in lines if line and not line.startswith("#")]
    assert first == "-e .[test]"
    assert all(re.fullmatch(r"[a-z0-9-]+==[\w.]+", pin) for pin in pins)
    versions = dict(pin.split("==") for pin in pins)
    assert len(versions) == len(pins)
    (call,) = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Call)][:1]
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    installed = [Requirement(text) for text in ast.literal_eval(given["install_requires"])]
    extras = ast.literal_eval(given["extras_require"])
    for wanted in installed + [Requirement(text) for text in extras["test"]]:
        assert wanted.specifier.contains(versions[wanted.name]), wanted
    client = {"torch", "torchgfn", "ml-collections", "numpy", "torch-geometric", "rdkit", "wandb"}
    assert client <= {wanted.name for wanted in installed}
    assert set(extras) == {"test", "dev", "cluster", "qm9"}


@pytest.mark.slow
def test_a_wheel_has_every_file_of_the_suites(tmp_path):
    """Of a copy: nothing that an earlier build left behind is in it."""
    names = [name for name in tracked() if name.split("/")[0] in (*SUITES, "setup.py")]
    for name in names:
        (tmp_path / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "copy" / name)
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*wheel, tmp_path, tmp_path / "copy"], check=True)
    (path,) = tmp_path.glob("*.whl")
    packed = [name for name in zipfile.ZipFile(path).namelist() if ".dist-info/" not in name]
    assert sorted(packed) == sorted(name for name in names if name != "setup.py")
