"""Forward and backward policies of the molecule graphs: a trunk with heads, in disjoint, named parameter groups.

P_F has a logit for stopping (of the graph), for every fragment that can be joined to a node (of the node), and for
every attachment point that an end of an edge can get (of the two nodes); P_B one for every leaf that can be removed
and for every end that can be unset. Each head has one hidden layer. Logits are computed where they are legal.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mols.backward_loss import BackwardApproach, ema_update, uniform_log_pb
from mols.envs.fragments import FragmentEnvironment, Trees
from mols.models.graph_transformer import Features, GraphTransformer, mlp

N_CONDITIONS = 32  # numbers of the conditioning
MAX_TEMPERATURE = 32.0  # at which all of them are 1


def thermometer(temperature: float) -> Tensor:
    """(N_CONDITIONS,) the constant conditioning: as many ones as the reward exponent, a fraction, then zeros."""
    steps = torch.arange(N_CONDITIONS) * (MAX_TEMPERATURE / N_CONDITIONS)
    return ((temperature - steps) * (N_CONDITIONS / MAX_TEMPERATURE)).clamp(0, 1)


class Policies(nn.Module):
    """P_F, P_B, log F, log n and log Z of one run.

    Args:
        environment: whose states they read.
        approach: the row of the approaches table.
        temperature: the reward exponent, constant in a run; the conditioning.
        width, n_layers, n_heads: of the trunk.
        uniform_initialisation: whether a learned P_B starts at uniform.
        has_log_z: whether the objective needs log Z rather than log F.
    """

    def __init__(
        self,
        environment: FragmentEnvironment,
        approach: BackwardApproach,
        *,
        temperature: float = 10.0,
        width: int = 128,
        n_layers: int = 8,
        n_heads: int = 2,
        uniform_initialisation: bool = True,
        has_log_z: bool = False,
    ) -> None:
        super().__init__()
        self.environment = environment
        self.register_buffer("conditions", thermometer(temperature), persistent=False)
        self.trunk = GraphTransformer(
            environment.n_fragments,
            1 + environment.n_points,
            N_CONDITIONS,
            width=width,
            n_layers=n_layers,
            n_heads=n_heads,
        )
        self.forward_head = nn.ModuleDict(
            {
                "stop": mlp(2 * width, width, 1, 1),
                "add": mlp(width, width, environment.n_fragments, 1),
                "set": mlp(2 * width, width, environment.n_points, 1),
            }
        )
        is_learned = approach.policy != "uniform"
        self.backward_head = (
            nn.ModuleDict({"remove": mlp(width, width, 1, 1), "unset": mlp(2 * width, width, 1, 1)})
            if is_learned
            else None
        )
        if is_learned and uniform_initialisation:
            for head in self.backward_head.values():
                nn.init.zeros_(head[-1].weight)
                nn.init.zeros_(head[-1].bias)
        self.log_n_head = mlp(2 * width, width, 1, 1) if approach.loss == "maxent_residual" else None
        self.log_flow_head = None if has_log_z else mlp(2 * width, width, 1, 1)
        self.log_z_network = mlp(N_CONDITIONS, 2 * width, 1, 2) if has_log_z else None

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Disjoint parameter groups by name."""
        modules = {
            "trunk": self.trunk,
            "forward_head": self.forward_head,
            "backward_head": self.backward_head,
            "log_n": self.log_n_head,
            "log_flow": self.log_flow_head,
            "log_z": self.log_z_network,
        }
        return {name: list(module.parameters()) for name, module in modules.items() if module is not None}

    def features(self, states: Trees) -> Features:
        """The trunk's features of M states."""
        return self.trunk(states.fragment, states.attachment, self.conditions)

    def forward_logits(self, states: Trees, features: Features) -> Tensor:
        """(M, A) logits of all forward actions, -inf where illegal."""
        environment, mask = self.environment, self.environment.forward_mask(states)
        stop = self.forward_head["stop"](features.graph).masked_fill(~mask.stop.unsqueeze(1), -torch.inf)
        shape = mask.add.shape
        row, slot = torch.nonzero(mask.add, as_tuple=True)
        add = self.forward_head["add"](features.node[row, slot])
        add = _fill((*shape, environment.n_fragments), (row, slot), add)
        row, here, there = torch.nonzero(mask.set.any(-1), as_tuple=True)
        ends = self.forward_head["set"](_both(features, row, here, there))
        ends = ends.masked_fill(~mask.set[row, here, there], -torch.inf)
        ends = _fill(mask.set.shape, (row, here, there), ends)
        return torch.cat([stop, add.flatten(1), ends.flatten(1)], 1)

    def backward_log_probs(self, states: Trees, features: Features | None = None) -> Tensor:
        """(M, B) log P_B in nats, -inf where illegal; ``features`` spares the trunk where they are known.

        A state without a backward action has a row of -inf throughout.
        """
        legal = self.environment.backward_mask(states)
        if self.backward_head is None:
            return uniform_log_pb(legal)
        features = self.features(states) if features is None else features
        n_slots = states.fragment.shape[1]
        row, slot = torch.nonzero(legal[:, :n_slots], as_tuple=True)
        remove = self.backward_head["remove"](features.node[row, slot]).squeeze(1)
        remove = _fill((len(legal), n_slots), (row, slot), remove)
        row, end = torch.nonzero(legal[:, n_slots:], as_tuple=True)
        unset = self.backward_head["unset"](_both(features, row, end // n_slots, end % n_slots)).squeeze(1)
        unset = _fill((len(legal), n_slots**2), (row, end), unset)
        logits = torch.cat([remove, unset], 1)
        initial = ~legal.any(1, keepdim=True)  # a softmax of nothing would be NaN, in the gradient too
        return logits.masked_fill(initial, 0.0).log_softmax(-1).masked_fill(~legal, -torch.inf)

    def log_flow(self, features: Features) -> Tensor:
        """(M,) log F in nats; V for the DQN objectives."""
        return self.log_flow_head(features.graph).squeeze(1)

    def log_n(self, states: Trees, features: Features) -> Tensor:
        """(M,) learned log number of trajectories from s_0; 0 at s_0."""
        return self.log_n_head(features.graph).squeeze(1).masked_fill(self.environment.is_empty(states), 0.0)

    @property
    def log_z(self) -> Tensor:
        """() nats, at the constant conditioning."""
        return self.log_z_network(self.conditions).squeeze()


def _both(features: Features, row: Tensor, here: Tensor, there: Tensor) -> Tensor:
    """(E, 2 width) features of the node at an edge's end and of the one across."""
    return torch.cat([features.node[row, here], features.node[row, there]], 1)


def _fill(shape: tuple[int, ...], index: tuple[Tensor, ...], values: Tensor) -> Tensor:
    """A tensor of -inf with values at an index."""
    return values.new_full(shape, -torch.inf).index_put(index, values)


def frozen_copy(policies: Policies) -> Policies:
    """A deep copy that takes no gradient: the EMA model."""
    environment = policies.environment
    twin = copy.deepcopy(policies, {id(environment): environment})
    return twin.eval().requires_grad_(False)


def move_towards(target: Policies, online: Policies, decay: float) -> None:
    """One EMA step; ``decay`` is the weight of the target's old parameters."""
    ema_update(target.parameters(), online.parameters(), decay)


def parameters_of(groups: dict[str, list[nn.Parameter]], names: Iterable[str]) -> list[nn.Parameter]:
    """The parameters of the named groups, those that exist."""
    return [parameter for name in names for parameter in groups.get(name, [])]
