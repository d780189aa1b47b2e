"""The backward approaches in a torchgfn program of one's own: P_B is trained beside any GFlowNet that scores it.

    backward = BackwardTraining(pb, approach="tlm")
    gflownet = TBGFlowNet(pf=pf, pb=backward.scored)
    ...
    backward.step(trajectories)  # then the step of P_F

What the approaches differ in comes from their row of ``backward_loss.APPROACHES``.
"""

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from gfn.containers import Trajectories
from gfn.estimators import Estimator, PolicyMixin
from gfn.preprocessors import IdentityPreprocessor
from gfn.states import DiscreteStates
from gfn.utils.distributions import UnsqueezedCategorical
from gfn.utils.prob_calculations import get_trajectory_pbs
from tensordict import TensorDict
from torch import Tensor, nn
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR

from hypergrid.common.algorithm import Learner
from hypergrid.common.backward_loss import (
    APPROACHES,
    LOSSES,
    BackwardApproach,
    RecentBatches,
    ema_update,
    uniform_log_pb,
)


class BackwardTraining:
    """P_B of a torchgfn program, trained and scored as a row of the approaches table says.

    P_B's optimiser steps all parameters of ``pb``. Modules that ``pb`` shares with P_F have two owners then, this
    optimiser and yours, as in the paper; those named in ``trunk`` are left to yours alone.

    Args:
        pb: torchgfn's policy estimator of P_B, on its device; not needed for uniform, which does not learn.
        approach: uniform, naive, tlm or pessimistic.
        learning_rate: Adam of P_B (tlm, pessimistic); naive's P_B is trained by your optimiser.
        learning_rate_decay: factor per step (tlm).
        target_decay: weight of the old parameters in the EMA target (tlm).
        trunk: module or modules of ``pb`` that P_B's optimiser does not step.
        seed: of the draws from recent batches (pessimistic).

    Attributes:
        scored: the torchgfn estimator to give to a GFlowNet as its ``pb``.

    Raises:
        ValueError: the approach is unknown or maxent, or ``pb`` is missing or a forward policy.
    """

    def __init__(
        self,
        pb: Estimator | None,
        approach: str = "tlm",
        *,
        learning_rate: float = 1e-3,
        learning_rate_decay: float = 0.999,
        target_decay: float = 0.75,
        trunk: nn.Module | Iterable[nn.Module] = (),
        seed: int = 0,
    ) -> None:
        row = _row_of(approach)
        if row.policy == "learned" and (pb is None or not pb.is_backward):
            raise ValueError(f"{approach} needs a P_B: give it a torchgfn policy estimator made with is_backward=True")
        self.pb = pb if row.policy == "learned" else None
        self.scored: Estimator
        if row.scored == "fixed":
            self.scored = UniformBackward()
        elif row.scored == "target":
            self.scored = copy.deepcopy(pb, {id(pb.preprocessor): pb.preprocessor}).eval().requires_grad_(False)
        else:
            self.scored = pb if row.forward_gradient_reaches_backward else WithoutGradient(pb)
        self._row, self._target_decay = row, target_decay
        self._recent, self._rng = RecentBatches(), np.random.default_rng(seed)
        self._learner: Learner | None = None
        if row.loss is not None:
            modules = [trunk] if isinstance(trunk, nn.Module) else trunk
            left_out = {parameter for module in modules for parameter in module.parameters()}
            optimizer = Adam([p for p in pb.parameters() if p not in left_out], lr=learning_rate)
            decay = learning_rate_decay if row.decays_learning_rate else 1.0
            self._learner = Learner(optimizer, ExponentialLR(optimizer, decay))

    def loss(self, trajectories: Trajectories) -> Tensor | None:
        """P_B's loss, the mean of the trajectories' summed -log P_B, nats; None where it has none (uniform, naive)."""
        if self._row.loss is None:
            return None
        log_pb = get_trajectory_pbs(self.pb, trajectories)
        return LOSSES[self._row.loss](log_pb.flatten(), trajectories.batch_size)

    def step(self, trajectories: Trajectories) -> float | None:
        """One step of P_B, and of its target; before your own step of P_F, whose trajectories these are.

        Gradients of P_B's parameters, shared modules included, are cleared before and after: call it before your
        ``loss.backward()``.

        Returns:
            P_B's loss before the step, nats; None where it has none (uniform, naive).

        Raises:
            FloatingPointError: the loss is not finite; nothing has moved.
        """
        if self._learner is None:
            return None
        if self._row.batch == "recent":
            self._recent.push(trajectories)
            trajectories = self._drawn(trajectories)
        parameters = list(self.pb.parameters())
        value = self._learner.minimise(self.loss(trajectories), parameters)
        for parameter in parameters:
            parameter.grad = None
        if self._row.scored == "target":
            ema_update(self.scored.parameters(), self.pb.parameters(), self._target_decay)
            for target, online in zip(self.scored.buffers(), self.pb.buffers(), strict=True):
                target.copy_(online)
        return value

    def _drawn(self, current: Trajectories) -> Trajectories:
        """A recent batch; one of a checkpoint lacks the environment, which is the current one's."""
        drawn = self._recent.draw(self._rng)
        return drawn if isinstance(drawn, Trajectories) else Trajectories.from_tensordict(current.env, drawn)

    def state_dict(self) -> dict[str, Any]:
        """P_B, its target, optimiser and recent batches: all that a resumed program needs beside its GFlowNet."""
        if self.pb is None:
            return {}
        recent = [b.to_tensordict() if isinstance(b, Trajectories) else b for b in self._recent.state_dict()]
        return {
            "pb": self.pb.state_dict(),
            "scored": self.scored.state_dict(),
            "learner": self._learner.state_dict() if self._learner is not None else None,
            "recent": [dict(batch.items()) for batch in recent],
            "rng": self._rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` of the same approach returned."""
        if self.pb is None:
            return
        self.pb.load_state_dict(state["pb"])
        self.scored.load_state_dict(state["scored"])
        if self._learner is not None:
            self._learner.load_state_dict(state["learner"])
        self._recent.load_state_dict(TensorDict(batch, batch_size=[]) for batch in state["recent"])
        self._rng.bit_generator.state = state["rng"]


def _row_of(approach: str) -> BackwardApproach:
    usable = [name for name, row in APPROACHES.items() if row.policy != "maxent"]
    if approach == "maxent":
        raise ValueError(
            "maxent needs the number of trajectories to every state, which torchgfn's environments do not offer: "
            f"take one of {', '.join(usable)}"
        )
    if approach not in APPROACHES:
        raise ValueError(f"there is no approach {approach!r}: take one of {', '.join(usable)}")
    return APPROACHES[approach]


class UniformBackward(PolicyMixin, Estimator):
    """P_B = 1 / number of parents, from the masks of any discrete environment's states."""

    def __init__(self) -> None:
        super().__init__(nn.Identity(), IdentityPreprocessor(None), is_backward=True)

    @property
    def expected_output_dim(self) -> None:
        """As many as the environment has actions that can be undone."""

    def forward(self, states: DiscreteStates, conditions: Tensor | None = None) -> Tensor:
        """(M, A) log P_B in nats, -inf where illegal."""
        return uniform_log_pb(states.backward_masks)

    def to_probability_distribution(
        self, states: DiscreteStates, module_output: Tensor, **options: Any
    ) -> UnsqueezedCategorical:
        """The distribution of ``forward``'s log-probabilities; neither epsilon nor a temperature changes it."""
        return UnsqueezedCategorical(logits=module_output)


class WithoutGradient(PolicyMixin, Estimator):
    """An estimator as it is now, through which no gradient passes, and whose parameters are not this module's."""

    def __init__(self, online: Estimator) -> None:
        super().__init__(nn.Identity(), online.preprocessor, is_backward=online.is_backward)
        self._online = (online,)  # in a tuple torch does not see it

    @property
    def expected_output_dim(self) -> int | None:
        """The online estimator's."""
        return self._online[0].expected_output_dim

    @torch.no_grad()
    def forward(self, *inputs: Any) -> Tensor:
        """The online estimator's output."""
        return self._online[0](*inputs)

    @torch.no_grad()
    def to_probability_distribution(self, states: Any, module_output: Tensor, **options: Any) -> Any:
        """The online estimator's distribution."""
        return self._online[0].to_probability_distribution(states, module_output, **options)
