"""Golden runs: what every objective and approach computes, stored with the results version that it belongs to.

    python tests/golden.py SUITE    # stores what is new: an objective's runs after its version was raised

tests/<suite>/golden.json holds, per objective, its ``results_version`` and ``runs``, one curve of numbers per approach.
They are computed in float64, so that the rounding of another processor flips no sampled action.
"""

import argparse
import importlib
import importlib.util
import json
import math
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent
TOLERANCE = 1e-6
Curve = list[list[float | None]]


def stored(suite: str) -> dict:
    """The golden runs of a suite by objective."""
    path = TESTS / suite / "golden.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def versions(suite: str) -> dict[str, int]:
    """The results version of each objective of a suite."""
    return importlib.import_module(f"{suite}.suite").RESULTS_VERSIONS


def same(curve: Curve, other: Curve) -> bool:
    """Whether two curves agree up to rounding."""
    flat, others = ([value for row in rows for value in row] for rows in (curve, other))
    return len(flat) == len(others) and all(
        a is b is None or (None not in (a, b) and math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE))
        for a, b in zip(flat, others, strict=True)
    )


def require_unchanged(suite: str, objective: str, approach: str, curve: Curve) -> None:
    """Fail where a run is not the stored one of the same results version."""
    golden, version = stored(suite).get(objective, {}), versions(suite)[objective]
    assert golden.get("results_version") == version and approach in golden["runs"], (
        f"{suite}, {objective}, {approach}: there is no golden run of results version {version}: "
        f"run python tests/golden.py {suite}"
    )
    assert same(curve, golden["runs"][approach]), (
        f"{suite}, {objective}, {approach}: what is computed has changed: raise the results version of {objective} in "
        f"{suite}/suite.py, or correct the change"
    )


def renew(suite: str) -> None:
    """Store the runs of objectives whose version was raised, and of new approaches; refuse any other change."""
    path = TESTS / suite / f"{suite}_golden_run.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    approaches = importlib.import_module(f"{suite}.common.backward_loss").APPROACHES
    old, new = stored(suite), {}
    for objective in module.OBJECTIVES:
        version = versions(suite)[objective]
        runs = {approach: module.golden_run(objective, approach) for approach in approaches}
        before = old.get(objective, {})
        if before.get("results_version") == version:
            changed = [name for name, curve in before["runs"].items() if not same(curve, runs[name])]
            if changed:
                sys.exit(f"error: {objective}, {changed[0]} has changed: raise its version, or correct the change")
            runs |= before["runs"]
        new[objective] = {"results_version": version, "runs": runs}
    text = json.dumps(new).replace(', "', ',\n"').replace('{"', '{\n"')
    (TESTS / suite / "golden.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", choices=("hypergrid", "bitseq", "mols"))
    renew(parser.parse_args().suite)
