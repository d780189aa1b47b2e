"""The layers of MXMNet, whose formulae are in ``mols.rewards.mxmnet.network``; attributes have the published names."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from mols.rewards.mxmnet.graph import Pairs

WIDTH = 128


class Edges(NamedTuple):
    """What the local layers know of E edges.

    Attributes:
        source, target: (E,) atoms.
        distance: (E, WIDTH) embedded.
        two_hop, one_hop: (sender, receiver, embedded angle): (T,), (T,), (T, WIDTH).
    """

    source: Tensor
    target: Tensor
    distance: Tensor
    two_hop: tuple[Tensor, Tensor, Tensor]
    one_hop: tuple[Tensor, Tensor, Tensor]


def perceptron(*widths: int) -> nn.Sequential:
    """Linear maps from each width to the next, SiLU behind each."""
    return nn.Sequential(*(nn.Sequential(nn.Linear(*pair), nn.SiLU()) for pair in pairwise(widths)))


class Residual(nn.Module):
    """x + mlp(x) with two linear maps."""

    def __init__(self) -> None:
        super().__init__()
        self.mlp = perceptron(WIDTH, WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """(n, WIDTH) -> (n, WIDTH)."""
        return x + self.mlp(x)


class EndsPerceptron(nn.Sequential):
    """mlp([h_i, h_j, e_ij]): its products with h are taken once an atom, and that with e once for both directions."""

    def __init__(self) -> None:
        super().__init__(nn.Sequential(nn.Linear(3 * WIDTH, WIDTH), nn.SiLU()))

    def of_distance(self, distance: Tensor) -> Tensor:
        """(E, WIDTH) embedded distances -> (E, WIDTH), their part of the linear map and its bias."""
        linear = self[0][0]
        return torch.addmm(linear.bias, distance, linear.weight[:, 2 * WIDTH :].T)

    def of_atoms(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """(n, WIDTH) -> twice (n, WIDTH), the atoms' parts of the linear map as the ends i and j."""
        as_target, as_source, _ = self[0][0].weight.split(WIDTH, dim=1)
        return state @ as_target.T, state @ as_source.T


class GlobalLayer(nn.Module):
    """Messages between near atoms."""

    def __init__(self) -> None:
        super().__init__()
        self.h_mlp = perceptron(WIDTH, WIDTH)
        self.res1, self.res2, self.res3 = Residual(), Residual(), Residual()
        self.mlp = perceptron(WIDTH, WIDTH)
        self.x_edge_mlp = EndsPerceptron()
        self.linear = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, state: Tensor, pairs: Pairs, distance: Tensor) -> Tensor:
        """(n, WIDTH) states of the atoms, and (P, WIDTH) embedded distances of the pairs -> (n, WIDTH)."""
        gate, share = self.linear(distance), self.x_edge_mlp.of_distance(distance)
        passed = self._pass(self.h_mlp(state), pairs, gate, share)
        passed = self.mlp(self.res1(passed)) + state
        return self._pass(self.res3(self.res2(passed)), pairs, gate, share)

    def _pass(self, state: Tensor, pairs: Pairs, gate: Tensor, share: Tensor) -> Tensor:
        as_target, as_source = self.x_edge_mlp.of_atoms(state)
        passed = state.clone()
        for target, source in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
            passed.index_add_(0, target, gate * silu(as_target[target] + as_source[source] + share))
        return passed


class LocalLayer(nn.Module):
    """Messages between edges of the bonds, from these to atoms, and what is read from atoms."""

    def __init__(self) -> None:
        super().__init__()
        self.h_mlp = perceptron(WIDTH, WIDTH)
        self.mlp_kj, self.mlp_ji_1 = EndsPerceptron(), EndsPerceptron()
        self.mlp_ji_2, self.mlp_jj = perceptron(WIDTH, WIDTH), perceptron(WIDTH, WIDTH)
        self.mlp_sbf1, self.mlp_sbf2 = perceptron(WIDTH, WIDTH, WIDTH), perceptron(WIDTH, WIDTH, WIDTH)
        self.lin_rbf1, self.lin_rbf2 = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2))
        self.res1, self.res2, self.res3 = Residual(), Residual(), Residual()
        self.lin_rbf_out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.y_mlp = perceptron(WIDTH, WIDTH, WIDTH, WIDTH)
        self.y_W = nn.Linear(WIDTH, 1)

    def forward(self, state: Tensor, edges: Edges) -> tuple[Tensor, Tensor]:
        """(n, WIDTH) states of the atoms -> (n, WIDTH) new ones, and (n, 1) what is read from them."""
        at_first = self.h_mlp(state)
        sent = self._from_ends(self.mlp_kj, at_first, edges) * self.lin_rbf1(edges.distance)
        message = self._from_ends(self.mlp_ji_1, at_first, edges)
        message = _add_by_angle(message, sent, edges.two_hop, self.mlp_sbf1)
        sent = self.mlp_jj(message) * self.lin_rbf2(edges.distance)
        message = _add_by_angle(self.mlp_ji_2(message), sent, edges.one_hop, self.mlp_sbf2)
        message = message * self.lin_rbf_out(edges.distance)
        passed = torch.zeros_like(state).index_add_(0, edges.target, message)
        passed = self.h_mlp(self.res1(passed)) + state
        passed = self.res3(self.res2(passed))
        return passed, self.y_W(self.y_mlp(passed))

    def _from_ends(self, network: EndsPerceptron, state: Tensor, edges: Edges) -> Tensor:
        as_target, as_source = network.of_atoms(state)
        return silu(as_target[edges.target] + as_source[edges.source] + network.of_distance(edges.distance))


def _add_by_angle(
    message: Tensor, sent: Tensor, angles: tuple[Tensor, Tensor, Tensor], of_angle: nn.Sequential
) -> Tensor:
    """(E, WIDTH) messages of edges, with those sent to them along angles added."""
    sender, receiver, angle = angles
    return message.index_add(0, receiver, sent[sender] * of_angle(angle))
