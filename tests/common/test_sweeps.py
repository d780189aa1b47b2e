"""A sweep of any suite refuses what would make nonsense, at once; a run refuses the rest."""

import shlex

from each import each
from sweeps import SWEEPS, lines, sweep

BAD = {"SCALE": ("0", "-0.1", "half", "0.5x", "1 2"), "TECHNIQUES": ("luck",)}


@each("path", [path for path in SWEEPS if "published" not in path])
def test_what_makes_no_run_is_one_sentence(path):
    for variable, values in BAD.items():
        for value in values if variable == "SCALE" or "appendix" in path else ():
            done = sweep(path, **{variable: value})
            assert done.returncode == 2 and done.stderr.count("\n") == 1, value
            assert done.stderr.startswith(f"error: {variable} ") and f"'{value}'" in done.stderr
            assert not done.stdout


@each("path", SWEEPS)
def test_a_folder_whose_name_has_spaces_is_one_word(path):
    printed = lines(path, OUTPUT_DIR="my own runs")
    assert printed and all("my own runs" in shlex.split(line) for line in printed)
