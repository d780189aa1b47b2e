"""The smaller experiment: its runs, and that its sizes are one environment of their own."""

import shlex
import subprocess
from pathlib import Path

import bitseq
from bitseq import settings

SWEEP = Path(bitseq.__file__).parent / "sweeps" / "figure2_small.sh"


def test_the_small_experiment_differs_from_the_papers_in_size_alone():
    done = subprocess.run(["bash", str(SWEEP)], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    cells = []
    for line in done.stdout.splitlines():
        config = settings.parse(shlex.split(line)[2:]).to_dict()
        cells.append((config["seed"], config["objective"], config["backward_approach"]))
        own = ["--objective", config["objective"], "--backward_approach", config["backward_approach"], "--lr=0.002"]
        paper = settings.parse([*own, "--seed", str(config["seed"]), "--if_exists=resume"]).to_dict()
        differing = {name: config[name] for name in config if config[name] != paper[name]}
        assert differing == {
            "environment": "n=32-k=4", "n": 32, "k": 4, "mode_threshold": 2, "num_iterations": 8000,
        }  # fmt: skip
    assert cells == [
        (seed, objective, approach)
        for seed in (1, 2, 3, 4)
        for objective in ("munchausen_dqn", "db", "tb", "subtb")
        for approach in ("uniform", "naive", "tlm", "pessimistic")
    ]
