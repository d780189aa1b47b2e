"""Molecules in space as MXMNet takes them: near pairs of atoms, bonds in both directions, and angles between bonds.

    pairs     every two atoms of a molecule that are nearer than the cutoff, whether bonded or not
    edges     every bond in both directions, from its source j to its target i
    two-hop   edge k -> j beside edge j -> i, for k other than i
    one-hop   edge j' -> i beside edge j -> i, itself included

An angle lies between the directions of its two edges. Everything is found for a batch at once, by sorting.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mols.common.terminal import ExperimentError
from mols.molecules.structures import Structure

ELEMENTS = (1, 6, 7, 8, 9)  # H C N O F, the rows of the network's embeddings


class Atoms(NamedTuple):
    """N molecules with n atoms in all, one after the other.

    Attributes:
        kind: (n,) index into ``ELEMENTS``.
        position: (n, 3) Angstrom, float64.
        molecule: (n,) 0 to N - 1.
        source, target: (E,) atoms of the edges.
    """

    kind: Tensor
    position: Tensor
    molecule: Tensor
    source: Tensor
    target: Tensor


class Pairs(NamedTuple):
    """P unordered pairs of atoms: (P,) each, distances in Angstrom."""

    first: Tensor
    second: Tensor
    distance: Tensor


class Angles(NamedTuple):
    """T angles: (T,) the edge that a message comes from, the edge that it goes to, and the angle's cosine."""

    sender: Tensor
    receiver: Tensor
    cosine: Tensor


def collate(structures: Sequence[Structure], device: torch.device | str = "cpu") -> Atoms:
    """One batch of N >= 1 molecules.

    Raises:
        ExperimentError: an element is none of ``ELEMENTS``.
    """
    sizes = np.array([len(structure.numbers) for structure in structures])
    numbers = np.concatenate([structure.numbers for structure in structures])
    known = numbers[:, None] == ELEMENTS
    if not known.any(1).all():
        number = numbers[~known.any(1)][0]
        raise ExperimentError(
            f"MXMNet takes molecules of H, C, N, O and F, not of atomic number {number}: leave it out"
        )
    n_bonds = [len(structure.bonds) for structure in structures]
    bonds = np.concatenate([structure.bonds for structure in structures])
    bonds = bonds + (sizes.cumsum() - sizes).repeat(n_bonds)[:, None]
    arrays = Atoms(
        known.argmax(1),
        np.concatenate([structure.positions for structure in structures]),
        np.arange(len(sizes)).repeat(sizes),
        np.concatenate([bonds[:, 0], bonds[:, 1]]),
        np.concatenate([bonds[:, 1], bonds[:, 0]]),
    )
    return Atoms(*(torch.from_numpy(array).to(device) for array in arrays))


def near_pairs(atoms: Atoms, cutoff: float) -> Pairs:
    """The pairs of a batch that are nearer than ``cutoff``, in Angstrom."""
    first, second = members(atoms.molecule, atoms.molecule)
    distance = (atoms.position[first] - atoms.position[second]).norm(dim=1)
    kept = (first < second) & (distance < cutoff)
    return Pairs(first[kept], second[kept], distance[kept])


def edge_vectors(atoms: Atoms) -> Tensor:
    """(E, 3) from the target of each edge to its source, Angstrom."""
    return atoms.position[atoms.source] - atoms.position[atoms.target]


def two_hop_angles(atoms: Atoms, vectors: Tensor) -> Angles:
    """The two-hop angles of a batch, straight on being 0.

    Args:
        atoms: the batch.
        vectors: (E, 3) its ``edge_vectors``.
    """
    receiver, sender = members(atoms.target, atoms.source)
    onward = atoms.source[sender] != atoms.target[receiver]
    receiver, sender = receiver[onward], sender[onward]
    return Angles(sender, receiver, _cosine(vectors[receiver], vectors[sender]))


def one_hop_angles(atoms: Atoms, vectors: Tensor) -> Angles:
    """The one-hop angles of a batch, an edge beside itself being at pi; arguments as of ``two_hop_angles``."""
    receiver, sender = members(atoms.target, atoms.target)
    return Angles(sender, receiver, _cosine(-vectors[receiver], vectors[sender]))


def members(group: Tensor, asked: Tensor) -> tuple[Tensor, Tensor]:
    """Who is in the groups that are asked for.

    Args:
        group: (G,) the group of each member, a number from 0.
        asked: (A,) a group each; it may be empty.

    Returns:
        (T,) indices into ``asked``, ascending, and with each the index of a member of that group, ascending too.
    """
    n_groups = 1 + int(torch.cat([group, asked, group.new_zeros(1)]).max())
    order, sizes = group.argsort(stable=True), group.bincount(minlength=n_groups)
    counts = sizes[asked]
    asker = torch.arange(len(asked), device=group.device).repeat_interleave(counts)
    place = torch.arange(len(asker), device=group.device) - (counts.cumsum(0) - counts)[asker]
    return asker, order[(sizes.cumsum(0) - sizes)[asked][asker] + place]


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    """(T, 3) and (T, 3) vectors -> (T,) cosines of the angles between them."""
    return ((one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1))).clamp(-1, 1)
