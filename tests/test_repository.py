"""The house rules: the copies are copies, the suites are independent, the pins agree, the pages say what is true."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from each import each

ROOT = Path(__file__).resolve().parent.parent
SUITES = [name for name in ("hypergrid", "bitseq", "mols") if (ROOT / name / "__init__.py").exists()]
FOLDERS = ("common", "analysis")  # the same bytes in every suite
COPY_IMPORTS = {
    "numpy",
    "torch",
    "tqdm",
    "wandb",
    "ray",
    "scipy",
    "pandas",
    "matplotlib",
    "ml_collections",
    "pydantic",
    "pydantic_core",
}
TOP_LEVEL = {"hypergrid", "bitseq", "mols", "tests", "requirements.txt", "setup.py", "README.md", "LICENSE"}
MODULES = sorted(path for suite in SUITES for path in (ROOT / suite).rglob("*.py"))


def tracked() -> list[str]:
    """The project's files: git's list, or, where the checkout came as an archive, those under the known names."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        return [name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]
    known = [ROOT / name for name in (*TOP_LEVEL, ".ci") if (ROOT / name).exists()]
    files = [file for path in known for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file()]
    return sorted(str(file.relative_to(ROOT)) for file in files if "__pycache__" not in file.parts)


def imported(path: Path) -> set[tuple[int, str]]:
    """(level, module) of every import statement; level 0 is absolute."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {(0, alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.level, node.module or ""))
    return found


def differing_copies(root: Path, suites: list[str]) -> list[str]:
    """The commands that make every suite's copied folders equal to the first suite's."""

    def content(suite: str, name: str) -> dict[str, bytes]:
        place = root / suite / name
        files = [path for path in place.rglob("*") if path.is_file()]
        return {str(f.relative_to(place)): f.read_bytes() for f in files if "__pycache__" not in f.parts}

    first, *others = suites
    return [
        f"rm -r {suite}/{name}; cp -r {first}/{name} {suite}/{name}"
        for name in FOLDERS
        for suite in others
        if content(suite, name) != content(first, name)
    ]


def test_the_copies_are_the_same_bytes():
    mends = differing_copies(ROOT, SUITES)
    assert not mends, "\n".join(["the copies differ; if the first suite's is the right one:", *mends])


def test_a_differing_copy_is_found(tmp_path):
    for suite, text in (("a", "x = 1\n"), ("b", "x = 1\n"), ("c", "x = 2\n")):
        (tmp_path / suite / "common").mkdir(parents=True)
        (tmp_path / suite / "common" / "algorithm.py").write_text(text)
    assert differing_copies(tmp_path, ["a", "b", "c"]) == ["rm -r c/common; cp -r a/common c/common"]
    (tmp_path / "b" / "common" / "more.py").touch()
    assert len(differing_copies(tmp_path, ["a", "b", "c"])) == 2


def test_nothing_else_lies_at_the_top():
    names = {name.split("/")[0] for name in tracked()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL
    assert {"LICENSE", "README.md", "requirements.txt", "setup.py", "tests", "hypergrid"} <= names


def own_imports(path: Path) -> set[str]:
    """The modules of its own suite that a module imports, by their dotted names below the suite."""
    suite, *inner = path.relative_to(ROOT).parts
    package, found = inner[:-1], set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {a.name.removeprefix(f"{suite}.") for a in node.names if a.name.startswith(f"{suite}.")}
        elif isinstance(node, ast.ImportFrom):
            base = (node.module or "").split(".") if node.module else []
            if node.level:
                base = package[: len(package) - node.level + 1] + base
            elif not base or base[0] != suite:
                continue
            else:
                base = base[1:]
            for alias in node.names:
                inside = ROOT.joinpath(suite, *base, alias.name)
                is_module = inside.with_suffix(".py").exists() or inside.is_dir()
                found.add(".".join([*base, alias.name] if is_module else base))
    return found


def test_modules_import_what_the_design_allows():
    for path in MODULES:
        suite, *inner = path.relative_to(ROOT).parts
        modules, own, copied = imported(path), own_imports(path), inner[0] in FOLDERS
        outside = {name.split(".")[0] for level, name in modules if level == 0}
        assert not outside & (set(SUITES) - {suite}), f"{path}: another suite"
        assert copied or not [name for level, name in modules if level], f"{path}: absolute imports only"
        if copied:
            assert outside <= COPY_IMPORTS | set(sys.stdlib_module_names), f"{path}: a copy names no suite"
            allowed = {"common"} if inner[0] == "common" else {"common", "analysis", "suite"}
            assert {name.split(".")[0] for name in own} <= allowed, path
        if inner[0] in ("molecules", "rewards"):
            assert not {name for name in own if name.split(".")[0] in ("agents", "tasks")}, f"{path}: agents"


def is_acyclic(edges: dict[str, set[str]]) -> bool:
    done: set[str] = set()
    while ready := {name for name in edges.keys() - done if edges[name] & edges.keys() <= done | {name}}:
        done |= ready
    return done == edges.keys()


def test_no_folder_imports_in_a_circle():
    """At every depth: a node is a file, or a folder as a whole, of one folder."""
    for suite in SUITES:
        for folder in {path.parent for path in MODULES if path.is_relative_to(ROOT / suite)}:
            depth, prefix = (
                len(folder.relative_to(ROOT / suite).parts),
                ".".join(folder.relative_to(ROOT / suite).parts),
            )
            edges: dict[str, set[str]] = {}
            for path in folder.rglob("*.py"):
                parts = path.relative_to(ROOT / suite).with_suffix("").parts
                node = edges.setdefault(parts[depth], set())
                for name in own_imports(path):
                    if name == prefix or name.startswith(f"{prefix}." if prefix else ""):
                        node.add([*name.split("."), "__init__"][depth])
            assert is_acyclic({name: to - {name} for name, to in edges.items()}), f"{folder}: {edges}"


@each("path", MODULES)
def test_a_module_keeps_the_house_style(path):
    text = path.read_text()
    tree = ast.parse(text)
    assert "sys." + "path" not in text
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler) and node.type is None]
    assert ast.get_docstring(tree), "a module says what it is"
    assert len(text.splitlines()) <= 310, "one idea, one file"


def unsafe_uses_of_files(path: Path) -> list[str]:
    """Where a module reads or writes text as the locale has it, or writes a file in place and not by ``files.py``."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        of_an_object = isinstance(node.func, ast.Attribute)
        owner = getattr(node.func.value, "id", "") if of_an_object else ""
        name = node.func.attr if of_an_object else getattr(node.func, "id", "")
        given = {keyword.arg for keyword in node.keywords}  # None: those of a dictionary
        modes = [word.value for word in node.args[0 if of_an_object else 1 :] if isinstance(word, ast.Constant)]
        mode = modes[0] if modes else "r"
        opened = name == "open" and owner != "gzip"
        text = (opened and "b" not in mode) or (of_an_object and name in ("read_text", "write_text"))
        if (text or "text" in given) and not given & {"encoding", None}:
            found.append(f"{path.name}:{node.lineno}: {name} without an encoding")
        written = (opened and set(mode) & set("wx")) or (of_an_object and name in ("write_text", "write_bytes"))
        if name == "savefig":
            written = not (isinstance(node.args[0], ast.Name) and node.args[0].id == "file")
        if written and owner != "partial" and path.name not in ("files.py", "terminal.py"):
            found.append(f"{path.name}:{node.lineno}: {name} in place")
    return found


