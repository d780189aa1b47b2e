"""Molecules in space, and the JSON files that list them.

    {"molecules": [{"smiles": "C", "atomic_numbers": [6, 1, ...], "positions": [[0.0, 0.0, 0.0], ...],
                    "bonds": [[0, 1], ...]}, ...]}

Positions are in Angstrom, hydrogens are atoms, a bond is a pair of atoms counted from 0 and stands there once.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mols.common.terminal import ExperimentError

FIELDS = ("smiles", "atomic_numbers", "positions", "bonds")
MIN_DISTANCE, MAX_COORDINATE = 0.1, 1e6  # Angstrom; no molecule comes near either


class Structure(NamedTuple):
    """A molecule of n atoms, hydrogens among them.

    Attributes:
        numbers: (n,) atomic numbers.
        positions: (n, 3) Angstrom, float64.
        bonds: (B, 2) atoms, every bond once.
    """

    numbers: np.ndarray
    positions: np.ndarray
    bonds: np.ndarray


def read_structures(path: Path, elements: Sequence[int]) -> list[tuple[str, Structure]]:
    """SMILES and structure of each molecule of a file.

    Args:
        path: of the file.
        elements: the atomic numbers that there may be.

    Raises:
        ExperimentError: it cannot be read, or is not as the head of this module says.
    """
    molecules = _read_list(path)
    try:
        return [_structure(molecule, number, elements) for number, molecule in enumerate(molecules, start=1)]
    except ExperimentError as error:
        raise ExperimentError(f"{path}, {error}") from error


def _read_list(path: Path) -> list[Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ExperimentError(f"cannot read {path} ({error.strerror}): name a JSON of molecules") from error
    except (ValueError, RecursionError) as error:
        raise ExperimentError(f"{path} is not JSON ({error}): name a JSON of molecules") from error
    molecules = content.get("molecules") if isinstance(content, dict) else None
    if not isinstance(molecules, list):
        raise ExperimentError(f'{path} has no list of molecules: write it as {{"molecules": [...]}}')
    return molecules


def _structure(molecule: Any, number: int, elements: Sequence[int]) -> tuple[str, Structure]:
    """A molecule of the file; errors begin with its number."""
    if not isinstance(molecule, dict):
        raise ExperimentError(f"molecule {number} is not an object: give it the fields {', '.join(FIELDS)}")
    missing = [name for name in FIELDS if name not in molecule]
    if missing:
        raise ExperimentError(f"molecule {number} has no {' and no '.join(missing)}: add it")
    smiles = molecule["smiles"]
    if not isinstance(smiles, str) or not smiles.isprintable():
        raise ExperimentError(f"molecule {number}: its smiles is not text of one line: write it in quotes")
    structure = Structure(
        _array(molecule["atomic_numbers"], "iu", ()),
        _array(molecule["positions"], "iuf", (3,)),
        _array(molecule["bonds"], "iu", (2,)),
    )
    problem = _problem(structure, elements)
    if problem:
        raise ExperimentError(f"molecule {number} ({smiles}): {problem}")
    numbers, positions, bonds = structure
    return smiles, Structure(numbers.astype(np.int64), positions.astype(np.float64), bonds.astype(np.int64))


def _array(value: Any, kinds: str, row: tuple[int, ...]) -> np.ndarray | None:
    """A JSON list of rows as an array of a kind of number; None if it is none."""
    if value == []:
        return np.empty((0, *row), dtype=np.int64)
    try:
        array = np.array(value) if isinstance(value, list) else None
    except ValueError:  # rows of different lengths
        return None
    return array if array is not None and array.dtype.kind in kinds and array.shape[1:] == row else None


def _problem(structure: Structure, elements: Sequence[int]) -> str | None:
    """What is wrong with a structure whose arrays came from a file, and how to fix it; None: nothing."""
    numbers, positions, bonds = structure
    if numbers is None or not len(numbers):
        return "its atomic_numbers are no list of whole numbers: give one for each atom"
    unknown = numbers[~np.isin(numbers, elements)]
    if len(unknown):
        return f"atomic number {unknown[0]} is none of {', '.join(map(str, elements))}: leave the molecule out"
    if positions is None or not (np.abs(positions) < MAX_COORDINATE).all():
        return f"its positions are no list of three numbers below {MAX_COORDINATE:g} each: give them in Angstrom"
    if bonds is None:
        return "its bonds are no list of pairs of whole numbers: give the two atoms of each"
    if len(numbers) != len(positions):
        return f"it has {len(numbers)} atomic_numbers and {len(positions)} positions: give one of each for each atom"
    if ((bonds < 0) | (bonds >= len(numbers))).any() or (bonds[:, 0] == bonds[:, 1]).any():
        return f"a bond does not join two of its {len(numbers)} atoms: count atoms from 0"
    if len(np.unique(np.sort(bonds, axis=1), axis=0)) != len(bonds):
        return "two of its bonds join the same atoms: give every bond once"
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    if (distances[np.triu_indices(len(numbers), 1)] < MIN_DISTANCE).any():
        return f"two of its atoms are less than {MIN_DISTANCE} Angstrom apart: give them other positions"
    return None
