"""Forward and backward policies of the molecule graphs: a trunk with heads, in disjoint, named parameter groups.

Which heads there are is the environment's, see ``heads``.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mols.common.backward_loss import BackwardApproach, ema_update, uniform_log_pb
from mols.environments.base import Environment, States
from mols.policies.graph_transformer import Features, GraphTransformer, Tables, mlp
from mols.policies.heads import heads_of

N_CONDITIONS = 32  # numbers of the conditioning


def thermometer(temperature: float) -> Tensor:
    """(N_CONDITIONS,) the constant conditioning: as many ones as the reward exponent, a fraction, then zeros."""
    return (temperature - torch.arange(N_CONDITIONS)).clamp(0, 1)


class Policies(nn.Module):
    """P_F, P_B, log F, log n and log Z of one run.

    Args:
        environment: whose states they read.
        approach: the row of the approaches table.
        temperature: the reward exponent, constant in a run; the conditioning.
        width, n_layers, n_heads: of the trunk.
        uniform_initialisation: whether a learned P_B starts at uniform.
        has_log_z: whether the objective needs log Z rather than log F.
        kernels, precision: of the trunk's layers.
    """

    def __init__(
        self,
        environment: Environment,
        approach: BackwardApproach,
        *,
        temperature: float = 10.0,
        width: int = 128,
        n_layers: int = 8,
        n_heads: int = 2,
        uniform_initialisation: bool = True,
        has_log_z: bool = False,
        kernels: str = "auto",
        precision: str = "float32",
    ) -> None:
        super().__init__()
        self.environment = environment
        self.register_buffer("conditions", thermometer(temperature), persistent=False)
        self.trunk = GraphTransformer(
            environment.n_node_values,
            environment.n_end_kinds,
            N_CONDITIONS,
            width=width,
            n_layers=n_layers,
            n_heads=n_heads,
            kernels=kernels,
            precision=precision,
        )
        self.heads = heads_of(environment)
        self.forward_head = self.heads.forward(width)
        is_learned = approach.policy != "uniform"
        self.backward_head = self.heads.backward(width) if is_learned else None
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

    def tables(self) -> Tables:
        """What the trunk's parameters give for all states: worth keeping while these do not change."""
        return self.trunk.tables(self.conditions)

    def features(self, states: States, tables: Tables | None = None) -> Features:
        """The trunk's features of M states; ``tables``: what ``tables()`` gave, if no parameter has changed since."""
        tables = self.tables() if tables is None else tables
        return self.trunk(self.environment.node_kinds(states), self.environment.ends(states), tables)

    def forward_logits(self, states: States, features: Features) -> Tensor:
        """(M, A) logits of all forward actions, -inf where illegal."""
        return self.heads.forward_logits(self.forward_head, states, features)

    def backward_log_probs(self, states: States, features: Features | None = None) -> Tensor:
        """(M, B) log P_B in nats, -inf where illegal; ``features`` spares the trunk where they are known.

        A state without a backward action has a row of -inf throughout.
        """
        legal = self.environment.backward_mask(states)
        if self.backward_head is None:
            return uniform_log_pb(legal)
        features = self.features(states) if features is None else features
        logits = self.heads.backward_logits(self.backward_head, legal, features)
        initial = ~legal.any(1, keepdim=True)  # a softmax of nothing would be NaN, in the gradient too
        return logits.masked_fill(initial, 0.0).log_softmax(-1).masked_fill(~legal, -torch.inf)

    def log_flow(self, features: Features) -> Tensor:
        """(M,) log F in nats; V for the DQN objectives."""
        return self.log_flow_head(features.graph).squeeze(1)

    def log_n(self, states: States, features: Features) -> Tensor:
        """(M,) learned log number of trajectories from s_0; 0 at s_0."""
        return self.log_n_head(features.graph).squeeze(1).masked_fill(self.environment.is_empty(states), 0.0)

    @property
    def log_z(self) -> Tensor:
        """() nats, at the constant conditioning."""
        return self.log_z_network(self.conditions).squeeze()


def frozen_copy(policies: Policies, without: Iterable[str] = ()) -> Policies:
    """A deep copy that takes no gradient, ``without`` some of its modules: the EMA model, the Q target."""
    shared = {id(thing): thing for thing in (policies.environment, policies.heads)}
    twin = copy.deepcopy(policies, shared)
    for name in without:
        setattr(twin, name, None)
    return twin.eval().requires_grad_(False)


def move_towards(target: Policies, online: Policies, decay: float) -> None:
    """One EMA step of what the target has; ``decay`` is the weight of its old parameters."""
    parameters = dict(online.named_parameters())
    ema_update(target.parameters(), [parameters[name] for name, _ in target.named_parameters()], decay)
