"""Runs the commands that the pages show, each for some seconds, and prints what became of it.

    python tests/shown_commands.py [PAGE ...] [--seconds 30]

They run in a clone of the last commit in a temporary folder, with the Python that runs this. What takes longer than its
seconds is stopped as by Ctrl-C. Of a sweep the first five runs count, at a thousandth of their length; a file that
``collect`` or ``best`` would have to keep is deleted from the clone. The status is 1 if a command fails.
"""

import argparse
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from textwrap import dedent

from pages import PAGES, ROOT, commands

# What the commands that are not run have in them, and why.
LEFT_OUT = {
    "bash tests/run.sh": "installs; run by .ci/run",
    "bash .ci/run": "installs; this is what passes before a change lands",
    "bash hypergrid/quickstart.sh": "installs; a slow test runs it",
    "pip install": "installs",
    "python3 -m venv": "installs",
    "pre-commit install": "changes the repository's hooks",
    "export RAY": "needs a cluster; a slow test starts one",
    "ray get-auth-token": "needs a cluster; a slow test starts one",
    "ray start": "needs a cluster; a slow test starts one",
    "ray stop": "needs a cluster; a slow test starts one",
    "--address auto": "needs a cluster; a slow test starts one",
    "--gpus": "needs a GPU",
    "sbatch": "needs SLURM",
    "mols.proxy_training.train_gap_proxy": "needs QM9's data from the network",
    "mols.molecules.qm9": "needs QM9's data from the network",
    "mols.rewards.mxmnet.network": "needs weights that are not part of this repository",
    "collect runs/published": "needs an hour of runs",
    "tests/shown_commands.py": "this program",
    "golden.py SUITE": "SUITE is one of three",
}
IN_FULL = ("--n 150 ",)  # whose end a later command needs
# What is run first, so that the other commands have runs, and what stands for a name in capitals in commands of a kind.
BEFORE = (
    "SEEDS=1 OBJECTIVES=db OUTPUT_DIR=before bash hypergrid/sweeps/figure1.sh | sh -e",
    "SEEDS=1 OBJECTIVES=db OUTPUT_DIR=before bash bitseq/sweeps/figure2_small.sh | sh -e",
    "SEEDS=1 OBJECTIVES=tb OUTPUT_DIR=before bash mols/sweeps/seh_small.sh | sh -e",
    "SEEDS=1 OBJECTIVES=tb OUTPUT_DIR=before bash mols/sweeps/qm9_small.sh | sh -e",
    "cp -r before runs && for name in figure1 scale0.1 partial; do cp -r before runs/$name; done",
    "printf 'smiles\\nCCO\\n' > SMILES.csv",
)
NAMES = {
    "hypergrid": {"RUN_DIR": "before/hypergrid/standard/db-tlm*/seed=1"},
    "mols.rewards.gap": {"RUN_DIR": "before/mols/qm9/tb-tlm*/seed=1", "FILE": "best"},
    "mols": {"RUN_DIR": "before/mols/seh_frag/tb-tlm*/seed=1"},
}


def shorten(command: str) -> str:
    """The same with sweeps of five short runs, a name for what stands in capitals, and Ctrl-C left to ``attempt``."""
    kind = next((kind for kind in NAMES if f"-m {kind}" in command), "")
    for name, value in NAMES.get(kind, {}).items():
        command = re.sub(rf"\b{name}\b", value, command)
    command = re.sub(r"^timeout -s INT \d+ ", "", command)
    command = re.sub(r"\bSCALE=\S+ ", "", command)
    command = re.sub(r"(bash hypergrid/sweeps/\w+\.sh)", r"SCALE=0.001 \1 | sed -n 1,5p", command)
    few = r"SCALE=0.001 \1 | sed -n '1,5s/$/ --corr_every 0/p'"  # a correlation takes a minute
    return re.sub(r"(bash (?:bitseq|mols)/sweeps/\w+\.sh)", few, command)


def attempt(command: str, folder: Path, seconds: float) -> str:
    """Run it in ``folder``: done, going on (at the end of its seconds) or failed, and then its last line."""
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"PYTHONPATH": str(next(f for f in (folder, *folder.parents) if (f / ".git").exists()))}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    shell = ["bash", "-o", "pipefail", "-c", command]
    with subprocess.Popen(shell, cwd=folder, env=environment, start_new_session=True, **pipes) as process:
        try:
            said, stopped = process.communicate(timeout=seconds)[0], False
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
            stopped = True
            try:
                said = process.communicate(timeout=60)[0]
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return "failed: does not stop at Ctrl-C"
    wrong = re.search(r"error: |^failed: ", said, re.IGNORECASE | re.MULTILINE)
    failed = wrong if stopped else process.returncode
    if failed:
        return f"failed: {(said.strip() or 'without a word').splitlines()[-1]}"
    return "going on" if stopped else "done"


def run(command: str, page: Path, clone: Path, seconds: float) -> str:
    """What becomes of a command of a page, in the folder that it is meant for."""
    for part, reason in LEFT_OUT.items():
        if part in command:
            return f"left out: {reason}"
    if file := re.fullmatch(r"cat > (\S+)", command):
        block = re.search(rf"cat > {file[1]} <<'END'\n(.*?)^ *END$", page.read_text(), re.DOTALL | re.MULTILINE)
        (clone / file[1]).write_text(dedent(block[1]))
        return "done"
    if out := re.search(r"\.(?:collect|best) .*--out (\S+)", command):
        (clone / out[1]).unlink(missing_ok=True)
    seconds = 600 if any(part in command for part in IN_FULL) else seconds
    script = re.match(r"python (\S+\.py)", command)
    inside = clone / page.parent.relative_to(ROOT)
    return attempt(shorten(command), inside if script and (inside / script[1]).is_file() else clone, seconds)


def main() -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("pages", nargs="*", type=Path, metavar="PAGE", help="Markdown files (all)")
    parser.add_argument("--seconds", type=float, default=30, help="how long a command may run (30)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so its children
    pages = [page.resolve() for page in arguments.pages] or [page for page in PAGES if page.name != "CHANGELOG.md"]
    if others := set(pages) - {*PAGES}:
        parser.error(f"{min(others)} is no page of this repository: name one, such as README.md")
    with tempfile.TemporaryDirectory() as folder:
        clone, results, known = Path(folder) / "clone", [], set()
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        (clone / ".venv").symlink_to(Path(sys.prefix))
        for command in BEFORE:
            results.append(attempt(shorten(command), clone, 600))
            print(f"before: {results[-1]}  |  {command}", flush=True)
        for page in pages:
            print(f"\n{page.relative_to(ROOT)}", flush=True)
            for command in commands(page):
                if (shown := command.partition("  #")[0].strip()) not in known:
                    known.add(shown)
                    results.append(run(shown, page, clone, arguments.seconds))
                    print(f"    {results[-1]}  |  {shown}", flush=True)
    kinds = [result.partition(":")[0] for result in results]
    print("\n" + ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("done", "going on", "left out", "failed")))
    return int("failed" in kinds)


if __name__ == "__main__":
    sys.exit(main())
