"""What a sweep of any suite does not know is refused in one sentence, before it prints a run."""

import os
import subprocess
from pathlib import Path

from each import each

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = [path.relative_to(ROOT) for path in sorted(ROOT.glob("*/sweeps/*.sh"))]
SWEEPS = [path for path in SWEEPS if path.name.removesuffix(".sh") not in ("common", "grid", "published")]
BAD = {
    "SCALE": ("2", "1.5", "0", "-0.1", "half"),
    "SEEDS": ("0", "-1", "1.5", "one", "1 x", " ", "*"),
    "ENVIRONMENTS": ("easy",),
    "LEARNING_RATES": ("0", "0 0.001", "-0.1", "0.001 fast"),
    "OBJECTIVES": ("sac", "tb sac", "munchausen"),
    "APPROACHES": ("best", "TLM", "tlm,naive"),
    "OUTPUT_DIR": ("two words", "a;b", "-x", "$(touch)"),
}


@each("sweep", SWEEPS)
def test_what_it_does_not_know_is_one_sentence(sweep):
    """Every such value of a sweep with learning rates and of one with environments; the code that reads is the same."""
    text, grid = (ROOT / sweep).read_text(), ROOT / sweep.with_name("grid.sh")
    text += grid.read_text() if "grid.sh" in text else ""
    lacks = {"LEARNING_RATES": "choose_learning_rates" not in text, "ENVIRONMENTS": "choose ENVIRONMENTS" not in text}
    for variable, values in BAD.items():
        values = (
            values if sweep.parts[0] in ("hypergrid", "bitseq") and sweep.stem in ("figure1", "figure2") else values[:1]
        )
        for value in () if lacks.get(variable) else values:
            env = {name: word for name, word in os.environ.items() if name not in BAD} | {variable: value}
            done = subprocess.run(["bash", str(ROOT / sweep)], cwd="/", env=env, capture_output=True, text=True)
            assert (done.returncode, done.stdout) == (2, ""), (variable, value)
            assert done.stderr.startswith(f"error: {variable} ") and done.stderr.count("\n") == 1, (variable, value)
