"""What MXMNet is made of: the bases beside scipy's functions, pairs, edges and angles beside plain loops."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
from each import each
from scipy.special import eval_legendre, spherical_jn

from mols.common.terminal import ExperimentError
from mols.molecules.structures import Structure
from mols.rewards.mxmnet.basis import (
    N_RADIAL,
    N_SPHERICAL,
    N_SPHERICAL_RADIAL,
    RadialBasis,
    angular_part,
    envelope,
    radial_part,
)
from mols.rewards.mxmnet.graph import collate, edge_vectors, members, near_pairs, one_hop_angles, two_hop_angles

CUTOFF = 5.0
DISTANCES = np.array([0.1, 0.5, 0.96, 1.09, 1.54, 2.7, 4.0, 4.999])


def zeros_by_scan(order):
    """The first zeros of j_order above 0, where it changes sign on a fine grid, by bisection."""
    grid = np.arange(0.5, 35, 0.01)
    signs = np.sign(spherical_jn(order, grid))
    low = grid[:-1][signs[:-1] * signs[1:] < 0][:N_SPHERICAL_RADIAL]
    high, rising = low + 0.01, spherical_jn(order, low) < 0
    for _ in range(60):
        middle = (low + high) / 2
        below = (spherical_jn(order, middle) < 0) == rising
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return low


def structure(n_atoms, bonds, seed=0, scale=1.5):
    """Random positions, elements by turns."""
    positions = scale * np.random.default_rng(seed).standard_normal((n_atoms, 3))
    numbers = np.array([6, 1, 8, 7, 9])[np.arange(n_atoms) % 5]
    return Structure(numbers, positions, np.array(bonds, dtype=np.int64).reshape(-1, 2))


STRUCTURES = [
    structure(5, [(0, 1), (2, 0), (3, 0), (0, 4)]),  # a star
    structure(1, [], seed=1),
    structure(6, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 0), (1, 4)], seed=2),  # two rings
    structure(4, [(3, 2)], seed=3, scale=4.0),  # atoms without bonds, far from each other
]


def test_the_first_zeros_are_the_known_ones():
    # Abramowitz and Stegun, table 10.6.
    assert zeros_by_scan(1)[:2] == pytest.approx([4.493409, 7.725252], abs=1e-6)
    assert zeros_by_scan(2)[:2] == pytest.approx([5.763459, 9.095011], abs=1e-6)


def test_the_radial_part_of_the_spherical_basis_is_scipys():
    found = radial_part(torch.from_numpy(DISTANCES), CUTOFF).numpy()
    assert found.shape == (len(DISTANCES), N_SPHERICAL, N_SPHERICAL_RADIAL) == (8, 7, 6)
    x = DISTANCES[:, None] / CUTOFF
    u = 1 / x - 21 * x**5 + 35 * x**6 - 15 * x**7
    for order in range(N_SPHERICAL):
        zeros = zeros_by_scan(order)
        scale = np.sqrt(2) / np.abs(spherical_jn(order + 1, zeros))
        expected = u * scale * spherical_jn(order, zeros * x)
        np.testing.assert_allclose(found[1:, order], expected[1:], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(found[0, order], expected[0], atol=1e-5)


def test_the_bessel_functions_are_orthonormal():
    x = torch.linspace(0, 1, 20_001, dtype=torch.float64)[400:-1]  # what is left out adds less than 2e-3
    basis = radial_part(CUTOFF * x, CUTOFF) / envelope(x)[:, None, None]
    products = torch.einsum("xlm,xln,x->lmn", basis, basis, x**2) / 20_000
    np.testing.assert_allclose(products, np.eye(N_SPHERICAL_RADIAL)[None].repeat(N_SPHERICAL, 0), atol=2e-3)


def test_the_angular_part_is_scipys():
    cosine = np.linspace(-1, 1, 21)
    expected = [math.sqrt((2 * n + 1) / (4 * math.pi)) * eval_legendre(n, cosine) for n in range(N_SPHERICAL)]
    np.testing.assert_allclose(angular_part(torch.from_numpy(cosine)), np.stack(expected, 1), atol=1e-12)


def test_the_radial_basis_is_its_formula():
    basis = RadialBasis(CUTOFF).double()
    basis.freq.data = torch.arange(1, N_RADIAL + 1).double() * torch.pi * 1.01
    found = basis(torch.from_numpy(DISTANCES)).detach()
    for d, row in zip(DISTANCES, found, strict=True):
        x = d / CUTOFF
        u = 1 / x - 21 * x**5 + 35 * x**6 - 15 * x**7
        expected = [u * math.sin(n * math.pi * 1.01 * x) for n in range(1, N_RADIAL + 1)]
        np.testing.assert_allclose(row, expected, rtol=1e-7)


def test_bases_are_0_from_the_cutoff_on():
    beyond = torch.tensor([5.0, 5.5, 100.0, 1e6], dtype=torch.float64)
    assert RadialBasis(CUTOFF)(beyond).abs().max() == 0 and radial_part(beyond, CUTOFF).abs().max() == 0
    assert radial_part(torch.tensor([4.9]), CUTOFF).abs().min() > 0
    assert envelope(torch.tensor(0.5)).item() == 2 - 21 / 32 + 35 / 64 - 15 / 128


def test_members_are_what_loops_find():
    generator = torch.Generator().manual_seed(0)
    for n_members, n_asked in ((40, 25), (40, 0), (0, 25), (0, 0), (3, 60)):
        group = torch.randint(7, (n_members,), generator=generator)
        asked = torch.randint(9, (n_asked,), generator=generator)  # 7 and 8 are empty
        expected = [(i, j) for i, a in enumerate(asked) for j, g in enumerate(group) if a == g]
        assert list(zip(*(x.tolist() for x in members(group, asked)), strict=True)) == expected


def test_a_batch_shifts_atoms_and_leaves_its_input():
    before = [one.bonds.copy() for one in STRUCTURES]
    atoms = collate(STRUCTURES)
    assert atoms.molecule.tolist() == [0] * 5 + [1] + [2] * 6 + [3] * 4
    assert atoms.kind[:6].tolist() == [1, 0, 3, 2, 4, 1]  # C H O N F and C again
    shifted = [
        pair
        for one, shift in zip(STRUCTURES, (0, 5, 6, 12), strict=True)
        for a, b in one.bonds.tolist()
        for pair in ((a + shift, b + shift), (b + shift, a + shift))
    ]
    assert sorted(zip(atoms.source.tolist(), atoms.target.tolist(), strict=True)) == sorted(shifted)
    np.testing.assert_array_equal(atoms.position, np.concatenate([one.positions for one in STRUCTURES]))
    for one, bonds in zip(STRUCTURES, before, strict=True):
        np.testing.assert_array_equal(one.bonds, bonds)


def test_pairs_are_what_loops_find():
    atoms = collate(STRUCTURES)
    found = near_pairs(atoms, CUTOFF)
    expected = {}
    for i, j in combinations(range(16), 2):
        distance = math.dist(atoms.position[i], atoms.position[j])
        if atoms.molecule[i] == atoms.molecule[j] and distance < CUTOFF:
            expected[i, j] = distance
    assert 10 < len(expected) < 10 + 15 + 6  # some are too far
    pairs = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert len(pairs) == len(expected) and dict(zip(pairs, found.distance.tolist(), strict=True)) == pytest.approx(
        expected
    )


def angle_between(one, other):
    """By the arc cosine, in plain Python."""
    cosine = sum(a * b for a, b in zip(one, other, strict=True)) / (math.hypot(*one) * math.hypot(*other))
    return math.acos(max(-1, min(1, cosine)))


def slow_angles(atoms, hops):
    """{((source, target) of the sender, (source, target) of the receiver): angle} by loops over all edges."""
    edges = list(zip(atoms.source.tolist(), atoms.target.tolist(), strict=True))
    positions, found = atoms.position.tolist(), {}
    for j, i in edges:
        for k, end in edges:
            if end != (j if hops == 2 else i) or (hops == 2 and k == i):
                continue
            onward = (i, j) if hops == 2 else (j, i)  # from one end of the receiver to where the sender ends
            one = [b - a for a, b in zip(*(positions[x] for x in onward), strict=True)]
            other = [b - a for a, b in zip(positions[end], positions[k], strict=True)]
            found[(k, end), (j, i)] = angle_between(one, other)
    return found


@pytest.mark.parametrize(("hops", "find"), [(2, two_hop_angles), (1, one_hop_angles)])
def test_angles_are_what_loops_find(hops, find):
    atoms = collate(STRUCTURES)
    found = find(atoms, edge_vectors(atoms))
    expected = slow_angles(atoms, hops)
    edges = list(zip(atoms.source.tolist(), atoms.target.tolist(), strict=True))
    names = [(edges[s], edges[r]) for s, r in zip(found.sender.tolist(), found.receiver.tolist(), strict=True)]
    assert len(names) == len(expected) and set(names) == set(expected)
    for name, cosine in zip(names, found.cosine.tolist(), strict=True):
        assert cosine == pytest.approx(math.cos(expected[name]), abs=1e-12)


def test_angles_of_a_straight_and_of_a_bent_molecule():
    straight = Structure(
        np.array([6, 7, 1]), np.array([[0, 0, 0], [1.2, 0, 0], [-1.1, 0, 0]]), np.array([[0, 1], [0, 2]])
    )
    right = straight._replace(positions=np.array([[0, 0, 0], [1.2, 0, 0], [0, 1.1, 0]]))
    for one, two_hop, beside in ((straight, 1, 1), (right, 0, 0)):
        atoms = collate([one])
        assert two_hop_angles(atoms, edge_vectors(atoms)).cosine.tolist() == [two_hop] * 2
        found = one_hop_angles(atoms, edge_vectors(atoms))
        # Two edges end at the middle: each beside itself, which is the way back, and beside the other.
        expected = [-1 if sender == receiver else beside for sender, receiver, _ in zip(*found, strict=True)]
        assert found.cosine.tolist() == expected and len(expected) == 6


def test_bonds_may_be_missing():
    atoms = collate([STRUCTURES[1]])
    assert [len(x) for x in two_hop_angles(atoms, edge_vectors(atoms))] == [0, 0, 0]
    assert [len(x) for x in one_hop_angles(atoms, edge_vectors(atoms))] == [0, 0, 0]
    assert [len(x) for x in near_pairs(atoms, CUTOFF)] == [0, 0, 0]


@each("number", [-1, 0, 2, 17, 10**12])
def test_an_element_that_the_network_does_not_know_is_refused(number):
    other = STRUCTURES[1]._replace(numbers=np.array([number]))
    with pytest.raises(ExperimentError, match=f"not of atomic number {number}: leave it out"):
        collate([STRUCTURES[0], other])
