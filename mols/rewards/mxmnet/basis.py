"""Distances and angles as MXMNet takes them: the bases of Klicpera et al. 2020, "Directional Message Passing".

With x = distance / cutoff, z(l, n) the n-th zero above 0 of the spherical Bessel function j_l, and P_l Legendre's
polynomial,

    radial     u(x) sin(f_n x),                     f_n a parameter, n pi at first (equation 7)
    spherical  u(x) sqrt(2) / |j_(l+1)(z(l, n))| j_l(z(l, n) x)  sqrt((2 l + 1) / (4 pi)) P_l(cos angle)  (equation 6)
    envelope   u(x) = 1/x - 21 x^5 + 35 x^6 - 15 x^7

The envelope is the published MXMNet's, and what its weights were trained with: the 1/x of equation 7 times the
polynomial of equation 8 would have powers lower by one. It is 0 at the cutoff, where its slope is not. Beyond it,
everything is 0.
"""

from functools import cache
from math import pi

import numpy as np
import torch
from scipy.optimize.elementwise import find_root
from scipy.special import spherical_jn
from torch import Tensor, nn

N_RADIAL, N_SPHERICAL, N_SPHERICAL_RADIAL = 16, 7, 6


class RadialBasis(nn.Module):
    """Distances -> N_RADIAL numbers each.

    Args:
        cutoff: Angstrom.
    """

    def __init__(self, cutoff: float) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.freq = nn.Parameter(pi * torch.arange(1.0, N_RADIAL + 1))

    def forward(self, distance: Tensor) -> Tensor:
        """(E,) Angstrom, above 0 -> (E, N_RADIAL)."""
        x = _relative(distance, self.cutoff)
        return envelope(x) * (self.freq * x).sin()


def radial_part(distance: Tensor, cutoff: float) -> Tensor:
    """(E,) Angstrom, above 0 -> (E, N_SPHERICAL, N_SPHERICAL_RADIAL): the spherical basis without its angle.

    In float64 it is exact to 1e-5 at 0.02 cutoffs, and to 1e-9 from 0.1 on.
    """
    zeros, scales = (torch.from_numpy(array).to(distance) for array in _bessel_constants())
    x = _relative(distance, cutoff)[..., None]
    return envelope(x) * scales * _spherical_bessel(zeros * x)


def angular_part(cosine: Tensor) -> Tensor:
    """(T,) cosines of angles -> (T, N_SPHERICAL): spherical harmonics Y_l^0, by the recurrence of Legendre's P_l."""
    rows = [torch.ones_like(cosine), cosine]
    for order in range(1, N_SPHERICAL - 1):
        rows.append(((2 * order + 1) * cosine * rows[order] - order * rows[order - 1]) / (order + 1))
    orders = torch.arange(N_SPHERICAL).to(cosine)
    return torch.stack(rows, dim=1) * ((2 * orders + 1) / (4 * pi)).sqrt()


def envelope(x: Tensor) -> Tensor:
    """u(x) for x in (0, 1]."""
    return 1 / x + x**5 * (-21 + x * (35 - 15 * x))


def _relative(distance: Tensor, cutoff: float) -> Tensor:
    """(E,) -> (E, 1) in (0, 1]; what lies beyond the cutoff is put on it, where the envelope is 0."""
    return (distance / cutoff).clamp_max(1).unsqueeze(-1)


def _spherical_bessel(x: Tensor) -> Tensor:
    """(..., L, K) -> (..., L, K) with j_l of row l, by the recurrence that starts from j_(-1) = cos x / x."""
    before, now = x.cos() / x, x.sin() / x
    rows = [now[..., 0, :]]
    for order in range(x.shape[-2] - 1):
        before, now = now, (2 * order + 1) / x * now - before
        rows.append(now[..., order + 1, :])
    return torch.stack(rows, dim=-2)


@cache
def _bessel_constants() -> tuple[np.ndarray, np.ndarray]:
    """(N_SPHERICAL, N_SPHERICAL_RADIAL) zeros z(l, n) and factors sqrt(2) / |j_(l+1)(z(l, n))|."""
    zeros = [np.arange(1, N_SPHERICAL + N_SPHERICAL_RADIAL) * pi]
    for order in range(1, N_SPHERICAL):
        # Between two zeros of j_(l-1) lies one of j_l.
        found = find_root(lambda x, order=order: spherical_jn(order, x), (zeros[-1][:-1], zeros[-1][1:]))
        zeros.append(found.x)
    table = np.stack([row[:N_SPHERICAL_RADIAL] for row in zeros])
    return table, np.sqrt(2) / np.abs(spherical_jn(np.arange(1, N_SPHERICAL + 1)[:, None], table))
