"""Forward and backward policies of the bit strings: a trunk with heads, in disjoint, named parameter groups.

P_F's logit of (position, word) is a logit of the position, read off the begin token, plus a logit of the word, read
off that position. P_B's logits of the filled positions and log F are read off the begin token.
"""

import copy
from typing import TypeVar

import torch
from torch import Tensor, nn

from bitseq.common.backward_loss import BackwardApproach, ema_update
from bitseq.environment import StringEnvironment
from bitseq.policies.backward import Backward, FixedBackward, LearnedBackward
from bitseq.policies.forms import form_of
from bitseq.policies.logits import MASKED, ActionLogits
from bitseq.policies.transformer import Trunk

N_LOG_Z = 64  # log Z is the sum of so many parameters: Adam moves it as many times the learning rate in a step


class Policies(nn.Module):
    """P_F, P_B, log F and log Z of one run, with P_B's target where the approach scores one.

    Args:
        environment: whose states they read.
        approach: the row of the approaches table.
        width, n_layers, n_heads, ff_width, dropout: of the trunk.
        uniform_initialisation: whether a learned P_B starts at uniform.
        has_log_flow, has_log_z: what the objective needs.
        kernels: ``torch`` or ``compiled``, the form of the encoder.
    """

    def __init__(
        self,
        environment: StringEnvironment,
        approach: BackwardApproach,
        *,
        width: int,
        n_layers: int,
        n_heads: int,
        ff_width: int,
        dropout: float,
        uniform_initialisation: bool = True,
        has_log_flow: bool = False,
        has_log_z: bool = False,
        kernels: str = "torch",
    ) -> None:
        super().__init__()
        length, self.empty = environment.length, environment.empty
        self.trunk = Trunk(
            length,
            environment.n_words,
            width=width,
            n_layers=n_layers,
            n_heads=n_heads,
            ff_width=ff_width,
            dropout=dropout,
            form=form_of(kernels),
        )
        self.forward_head = nn.ModuleDict(
            {"position": nn.Linear(width, length), "word": nn.Linear(width, environment.n_words)}
        )
        self.log_flow_head = nn.Linear(width, 1) if has_log_flow else None
        self.log_z_parts = nn.Parameter(torch.zeros(N_LOG_Z)) if has_log_z else None
        self.backward: Backward
        self.backward_target: LearnedBackward | None = None
        if approach.policy == "learned":
            self.backward = LearnedBackward(self.trunk, length, width, self.empty, uniform_initialisation)
            if approach.scored == "target":
                self.backward_target = frozen_copy(self.backward)
        else:
            self.backward = FixedBackward(approach.policy, self.empty)

    def train(self, mode: bool = True) -> "Policies":
        """Dropout on or off; a target stays without."""
        super().train(mode)
        if self.backward_target is not None:
            self.backward_target.eval()
        return self

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Disjoint parameter groups by name."""
        groups = {"trunk": self.trunk, "forward_head": self.forward_head, "log_flow": self.log_flow_head}
        if isinstance(self.backward, LearnedBackward):
            groups["backward_head"] = self.backward.head
        named = {name: list(module.parameters()) for name, module in groups.items() if module is not None}
        return named | ({"log_z": [self.log_z_parts]} if self.log_z_parts is not None else {})

    def forward_logits(self, states: Tensor, hidden: Tensor) -> ActionLogits:
        """Logits of all actions of (M, L) states with their (M, 1 + L, width) features.

        Words' logits at the empty positions alone: half of all, on average.
        """
        legal, head = states == self.empty, self.forward_head
        position = head["position"](hidden[:, 0]).masked_fill(~legal, MASKED)
        row = (legal.flatten().cumsum(0) - 1).clamp_(min=0).view(legal.shape)
        empty_positions = legal.flatten().nonzero().squeeze(1)
        if not len(empty_positions):  # full strings alone: a row that nothing reads
            empty_positions = row.new_zeros(1)
        features = hidden[:, 1:].flatten(0, 1).index_select(0, empty_positions)
        return ActionLogits(position, head["word"](features), row)

    def log_probs_of(self, states: Tensor, row: Tensor, actions: Tensor, coefficient: float) -> tuple[Tensor, Tensor]:
        """log P_F of actions in states that have equally many words, in eval mode, without the other actions' logits.

        Args:
            states: (K, L) different ones.
            row: (M,) the state that each action is taken in.
            actions: (M,).
            coefficient: P_F = softmax(forward head / coefficient).

        Returns:
            (M,) nats, and (K, 1, width) features of the states' begin tokens.
        """
        empty = (states == self.empty).nonzero()[:, 1].view(len(states), -1)
        begin, at_empty = self.trunk.read(states, empty).tensor_split([1], dim=1)
        position_logit, head = self.forward_head["position"](begin.squeeze(1)), self.forward_head["word"]
        log_words = self.trunk.form.linear_logsumexp(head, at_empty, coefficient)
        log_total = (position_logit.gather(1, empty) / coefficient + log_words).logsumexp(1)
        position, word = actions // head.out_features, actions % head.out_features
        place = (empty[row] < position.unsqueeze(1)).sum(1)
        word_logit = (at_empty[row, place] * head.weight[word]).sum(1) + head.bias[word]
        return (position_logit[row, position] + word_logit) / coefficient - log_total[row], begin

    def log_flow(self, hidden: Tensor) -> Tensor:
        """(M, 1 + L, width) features -> (M,) log F in nats."""
        return self.log_flow_head(hidden[:, 0]).squeeze(-1)

    @property
    def log_z(self) -> Tensor:
        """() nats."""
        return self.log_z_parts.sum()

    def update_backward_target(self, decay: float) -> None:
        """One EMA step of P_B's target; ``decay`` is the weight of its old parameters."""
        if self.backward_target is not None:
            ema_update(self.backward_target.parameters(), self.backward.parameters(), decay)


Network = TypeVar("Network", bound=nn.Module)


def frozen_copy(module: Network) -> Network:
    """A deep copy in eval mode that takes no gradient: a target network."""
    return copy.deepcopy(module).eval().requires_grad_(False)


class Target:
    """The target of the whole model, P_F and P_B on one trunk: Q's in the DQN objectives, and what is correlated.

    Args:
        online: the policies that it follows, and starts as.

    Attributes:
        policies: a frozen copy of them, without log F, log Z and P_B's own target.
    """

    def __init__(self, online: Policies) -> None:
        self.policies = frozen_copy(online)
        self.policies.log_flow_head = self.policies.log_z_parts = self.policies.backward_target = None
        parameters = dict(online.named_parameters())
        self._pairs = [(target, parameters[name]) for name, target in self.policies.named_parameters()]

    def move(self, decay: float) -> None:
        """One EMA step; ``decay`` is the weight of the old parameters, 0 a copy."""
        ema_update(*zip(*self._pairs, strict=True), decay)
