"""One training step, readable as Algorithm 1 of the paper, and the loop around it.

    sample -> update P_B -> update the P_B target -> update P_F -> update the model's target -> log

Gritsaev et al. 2025, Algorithm 1. Every update clears all gradients before its backward pass, so that nothing
one loss leaves behind reaches the other's step; gradients are clipped before the step; each target moves once
per step. What a step optimises is the agent's business; how it is optimised is decided here, for every suite.
This file is the same, byte for byte, in every suite.
"""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from torch.nn import Parameter
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from .run_folder import Run
from .terminal import ExperimentError
from .tracking import Tracker


def parameters_of(groups: dict[str, list[Parameter]], names: Iterable[str]) -> list[Parameter]:
    """The parameters of the named groups, those that exist."""
    return [parameter for name in names for parameter in groups.get(name, [])]


@dataclass
class Learner:
    """An optimiser with its learning-rate schedule and its gradient clipping (``max_norm`` 0: none)."""

    optimizer: Optimizer
    scheduler: LRScheduler | None = None
    max_norm: float = 0.0

    def minimise(self, loss: Tensor, parameters: Iterable[Parameter]) -> float:
        """One optimiser step on a scalar loss; gradients of all ``parameters`` are cleared first.

        Returns:
            The loss before the step. Raises FloatingPointError, nothing having moved, when it is not finite.
        """
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(str(value))
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        if self.max_norm:
            clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], self.max_norm)
        self.optimizer.step()
        if self.scheduler is not None:
            self.scheduler.step()
        return value

    def state_dict(self) -> dict[str, Any]:
        """Optimiser and schedule, for a checkpoint."""
        scheduler = self.scheduler.state_dict() if self.scheduler is not None else None
        return {"optimizer": self.optimizer.state_dict(), "scheduler": scheduler}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(state["scheduler"])


class Agent(Protocol):
    """What a suite provides. A loss may be None: nothing to learn from yet, or nothing to learn at all."""

    forward_learner: Learner | None
    backward_learner: Learner | None
    backward_first: bool  # Algorithm 1's order; False: P_F before P_B
    batch_size: int  # trajectories per step
    n_steps: int  # gradient iterations of the whole run

    def parameters(self) -> Iterable[Parameter]:
        """Every trainable parameter, of P_F and of P_B."""

    def sample(self) -> Any:
        """A batch of trajectories from the current P_F."""

    def backward_loss(self, batch: Any) -> Tensor | None:
        """Loss of P_B, as the row of the approaches table says."""

    def update_backward_target(self) -> None:
        """Move the EMA copy of P_B towards the online one."""

    def forward_loss(self, batch: Any) -> Tensor | None:
        """The GFlowNet objective of P_F."""

    def update_model_target(self) -> None:
        """Move the copies of the whole model, such as Q's target: once, when both policies are updated."""

    def evaluate(self, step: int) -> dict[str, float]:
        """The metrics that are due at this step; touches neither weights, modes nor training streams."""

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs, random states included."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""


def update_backward(agent: Agent, batch: Any) -> float | None:
    """One gradient step of the online P_B on its own loss, then one step of its target."""
    loss = agent.backward_loss(batch)
    if loss is None or agent.backward_learner is None:
        return None
    value = agent.backward_learner.minimise(loss, agent.parameters())
    agent.update_backward_target()
    return value


def update_forward(agent: Agent, batch: Any) -> float | None:
    """One gradient step of P_F on its objective."""
    loss = agent.forward_loss(batch)
    if loss is None or agent.forward_learner is None:
        return None
    return agent.forward_learner.minimise(loss, agent.parameters())


def train_step(agent: Agent) -> dict[str, float | None]:
    """Algorithm 1, one iteration.

    Returns:
        ``loss`` of P_F and ``pb_loss`` of P_B, each before its step; None where nothing was learned.
    """
    batch = agent.sample()
    losses: dict[str, float | None] = {}
    updates = {"pb_loss": update_backward, "loss": update_forward}
    for name in ("pb_loss", "loss") if agent.backward_first else ("loss", "pb_loss"):
        try:
            losses[name] = updates[name](agent, batch)
        except FloatingPointError as error:
            raise FloatingPointError(f"{name} is {error}") from error
    if losses["loss"] is not None:
        agent.update_model_target()
    return losses


def train(
    agent: Agent,
    run: Run,
    *,
    validation_interval: int,
    checkpoint_interval: int,
    tracker: type[Tracker] = Tracker,
    **shown: Any,
) -> None:
    """Train from the run's checkpoint, or from the start, to the last step, which is always evaluated and checkpointed.

    Args:
        agent: as it was made; a checkpoint is loaded into it.
        run: where metrics and checkpoints go, open for writing.
        validation_interval: steps between rows of metrics.csv.
        checkpoint_interval: steps between checkpoints.
        tracker: shows what happens meanwhile.
        shown: its ``main_metric``, ``tensorboard`` and ``wandb_project``.

    Raises:
        ExperimentError: a loss or a metric is not finite (names the step and the last good checkpoint), the checkpoint
            is damaged, or what is to be shown cannot be.
    """
    first, n_steps = run.restore(agent), agent.n_steps
    with tracker(
        run.name, n_steps=n_steps, first_step=first, directory=run.directory, config=run.config, **shown
    ) as progress:
        before, start = run.wall_s, time.perf_counter()
        for step in range(first + 1, n_steps + 1):
            try:
                losses = train_step(agent)
            except FloatingPointError as error:
                raise ExperimentError(f"step {step}: {error}; {run.last_checkpoint()}") from error
            run.wall_s = before + time.perf_counter() - start
            last = step == n_steps
            if last or step % validation_interval == 0:
                row = {"step": step, "trajectories": step * agent.batch_size, "wall_s": round(run.wall_s, 3), **losses}
                row |= agent.evaluate(step)
                run.write_row(row)
                progress.log(row)
            if last or step % checkpoint_interval == 0:
                run.save(agent, step)
            progress.advance(step, losses["loss"])
