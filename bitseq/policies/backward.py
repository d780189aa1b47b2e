"""P_B of the bit strings: a head on the trunk that P_F reads, or one in closed form."""

import torch
from torch import Tensor, nn

from bitseq.common.backward_loss import maxent_log_pb, uniform_log_pb
from bitseq.policies.logits import MASKED
from bitseq.policies.transformer import Trunk


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
        """(M, L) states -> (M, L) log P_B, nats, illegal ones about -1e38; ``hidden`` spares the trunk where known."""
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


Backward = LearnedBackward | FixedBackward


def _maxent_string_log_pb(filled: Tensor) -> Tensor:
    # (t - 1)! histories of every parent: the same one, which cancels.
    return maxent_log_pb(torch.zeros(filled.shape, device=filled.device), filled)
