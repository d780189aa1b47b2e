"""P_F's logits of all legal actions, position by word, without the table of all pairs."""

from typing import NamedTuple

import torch
from torch import Tensor

MASKED = torch.finfo(torch.float32).min / 2  # finite, also with a word's logit added: no NaN on a full state


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