@pytest.mark.parametrize("suite", SUITES)
def test_files_are_written_whole_and_text_is_utf_8_in_every_locale(suite):
    found = {path: unsafe_uses_of_files(path) for path in MODULES if path.relative_to(ROOT).parts[0] == suite}
    assert not {str(path.relative_to(ROOT)): uses for path, uses in found.items() if uses}


def test_an_unsafe_use_of_a_file_is_found(tmp_path):
    lines = {
        "open(path)": ["open without an encoding"],
        "path.open('w', encoding='utf-8')": ["open in place"],
        "path.open('x')": ["open without an encoding", "open in place"],
        "path.read_text()": ["read_text without an encoding"],
        "path.write_text(a, encoding='utf-8')": ["write_text in place"],
        "partial.write_text(a, encoding='utf-8'), gzip.open(path)": [],
        "subprocess.run(a, text=True)": ["run without an encoding"],
        "figure.savefig(path)": ["savefig in place"],
        "open(path, 'rb'), path.open('ab'), path.open(**TEXT), write_text(path, a), figure.savefig(file)": [],
    }
    for line, expected in lines.items():
        (tmp_path / "a.py").write_text(line)
        assert unsafe_uses_of_files(tmp_path / "a.py") == [f"a.py:1: {what}" for what in expected], line


def test_importing_does_nothing():
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in MODULES]
    code = f"import sys, importlib\nfor name in {names!r}: importlib.import_module(name)\n"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


