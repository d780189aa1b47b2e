"""What the reward correlation is computed on: the published test set, or a generated one where it is not available."""

import hashlib
from pathlib import Path

import numpy as np
import torch

from mols.common.terminal import ExperimentError
from mols.environments.base import STOP
from mols.environments.fragments import FragmentEnvironment, Trees
from mols.molecules.csv_files import read_columns
from mols.molecules.fragments import FragmentMolecules

TEST_SET_SHA256 = "db43fcc0e4b9712bc88f0fc45592e30cf30b8615245204bcc8440e52805ffc47"
MAX_BATCHES = 10  # of n draws each, for n distinct molecules


def read_seh_test_set(path: Path) -> list[str]:
    """The 950 SMILES of the published test set (Bengio et al. 2021), of which 891 are distinct.

    Raises:
        ExperimentError: the file cannot be read, or is another one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ExperimentError(
            f"cannot read {path} ({error.strerror}): put seh_test_set.csv there, or use the generated test set"
        ) from error
    if hashlib.sha256(content).hexdigest() != TEST_SET_SHA256:
        raise ExperimentError(f"{path} is not the published test set: replace it, or use the generated test set")
    return [smiles for (smiles,) in read_columns(path, ["smiles"])]


def generated_test_set(environment: FragmentEnvironment, n: int, seed: int) -> list[str]:
    """n distinct canonical SMILES in order of discovery, of finished states that ``random_finished_states`` draws.

    Raises:
        ExperimentError: there are hardly as many distinct ones.
    """
    rng, molecules, found = np.random.default_rng(seed), FragmentMolecules(environment), {}
    for _ in range(MAX_BATCHES):
        smiles = molecules.to_smiles(random_finished_states(environment, n, rng))
        found |= dict.fromkeys(one for one in smiles if one is not None)
        if len(found) >= n:
            return list(found)[:n]
    raise ExperimentError(
        f"{MAX_BATCHES * n} draws gave {len(found)} distinct molecules, not {n}: raise --max_fragments"
    )


def random_finished_states(environment: FragmentEnvironment, n_states: int, rng: np.random.Generator) -> Trees:
    """N finished states, each reached by actions that are uniform among the legal ones.

    Adding has as many actions as there are fragments, so trees grow until nothing can be joined to them or they are
    full; a fragment with one attachment point ends a branch, so that their sizes differ.
    """
    return finished_at_random(environment, environment.initial_states(n_states), rng)


def finished_at_random(environment: FragmentEnvironment, states: Trees, rng: np.random.Generator) -> Trees:
    """N finished states, each reached from one of ``states`` by actions that are uniform among the legal ones."""
    n_states = len(states[0])
    stopped = torch.zeros(n_states, dtype=torch.bool, device=environment.device)
    for _ in range(environment.max_length):
        rank = environment.legal_actions(states).cumsum(1)  # of each legal action, from 1
        uniform = torch.from_numpy(rng.random((n_states, 1))).to(environment.device)
        actions = (rank <= (uniform * rank[:, -1:]).floor()).sum(1)
        stopped |= actions == STOP
        states = environment.step(states, torch.where(stopped, STOP, actions))
    return states
