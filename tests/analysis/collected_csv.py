"""CSV files as collect writes them, with numbers that a test chooses."""

import csv

VERSIONS = {"hypergrid": 1, "bitseq": 1, "mols": 1}  # of db
HEAD = ("suite", "environment", "objective", "approach", "learning_rate", "seed")


def write_csv(path, rows, suite="hypergrid", varied=()):
    """Rows as dictionaries; what they lack is filled in."""
    defaults = {"suite": suite, "environment": "standard", "objective": "db", "approach": "tlm", "learning_rate": 0.001}
    defaults |= {"seed": 1, "wall_s": 1.0, "results_version": VERSIONS[suite], "git_hash": "0123456789ab"}
    full = [defaults | {"step": row.get("trajectories", 16) // 16} | row for row in rows]
    names = [*HEAD, *varied, "step", "trajectories", "wall_s"]
    names += [name for name in dict.fromkeys(name for row in full for name in row) if name not in names]
    names += [names.pop(names.index(name)) for name in ("results_version", "git_hash")]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows(full)
    return path


def grid_run(ratio, points=(1600, 3200), floor=1e-6, **run):
    """A run whose l1_dist is ``ratio`` times the floor throughout."""
    return [{"trajectories": x, "l1_dist": ratio * floor, "l1_floor": floor, **run} for x in points]
