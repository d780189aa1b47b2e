"""The fingerprint of a reward's source: what it covers, what it leaves out, and a resumption that it refuses."""

import hashlib
import importlib
import sys

import pytest
from small_runs import command, quicken, refused, without_pictures
from suites import only_run

from mols.rewards.own_function import load_function
from mols.tasks import seh_frag

SCORE = "def score(smiles):\n    return [1.0] * len(smiles)\n"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """``files({path: text, ...})``: write them, and the fingerprint of a function of one of them."""

    def forget():
        for name, module in list(sys.modules.items()):
            if str(tmp_path) in str(getattr(module, "__file__", None)):
                del sys.modules[name]
        importlib.invalidate_caches()

    def write(texts, name="mine:score", folder="here"):
        monkeypatch.syspath_prepend(str(tmp_path / folder))
        for path, text in texts.items():
            (tmp_path / folder / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / path).write_text(text)
        forget()
        return load_function(name).source

    yield write
    forget()


def test_of_one_file_it_is_its_hash(files):
    assert files({"mine.py": SCORE}) == hashlib.sha256(SCORE.encode()).hexdigest()[:12]


ALONE = {
    "mine.py": f"import helper\n{SCORE}",
    "helper.py": "from tools import a, deep\n",
    "tools/__init__.py": "from .deep import x\n",
    "tools/deep.py": "x = 1\n",
    "tools/a.py": "import cycle\n",
    "cycle.py": "import mine\n",
    "data.py": "",
    "late.py": "",
}
PACKAGE = {
    "mine/__init__.py": "",
    "mine/sub/__init__.py": "from ..above import x\n",
    "mine/sub/reward.py": f"from . import beside\nfrom .beside import x\nimport outside\n{SCORE}",
    "mine/sub/beside.py": "x = 1\n",
    "mine/above.py": "x = 1\n",
    "mine/unused.py": "",
    "outside.py": "",
}
CASES = {
    "alone": (ALONE, "mine:score", "here", ["helper.py", "tools/__init__.py", "tools/deep.py", "tools/a.py",
              "cycle.py"]),
    "a package": (PACKAGE, "mine.sub.reward:score", "here", ["mine/__init__.py", "mine/sub/__init__.py",
                  "mine/sub/beside.py", "mine/above.py", "outside.py"]),
    "an installed package": (PACKAGE, "mine.sub.reward:score", "site-packages", ["mine/__init__.py",
                             "mine/sub/__init__.py", "mine/sub/beside.py", "mine/above.py"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_it_covers_what_the_module_imports_from_its_folder(case, files):
    texts, name, folder, covered = CASES[case]
    first = files(texts, name, folder)
    assert files(texts, name, folder) == first
    for path in texts:
        changed = files({path: f"{texts[path]}\n# another\n"}, name, folder) != first
        assert changed == (path in covered or path.endswith(("mine.py", "reward.py"))), path
        assert files({path: texts[path]}, name, folder) == first


@pytest.mark.parametrize(
    "line", ["    import late", "    from late import x", "    if smiles: import tools.deep, late"]
)
def test_an_import_within_a_function_counts(line, files):
    texts = {"mine.py": SCORE.replace("    return", f"{line}\n    return"), "late.py": "x = 1\n", "tools/deep.py": ""}
    first = files(texts)
    assert files({"late.py": "x = 2\n"}) != first


def test_this_program_and_what_cannot_be_parsed_count_for_nothing_and_as_they_are(files):
    texts = {"mine.py": f"import mols.common.run_folder\n{SCORE}    import broken\n", "broken.py": "x = (\n"}
    first = files({**texts, "mols/common/run_folder.py": "", "mols/__init__.py": ""})
    assert files({"mols/common/run_folder.py": "x = 1\n"}) == first
    assert files({"broken.py": "x = [\n"}) != first


def test_a_function_without_a_source(files):
    assert load_function("math:sqrt").source == ""


def test_a_changed_helper_is_noticed_when_a_run_goes_on(files, tmp_path, monkeypatch, capsys):
    quicken(monkeypatch)
    without_pictures(monkeypatch)
    argv = command("tb", tmp_path / "runs", "--proxy=auto", "--reward=mine:score", "--corr_every=0", "--n=1")
    texts = {"mine.py": "from helper import score\n", "helper.py": SCORE}
    files(texts)
    assert seh_frag.main(argv) == 0
    (only_run(tmp_path / "runs") / "DONE").unlink()
    files({"helper.py": SCORE.replace("1.0", "0.5")})
    message = "the source of --reward mine:score has changed since"
    capsys.readouterr()
    refused([*argv, "--if_exists=resume"], message, tmp_path / "runs", capsys)
    assert seh_frag.main([*argv, "--if_exists=resume", "--reward_changed"]) == 0
