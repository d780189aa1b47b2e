"""Forward and backward policies of the bit strings: a trunk with heads, in disjoint, named parameter groups.

P_F's logit of (position, word) is a logit of the position, read off the begin token, plus a logit of the word, read
off that position. P_B's logits of the filled positions and log F are read off the begin token.
"""

import copy
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bitseq.common.backward_loss import BackwardApproach, ema_update, maxent_log_pb, uniform_log_pb
from bitseq.environment import StringEnvironment
from bitseq.kernels.normaliser import linear_logsumexp
from bitseq.policies.transformer import Trunk

MASKED = torch.finfo(torch.float32).min / 2  # finite, also with a word's logit added: no NaN on a full state
N_LOG_Z = 64  # log Z is the sum of so many parameters: Adam moves it as many times the learning rate in a step


class ActionLogits(NamedTuple):
    """Logits of all legal actions of M states, as the sum of two parts.

    Attributes:
        position: (M, L), MASKED where the position is filled.
        word: (E, V) of the E empty positions of all states, one after another.
        row: (M, L) where a position's words stand in ``word``; of a filled one, some other's.
    """

    position: Tensor
    word: Tensor
    row: Tensor

    def over(self, coefficient: float) -> "ActionLogits":
        """The logits divided by a coefficient."""
        if coefficient == 1.0:
            return self
        return ActionLogits(self.position / coefficient, self.word / coefficient, self.row)

    def words_at(self, position: Tensor) -> Tensor:
        """(M, V) logits of the words at one empty position of each state."""
        return self.word[self.row.gather(1, position.unsqueeze(1)).squeeze(1)]

    def of(self, actions: Tensor) -> Tensor:
        """(M,) the logits of (M,) actions."""
        n_words = self.word.shape[1]
        position = (actions // n_words).unsqueeze(1)
        index = self.row.gather(1, position).squeeze(1) * n_words + actions % n_words
        return self.position.gather(1, position).squeeze(1) + self.word.flatten().index_select(0, index)

    def of_positions(self) -> Tensor:
        """(M, L) the log of the summed exponentials over the words of each position."""
        return self.position + self.word.logsumexp(1)[self.row]

    def logsumexp(self) -> Tensor:
        """(M,) the log of the summed exponentials over all actions; MASKED on a full state."""
        return self.of_positions().logsumexp(-1)

    def log_prob(self, actions: Tensor) -> Tensor:
        """(M,) log of the softmax over all actions, at (M,) actions; nats."""
        return self.of(actions) - self.logsumexp()

    def joint(self) -> Tensor:
        """(M, L, V) the logits themselves."""
        return self.position.unsqueeze(-1) + self.word[self.row]


class LearnedBackward(nn.Module):
    """P_B as a head on the trunk's begin token, masked to the filled positions.

    Args:
        trunk: the features to read, shared with P_F.
        length: L.
        width: of the features.
        empty: the token of an empty position.
        uniform_initialisation: start at uniform, with the head's weights and biases at zero.
    """

    def __init__(self, trunk: Trunk, length: int, width: int, empty: int, uniform_initialisation: bool) -> None:
        super().__init__()
        self.trunk, self.empty = trunk, empty
        self.head = nn.Linear(width, length)
        if uniform_initialisation:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def log_probs(self, states: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(M, L) states -> (M, L) log P_B in nats; ``hidden`` spares the trunk where it is known."""
        hidden = self.trunk(states, begin_only=True) if hidden is None else hidden
        return self.head(hidden[:, 0]).masked_fill(states == self.empty, MASKED).log_softmax(-1)


class FixedBackward:
    """A P_B in closed form, without parameters: uniform or maximum-entropy.

    Every state with t words has t! histories, whichever words they are, so that n(s) is equal among its parents
    and the two are the same (Mohammadpour et al. 2024).
    """

    def __init__(self, policy: str, empty: int) -> None:
        self.empty = empty
        self._log_probs = {"uniform": uniform_log_pb, "maxent": _maxent_string_log_pb}[policy]

    def log_probs(self, states: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(M, L) states -> (M, L) log P_B in nats, -inf where illegal; ``hidden`` is not needed."""
        return self._log_probs(states != self.empty)


def _maxent_string_log_pb(filled: Tensor) -> Tensor:
    # (t - 1)! histories of every parent: the same one, which cancels.
    return maxent_log_pb(torch.zeros(filled.shape, device=filled.device), filled)


class Policies(nn.Module):
    """P_F, P_B, log F and log Z of one run, with P_B's target where the approach scores one.

    Args:
        environment: whose states they read.
        approach: the row of the approaches table.
        width, n_layers, n_heads, ff_width, dropout: of the trunk.
        uniform_initialisation: whether a learned P_B starts at uniform.
        has_log_flow, has_log_z: what the objective needs.
    """

    def __init__(
        self,
        environment: StringEnvironment,
        approach: BackwardApproach,
        *,
        width: int = 64,
        n_layers: int = 3,
        n_heads: int = 8,
        ff_width: int = 64,
        dropout: float = 0.1,
        uniform_initialisation: bool = True,
        has_log_flow: bool = False,
        has_log_z: bool = False,
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
        )
        self.forward_head = nn.ModuleDict(
            {"position": nn.Linear(width, length), "word": nn.Linear(width, environment.n_words)}
        )
        self.log_flow_head = nn.Linear(width, 1) if has_log_flow else None
        self.log_z_parts = nn.Parameter(torch.zeros(N_LOG_Z)) if has_log_z else None
        self.backward: LearnedBackward | FixedBackward
        if approach.policy == "learned":
            self.backward = LearnedBackward(self.trunk, length, width, self.empty, uniform_initialisation)
        else:
            self.backward = FixedBackward(approach.policy, self.empty)
        self.backward_target = frozen_copy(self.backward) if approach.scored == "target" else None

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
        log_words = linear_logsumexp(head, at_empty, coefficient)
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


def frozen_copy(module: nn.Module) -> nn.Module:
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


def parameters_of(groups: dict[str, list[nn.Parameter]], names: Iterable[str]) -> list[nn.Parameter]:
    """The parameters of the named groups, those that exist."""
    return [parameter for name in names for parameter in groups.get(name, [])]
