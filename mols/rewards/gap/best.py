"""Is the most rewarding region of QM9 real? The best molecules that runs found, beside QM9 itself.

    python -m mols.rewards.gap.best RUN_DIR [RUN_DIR ...] --out best.csv [--n 10]

A row for each of the n best distinct molecules that each run has evaluated in training: run, smiles, reward (r), the
gap that the run's network predicts, QM9's gap of the same molecule (stereochemistry aside; empty: QM9 does not have
it), both in eV, the charge, the number of unpaired electrons, and whether RDKit finds a conformer (1 or 0). QM9 has no
charged molecules and no radicals.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from rdkit import Chem
from rdkit.Chem.Descriptors import NumRadicalElectrons
from rdkit.rdBase import BlockLogs

from mols.common.checkpoint import read_checkpoint
from mols.common.terminal import ExperimentError, command
from mols.molecules import qm9
from mols.molecules.conformers import conformer
from mols.molecules.csv_files import require_writable, write_table
from mols.rewards.gap.reward import GapReward

COLUMNS = ("run", "smiles", "reward", "predicted_gap", "qm9_gap", "charge", "radical_electrons", "conformer")


def best_of_run(directory: Path, n: int) -> list[tuple[str, str, float]]:
    """The n molecules of least gap that a run's training has evaluated: (run, SMILES, gap in eV), the best first.

    Raises:
        ExperimentError: the folder is not that of a checkpointed QM9 run.
    """
    try:
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        state = read_checkpoint(directory / "checkpoint.pt")["agent"]["reward"]
        evaluated = list(zip(state["raw"].tolist(), state["smiles"].splitlines(), strict=True))
    # What a damaged file raises is the unpickler's choice: all of it means the same to the user.
    except Exception as error:
        raise ExperimentError(f"{directory} is no run with a checkpoint ({error}): name another, or run on") from error
    if config.get("environment") != "qm9" or "reward" in config:
        reward = f" with the reward {config['reward']}" if "reward" in config else ""
        raise ExperimentError(f"{directory} is a run of {config.get('environment')}{reward}: name runs of qm9's gap")
    found = sorted(pair for pair in evaluated if not math.isnan(pair[0]))  # NaN: invalid
    run = f"{config['objective']}-{config['backward_approach']} seed {config['seed']}"
    return [(run, smiles, gap) for gap, smiles in found[:n]]


def gaps_of_qm9(max_heavy: int) -> dict[str, float]:
    """Gaps in eV of QM9's molecules of at most so many heavy atoms, by canonical SMILES; of isomers, the first's.

    Raises:
        ExperimentError: QM9 is not installed.
    """
    data, gaps = qm9.read_qm9(), {}
    with BlockLogs():
        for smiles, n_heavy, gap in zip(data.smiles, data.n_heavy, data.gap, strict=True):
            molecule = Chem.MolFromSmiles(smiles) if n_heavy <= max_heavy else None
            if molecule is not None:
                gaps.setdefault(_flat_smiles(molecule), gap * qm9.EV_PER_HARTREE)
    return gaps


def best_rows(runs: list[Path], n: int) -> list[tuple[Any, ...]]:
    """The rows of the CSV, as ``COLUMNS`` says.

    Raises:
        ExperimentError: a folder is not that of a QM9 run, or QM9 is not installed.
    """
    found = [row for run in runs for row in best_of_run(run, n)]
    molecules = [Chem.MolFromSmiles(smiles) for _, smiles, _ in found]
    true = gaps_of_qm9(max((molecule.GetNumHeavyAtoms() for molecule in molecules), default=0))
    gaps = torch.tensor([gap for *_, gap in found], dtype=torch.float64)
    reward = GapReward(None).value(gaps).clamp(*GapReward.bounds).tolist()
    return [
        (
            run,
            smiles,
            f"{r:.4f}",
            f"{gap:.3f}",
            f"{true[flat]:.3f}" if (flat := _flat_smiles(molecule)) in true else "",
            Chem.GetFormalCharge(molecule),
            NumRadicalElectrons(molecule),
            int(conformer(smiles) is not None),
        )
        for (run, smiles, gap), molecule, r in zip(found, molecules, reward, strict=True)
    ]


def _flat_smiles(molecule: Chem.Mol) -> str:
    return Chem.MolToSmiles(molecule, isomericSmiles=False)


def main(argv: list[str]) -> int:
    """Run the arguments ``argv``, without the program's name; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mols.rewards.gap.best", description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="folders of QM9 runs")
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    parser.add_argument("--n", type=int, default=10, help="molecules of each run (10)")
    arguments = parser.parse_args(argv)
    return command(lambda: write_best(**vars(arguments)))


def write_best(runs: list[Path], out: Path, n: int) -> None:
    """Write the CSV.

    Raises:
        ExperimentError: as ``best_rows``; or ``out`` exists or cannot be written, or n is below 1.
    """
    require_writable(out)
    if n < 1:
        raise ExperimentError(f"--n is {n}: it must be 1 or more")
    rows = best_rows(runs, n)
    write_table(out, [COLUMNS, *rows])
    print(f"{len(rows)} molecules in {out}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