TWO_ITERATIONS = {  # of the smallest networks
    "hypergrid": "hypergrid/run_hypergrid_exp.py --general hypergrid/experiments/config/general.py:1 "
    "--env hypergrid/experiments/config/hypergrid.py:standard --algo hypergrid/experiments/config/algo.py:tb "
    "--general.n_trajectories=16 --general.n_envs=8 --env.ndim=2 --env.height=4 --algo.hidden_width=8",
    "bitseq": "bitseq/run.py --num_iterations 2 --n 8 --k 2 --M_size 5 --mode_threshold 1 --corr_num_rounds 1 "
    "--width 8 --n_layers 1 --n_heads 1 --ff_width 8 --batch_size 2 --device cpu --kernels torch",
    "mols": "-m mols.tasks.qm9 --n 2 --reward qed --batch_size 2 --max_atoms 3 --corr_every 0 "
    "--width 8 --n_layers 1 --n_heads 1 --device cpu",
}


@pytest.mark.parametrize("suite", SUITES)
def test_a_suite_trains_with_the_others_deleted(suite, tmp_path):
    """A copy of its folder alone, with what is compiled; the others can't be imported from elsewhere either."""
    shutil.copytree(ROOT / suite, tmp_path / suite, ignore=shutil.ignore_patterns("results"))
    for other in {*TWO_ITERATIONS} - {suite}:
        (tmp_path / f"{other}.py").write_text("raise ImportError('this suite is deleted')\n")
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, *TWO_ITERATIONS[suite].split()]
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = Path(done.stdout.splitlines()[-1])
    assert run.is_relative_to(tmp_path) and (run / "DONE").exists()


@each("name", [name for name in tracked() if name.endswith(".sh") or name == ".ci/run"])
def test_a_shell_script_parses(name):
    assert subprocess.run(["bash", "-n", name], cwd=ROOT).returncode == 0
    text = (ROOT / name).read_text()
    assert "set -euo pipefail" in text or "Sourced by" in text.splitlines()[0]


def test_an_older_python_is_told_so(tmp_path):
    old = tmp_path / "python3.10"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.10.12"\nexit 1\n')
    old.chmod(0o755)
    for script in ("hypergrid/quickstart.sh", "tests/run.sh"):
        env = {"PYTHON": str(old), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(["bash", str(ROOT / script)], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 1
        assert "Python 3.11 or newer is needed" in done.stderr and "3.10.12" in done.stderr


@pytest.mark.parametrize(("arguments", "length"), [(["short"], ""), ([], "many"), ([], "-5"), ([], "0")])
def test_quickstart_refuses_what_it_does_not_know(arguments, length):
    """Before it installs anything, in one sentence."""
    env = {"PATH": "/usr/bin:/bin", "PYTHON": "/none", **({"TRAJECTORIES": length} if length else {})}
    command = ["bash", str(ROOT / "hypergrid/quickstart.sh"), *arguments]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert (
        done.stderr.startswith("error: quickstart.sh takes no arguments; TRAJECTORIES") and done.stderr.count("\n") == 1
    )


def test_no_path_of_one_machine():
    homes = re.compile(r"/(work|root|home/\w+)/")
    texts = [name for name in tracked() if not name.endswith((".png", ".pdf", ".pt"))]
    named = [name for name in texts if homes.search((ROOT / name).read_text())]
    assert [name for name in named if name != "tests/test_repository.py"] == []


def test_the_pages_keep_their_promises():
    from hypergrid.common.backward_loss import APPROACHES

    page = (ROOT / "README.md").read_text()
    assert "bash hypergrid/quickstart.sh" in page and "bash tests/run.sh" in page
    assert "https://download.pytorch.org/whl/cpu" in page
    entries = (ROOT / "hypergrid" / "analysis" / "references.bib").read_text().splitlines()
    for row in APPROACHES.values():
        assert any(f"{{{row.source}," in entry for entry in entries), f"no BibTeX entry for {row.name}"
    assert set(page.partition("```bibtex\n")[2].partition("\n```")[0].splitlines()) <= set(entries)


@pytest.mark.parametrize("suite", SUITES)
def test_the_results_of_the_pages_are_what_the_csvs_say(suite):
    report = importlib.import_module(f"{suite}.analysis.report")
    assert report.main(["--check"]) == 0
    on_first_page = report.BEGIN in (ROOT / "README.md").read_text()
    assert not on_first_page  # which has verdicts and links
