"""QM9 (Ramakrishnan et al. 2014) out of the package qm9pack, and the little of it that the reward needs without it.

    python -m mols.molecules.qm9                              # the constants of the reward, as QM9 has them
    python -m mols.molecules.qm9 --test_set qm9_test_set.csv  # writes the test set of the correlation

The package (130,831 molecules, 104 MB) is the optional extra `qm9`: pip install -e '.[qm9]'. It is never imported,
since that takes a part of setuptools that is no more; its tables are read where they lie. Energies are in Hartree.
"""

import argparse
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mols.common.terminal import ExperimentError, command
from mols.molecules.csv_files import read_columns, write_table

PACKAGE = "qm9pack"
TABLES = ("qm9_part1.csv", "qm9_part2.csv", "qm9_part3.csv")
COLUMNS = ("SMILES", "Stoichiometry", "HOMO_au", "LUMO_au", "HOMO_LUMO_gap_au")
N_MOLECULES = 130_831
EV_PER_HARTREE = 27.2114

# Of the gap over all of QM9, Hartree, as main() prints them.
GAP_PERCENTILE_5, GAP_MIN, GAP_MAX = 0.176, 0.0246, 0.6221

TEST_SET = Path(__file__).with_name("qm9_test_set.csv")
TEST_SIZES, MOLECULES_PER_SIZE = range(3, 9), 201


class Qm9(NamedTuple):
    """The molecules of QM9, in its order.

    Attributes:
        smiles: N SMILES, without stereochemistry.
        n_heavy: (N,) atoms other than hydrogen.
        homo, lumo, gap: (N,) float64, Hartree; of the orbitals, and their difference.
    """

    smiles: list[str]
    n_heavy: np.ndarray
    homo: np.ndarray
    lumo: np.ndarray
    gap: np.ndarray


def read_qm9() -> Qm9:
    """All molecules.

    Raises:
        ExperimentError: the package is not installed, or is not the one that this program knows.
    """
    folder = _folder()
    try:
        rows = [row for name in TABLES for row in read_columns(folder / name, COLUMNS)]
        formulae = [list(map(int, row[1].strip("[]").split(","))) for row in rows]  # hydrogen first
        energies = np.array([[float(text) for text in row[2:]] for row in rows]).reshape(-1, 3)
    except (ExperimentError, ValueError) as error:
        raise ExperimentError(f"cannot read {PACKAGE} in {folder} ({error}): install {PACKAGE} 1.0.3 again") from error
    if len(rows) != N_MOLECULES:
        raise ExperimentError(f"{folder} has {len(rows)} molecules, not {N_MOLECULES}: install {PACKAGE} 1.0.3")
    return Qm9([smiles for smiles, *_ in rows], np.array([sum(counts[1:]) for counts in formulae]), *energies.T)


def _folder() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ExperimentError(
            f"QM9 is read from the package {PACKAGE}, which is not installed: pip install -e '.[qm9]'"
        )
    return Path(spec.origin).parent / "data"


def rows_of_test_set(data: Qm9) -> np.ndarray:
    """(K,) numbers of the molecules of the test set: the first of each size, sizes 3 to 8, in QM9's order.

    Gritsaev et al. 2025, QM9: at most 201 molecules per number of heavy atoms.
    """
    chosen = [np.flatnonzero(data.n_heavy == size)[:MOLECULES_PER_SIZE] for size in TEST_SIZES]
    return np.sort(np.concatenate(chosen))


def read_test_set(path: Path = TEST_SET) -> tuple[list[str], np.ndarray]:
    """The K molecules of the test set: SMILES, and (K,) float64 gaps in Hartree.

    Raises:
        ExperimentError: the file is not there or is another one.
    """
    try:
        rows = [(smiles, float(gap)) for smiles, gap in read_columns(path, ("smiles", "gap"))]
        if not rows:
            raise ValueError("no molecules")
    except (ExperimentError, ValueError) as error:
        raise ExperimentError(
            f"{path} is not the QM9 test set ({error}): fetch it from the repository again"
        ) from error
    return [smiles for smiles, _ in rows], np.array([gap for _, gap in rows])


def write_test_set(data: Qm9, path: Path) -> int:
    """Write a new CSV with the columns smiles and gap (Hartree); returns its number of molecules.

    Raises:
        ExperimentError: the file exists or cannot be written.
    """
    rows = [(data.smiles[row], f"{data.gap[row]:.4f}") for row in rows_of_test_set(data)]
    write_table(path, [("smiles", "gap"), *rows])
    return len(rows)


def main(argv: list[str]) -> int:
    """Run the arguments ``argv``, without the program's name; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mols.molecules.qm9", description=__doc__.splitlines()[0])
    parser.add_argument("--test_set", type=Path, metavar="FILE.csv", help="write the test set of the correlation here")
    arguments = parser.parse_args(argv)
    return command(lambda: describe(**vars(arguments)))


def describe(test_set: Path | None) -> None:
    """Print the constants of the reward; write the test set where a file is named.

    Raises:
        ExperimentError: QM9 is not installed, or the file exists or cannot be written.
    """
    data = read_qm9()
    written = test_set and f"{write_test_set(data, test_set)} molecules in {test_set}"
    print(f"gap of {len(data.gap)} molecules, Hartree: 5th percentile {np.percentile(data.gap, 5):.4f}, ", end="")
    print(f"min {data.gap.min():.4f}, max {data.gap.max():.4f}")
    if written:
        print(written)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
