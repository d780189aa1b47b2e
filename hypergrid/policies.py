"""Forward and backward policies of the hypergrid: a trunk with heads, in disjoint, named parameter groups.

The network reads the K-hot encoding of the coordinates (D*H inputs); a K-hot product is a sum of D rows of the
first layer's matrix, so that is what is computed. P_F, P_B and log F share the trunk unless it is untied.
Gritsaev et al. 2025, appendix: two hidden layers of 256, ReLU, P_B's last layer initialised at zero.
"""

import copy
import math

import torch
from torch import Tensor, nn

from hypergrid.common.backward_loss import BackwardApproach, ema_update, maxent_log_pb, uniform_log_pb

MASKED = torch.finfo(torch.float32).min  # finite: a fully masked row must not turn into NaN


class Trunk(nn.Module):
    """K-hot coordinates -> hidden features, as a multilayer perceptron with ReLU.

    Args:
        ndim, height: D and H of the grid.
        width: units of every hidden layer.
        n_layers: number of hidden layers, at least 1.
    """

    def __init__(self, ndim: int, height: int, width: int, n_layers: int) -> None:
        super().__init__()
        self.register_buffer("offsets", torch.arange(ndim) * height, persistent=False)
        bound = 1 / math.sqrt(ndim * height)  # torch's own bound for a linear layer with D*H inputs
        self.table = nn.Parameter(torch.empty(ndim * height, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(width).uniform_(-bound, bound))
        self.layers = nn.ModuleList(HiddenLayer(width) for _ in range(n_layers - 1))

    def forward(self, states: Tensor) -> Tensor:
        """(M, D) states -> (M, width) features."""
        hidden = nn.functional.embedding_bag(states + self.offsets, self.table, mode="sum")
        hidden = hidden.add_(self.bias).relu_()
        for layer in self.layers:
            hidden = layer(hidden).relu_()
        return hidden


class HiddenLayer(nn.Module):
    """A square linear layer whose matrix lies (inputs, outputs), as the rollout reads it and its gradient arises.

    With torch's (outputs, inputs) each of the two takes a transposed copy, an eighth of an iteration.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        linear = nn.Linear(width, width)
        self.matrix, self.bias = nn.Parameter(linear.weight.detach().T.contiguous()), linear.bias

    def forward(self, inputs: Tensor) -> Tensor:
        """(M, width) -> (M, width)."""
        return torch.addmm(self.bias, inputs, self.matrix)


class LearnedBackward(nn.Module):
    """P_B as a head on a trunk, masked to the legal backward actions.

    Args:
        trunk: the features to read; shared with P_F when the trunk is tied.
        zero_initialisation: start at uniform, with the head's weights and biases at zero.
    """

    def __init__(self, trunk: Trunk, ndim: int, width: int, zero_initialisation: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, ndim)
        if zero_initialisation:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def log_probs(self, states: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(M, D) states -> (M, D) log P_B in nats; ``hidden`` spares the trunk where it is known."""
        logits = self.head(self.trunk(states) if hidden is None else hidden)
        return logits.masked_fill(states == 0, MASKED).log_softmax(-1)


class FixedBackward:
    """A P_B in closed form, without parameters: uniform or maximum-entropy."""

    def __init__(self, policy: str) -> None:
        self.policy = policy
        self._log_probs = {"uniform": uniform_grid_log_pb, "maxent": maxent_grid_log_pb}[policy]

    def log_probs(self, states: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(M, D) states -> (M, D) log P_B in nats; ``hidden`` is not needed."""
        return self._log_probs(states)


def uniform_grid_log_pb(states: Tensor) -> Tensor:
    """(M, D) -> (M, D) minus log of the number of parents."""
    return uniform_log_pb(states > 0)


def maxent_grid_log_pb(states: Tensor) -> Tensor:
    """(M, D) -> (M, D) log(s_d / sum_j s_j): n(s - e_d) / n(s) (Mohammadpour et al. 2024)."""
    # n(s - e_d) is n(s) * s_d / sum s; what is constant in d cancels.
    return maxent_log_pb(states.to(torch.get_default_dtype()).log(), states > 0)


class Policies(nn.Module):
    """P_F, P_B, log F and log Z of one run, with P_B's EMA target where the approach scores one.

    Args:
        ndim, height: D and H of the grid.
        approach: the row of the approaches table.
        width, n_layers: of every trunk.
        tied_trunk: whether P_B reads P_F's trunk or has its own.
        zero_initialisation: whether a learned P_B starts at uniform.
        has_log_flow, has_log_z: what the objective needs.
    """

    def __init__(
        self,
        ndim: int,
        height: int,
        approach: BackwardApproach,
        *,
        width: int = 256,
        n_layers: int = 2,
        tied_trunk: bool = True,
        zero_initialisation: bool = True,
        has_log_flow: bool = False,
        has_log_z: bool = False,
    ) -> None:
        super().__init__()
        self.tied = tied_trunk
        self.trunk = Trunk(ndim, height, width, n_layers)
        self.forward_head = nn.Linear(width, ndim + 1)
        self.log_flow_head = nn.Linear(width, 1) if has_log_flow else None
        self.log_z = nn.Parameter(torch.zeros(())) if has_log_z else None
        self.backward: LearnedBackward | FixedBackward
        if approach.policy == "learned":
            trunk = self.trunk if tied_trunk else Trunk(ndim, height, width, n_layers)
            self.backward = LearnedBackward(trunk, ndim, width, zero_initialisation)
        else:
            self.backward = FixedBackward(approach.policy)
        self.backward_target = frozen_copy(self.backward) if approach.scored == "target" else None

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Disjoint parameter groups by name; ``backward_trunk`` only where it is untied."""
        groups = {"trunk": self.trunk, "forward_head": self.forward_head, "log_flow": self.log_flow_head}
        if isinstance(self.backward, LearnedBackward):
            groups["backward_head"] = self.backward.head
            if not self.tied:
                groups["backward_trunk"] = self.backward.trunk
        named = {name: list(module.parameters()) for name, module in groups.items() if module is not None}
        return named | ({"log_z": [self.log_z]} if self.log_z is not None else {})

    def forward_logits(self, states: Tensor, hidden: Tensor) -> Tensor:
        """(M, D+1) outputs of the forward head, illegal actions masked."""
        logits = self.forward_head(hidden)
        limit = self.trunk.table.shape[0] // states.shape[1] - 1
        return logits.masked_fill(nn.functional.pad(states == limit, (0, 1)), MASKED)

    def backward_hidden(self, hidden: Tensor) -> Tensor | None:
        """The features P_B can take over from P_F: the trunk's, where it is tied."""
        return hidden if self.tied else None

    def update_backward_target(self, decay: float) -> None:
        """One EMA step of P_B's target; ``decay`` is the weight of its old parameters."""
        if self.backward_target is not None:
            ema_update(self.backward_target.parameters(), self.backward.parameters(), decay)


def frozen_copy(module: nn.Module) -> nn.Module:
    """A deep copy in eval mode that takes no gradient: a target network."""
    return copy.deepcopy(module).eval().requires_grad_(False)
