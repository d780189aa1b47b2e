"""What the agents of all objectives share: sampling, rewards, the two optimisers, P_B's loss, and what is measured.

What the backward approaches differ in comes from their row of ``backward_loss.APPROACHES``; there is no other place.

One EMA copy of all weights samples the trajectories, and is what the correlation measures and P_B's target. It moves
once per step: after P_B's own update, or after P_F's where P_B has none.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any, NamedTuple

import torch
from ml_collections import ConfigDict
from torch import Tensor
from torch.nn import Parameter
from torch.nn.functional import huber_loss
from torch.optim import Adam
from torch.optim.lr_scheduler import LambdaLR

from mols.agents.task import Exact, Task, exact
from mols.common.algorithm import Learner, parameters_of
from mols.common.backward_loss import (
    APPROACHES,
    LOSSES,
    BackwardApproach,
    RecentBatches,
    maxent_residual,
    uniform_deviation,
)
from mols.common.randomness import Streams
from mols.environments.base import States
from mols.evaluation import MoleculeTracker, pearson
from mols.policies.graph_transformer import Features
from mols.policies.model import Policies, frozen_copy, move_towards
from mols.sampling import Transitions, estimated_log_prob, sample_trajectories, taken_log_pb

N_GENERATED = 1_000  # molecules of the current model, for the second correlation


class Batch(NamedTuple):
    """N trajectories with the (N,) log R of their ends."""

    transitions: Transitions
    log_reward: Tensor


def halving(every: float):
    """A factor that halves every so many steps."""
    return lambda step: 2 ** (-step / every)


# The share of the initial random actions that is left after a fraction of the run.
ANNEALING = {
    "linear": lambda fraction, _: 1 - fraction,
    "exp": lambda fraction, at_the_end: at_the_end**fraction,
    "none": lambda *_: 1.0,
}


class LearningAgent(ABC):
    """Policies, the two optimisers, the loss of P_B, and what is measured.

    Args:
        config: the checked configuration, see ``settings``.
        task: graphs, reward and test set.
        streams: the run's random streams.
        coefficient: the entropy coefficient, P_F = softmax(forward heads / coefficient).
        has_log_z: whether the objective needs log Z rather than log F.
    """

    def __init__(
        self, config: ConfigDict, task: Task, streams: Streams, *, coefficient: float = 1.0, has_log_z: bool = False
    ) -> None:
        self.config, self.task, self.streams = config, task, streams
        self.coefficient, self.has_log_z = coefficient, has_log_z
        self.environment = task.environment
        self.approach: BackwardApproach = APPROACHES[config.backward_approach]
        self.batch_size, self.n_steps = config.batch_size, config.n
        self.backward_first = True
        self.policies = self._make_policies()
        self.average = frozen_copy(self.policies)
        self.molecules = MoleculeTracker(task.thresholds)
        self._parameters = list(self.policies.parameters())
        self._recent = RecentBatches()
        self._last_states: States | None = None
        self._step = 0
        self.forward_learner = self._make_forward_learner()
        self.backward_learner = self._make_backward_learner() if self.approach.loss is not None else None

    def _make_policies(self) -> Policies:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.streams.initialisation)  # the CPU's alone
            return Policies(
                self.environment,
                self.approach,
                temperature=self.config.temp,
                width=self.config.width,
                n_layers=self.config.n_layers,
                n_heads=self.config.n_heads,
                uniform_initialisation=not self.config.rand_pb_init,
                has_log_z=self.has_log_z,
                kernels=self.config.kernels,
                precision=self.config.precision,
            ).to(self.environment.device)

    def _make_forward_learner(self) -> Learner:
        groups, config = self.policies.groups(), self.config
        names = ["trunk", "forward_head", "log_flow"]
        if self.approach.forward_gradient_reaches_backward:
            names.append("backward_head")
        parameters = [{"params": parameters_of(groups, names), "lr": config.lr}]
        decays = [halving(config.lrd)]
        if self.has_log_z:
            parameters.append({"params": groups["log_z"], "lr": config.log_z_lr})
            decays.append(halving(config.log_z_lrd))
        return self._learner(parameters, decays)

    def _make_backward_learner(self) -> Learner:
        names = ["trunk", "backward_head", "log_n"]
        parameters = [{"params": parameters_of(self.policies.groups(), names), "lr": self.config.blr}]
        decays = self.approach.decays_learning_rate
        return self._learner(parameters, [halving(self.config.blrd if decays else float("inf"))])

    def _learner(self, parameters: list[dict[str, Any]], decays: list) -> Learner:
        optimizer = Adam(parameters, weight_decay=self.config.weight_decay, fused=True)
        return Learner(optimizer, LambdaLR(optimizer, decays), max_norm=self.config.gradient_clipping)

    def parameters(self) -> list[Parameter]:
        """Every trainable parameter."""
        return self._parameters

    @property
    def rand_action_prob(self) -> float:
        """Share of random actions at the current step."""
        left = ANNEALING[self.config.ap](self._step / self.n_steps, self.config.aexp)
        return self.config.rp * left

    @property
    def sampler(self) -> Policies:
        """The model that samples, and that the correlation measures: the EMA model unless ``no_sampling_model``."""
        return self.policies if self.config.no_sampling_model else self.average

    def sample(self) -> Batch:
        """A batch with its rewards; it also enters the buffer of recent batches where P_B needs it."""
        transitions = sample_trajectories(
            self.sampler,
            self.environment,
            self.batch_size,
            self.streams.sampling,
            coefficient=self.coefficient,
            rand_action_prob=self.rand_action_prob,
        )
        self._step += 1
        scores = self.task.score(transitions.terminal_states)
        self.molecules.push(scores.smiles, scores.reward.tolist(), scores.log_reward.tolist(), self._step)
        self._last_states = transitions.visited
        if self.approach.batch == "recent":
            self._recent.push(transitions)
        return Batch(transitions, scores.log_reward.to(self.environment.device))

    def backward_loss(self, batch: Batch) -> Tensor | None:
        """The loss of P_B that the approach's row names, of the batch that it names."""
        if self.backward_learner is None:
            return None
        recent = self.approach.batch == "recent"
        transitions = self._recent.draw(self.streams.replay) if recent else batch.transitions
        features = self.policies.features(transitions.visited)
        log_pb = taken_log_pb(self.policies.backward_log_probs(transitions.visited, features), transitions)
        if self.approach.loss in LOSSES:
            return LOSSES[self.approach.loss](log_pb, transitions.n_trajectories)
        return _maxent_loss(self.policies, transitions, features, log_pb)

    def update_backward_target(self) -> None:
        """One step of the EMA model, which samples and is P_B's target, before P_F's update (Algorithm 1)."""
        move_towards(self.average, self.policies, self.config.target_decay)

    def update_model_target(self) -> None:
        """One step of the EMA model, unless P_B's update has moved it."""
        if self.backward_learner is None:
            self.update_backward_target()

    def scored_log_pb(self, transitions: Transitions, features: Features) -> Tensor:
        """(M,) the log P_B that the P_F objective scores, as the approach's row says; 0 on stops.

        Args:
            transitions: the batch.
            features: the online model's, of the distinct states.
        """
        states = transitions.visited
        if self.approach.scored == "online":
            return taken_log_pb(self.policies.backward_log_probs(states, features), transitions)
        with torch.no_grad():
            if self.approach.scored == "online_detached":
                log_pb = self.policies.backward_log_probs(states, features)
            else:  # an EMA copy of what is learned; of what is fixed, the same
                log_pb = self.average.backward_log_probs(states)
        return taken_log_pb(log_pb, transitions)

    @abstractmethod
    def forward_loss(self, batch: Batch) -> Tensor:
        """The GFlowNet objective of P_F."""

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float | None]:
        """The metrics due at this step; the last step gets all of them."""
        legal = self.environment.backward_mask(self._last_states)
        deviation = uniform_deviation(self.policies.backward_log_probs(self._last_states), legal).item()
        metrics = {"pb_deviation": deviation, **self.molecules.metrics()}
        metrics["rewards_evaluated"] = self.task.reward.n_evaluated
        if self._correlation_is_due(step):
            metrics["reward_correlation"] = self._correlation(self.task.test_states)
            generated = sample_trajectories(
                self.sampler, self.environment, N_GENERATED, self.streams.evaluation, coefficient=self.coefficient
            )
            metrics["reward_correlation_generated"] = self._correlation(generated.terminal_states)
            perfect = self._exact
            metrics["mean_log_reward_perfect"] = perfect and perfect.mean_log_reward
            metrics["log_z_error"] = perfect and abs(self.estimated_log_z().item() - perfect.log_z)
        if step == self.n_steps:
            metrics |= self.molecules.best_first()
        return metrics

    @abstractmethod
    def estimated_log_z(self) -> Tensor:
        """() what the model that samples holds for log Z, nats."""

    @cached_property
    def _exact(self) -> Exact | None:
        return exact(self.task)

    def _correlation_is_due(self, step: int) -> bool:
        every = self.config.corr_every
        if every == 0:
            return False
        return step == self.n_steps or step // every > (step - self.config.validate_every) // every

    def _correlation(self, finished: States) -> float | None:
        """Pearson correlation of log P(x) with log R over finished states."""
        log_reward = self.task.score(finished, training=False).log_reward
        log_prob = estimated_log_prob(
            finished,
            self.sampler,
            self.environment,
            self.streams.evaluation,
            rounds=self.config.corr_rounds,
            coefficient=self.coefficient,
        )
        return pearson(log_prob.cpu().double().numpy(), log_reward.double().numpy())

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        learners = {"forward": self.forward_learner, "backward": self.backward_learner}
        return {
            "policies": self.policies.state_dict(),
            "average": self.average.state_dict(),
            "molecules": self.molecules.state_dict(),
            "reward": self.task.reward.state_dict(),
            "streams": self.streams.state_dict(),
            "learners": {name: learner.state_dict() for name, learner in learners.items() if learner is not None},
            "recent": [(tuple(batch.visited), *batch[1:]) for batch in self._recent.state_dict()],
            "last_states": tuple(self._last_states),
            "step": self._step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.policies.load_state_dict(state["policies"])
        self.average.load_state_dict(state["average"])
        self.molecules.load_state_dict(state["molecules"])
        self.task.reward.load_state_dict(state["reward"])
        self.streams.load_state_dict(state["streams"])
        self.forward_learner.load_state_dict(state["learners"]["forward"])
        if self.backward_learner is not None:
            self.backward_learner.load_state_dict(state["learners"]["backward"])
        device = self.environment.device
        self._recent.load_state_dict(
            Transitions(self._states(visited), *(t.to(device) for t in rest)) for visited, *rest in state["recent"]
        )
        self._last_states = self._states(state["last_states"])
        self._step = state["step"]

    def _states(self, tensors: tuple[Tensor, ...]) -> States:
        return self.environment.initial_states(0)._make(tensor.to(self.environment.device) for tensor in tensors)


def _maxent_loss(policies: Policies, transitions: Transitions, features: Features, log_pb: Tensor) -> Tensor:
    """Huber loss of log n(s') + log P_B - log n(s), mean over trajectories of the sum; stops have none."""
    log_n = policies.log_n(transitions.visited, features)
    residual = maxent_residual(log_n[transitions.next_row], log_n[transitions.state_row], log_pb)
    residual = residual[~transitions.is_stop]
    return huber_loss(residual, torch.zeros_like(residual), reduction="sum") / transitions.n_trajectories


def huber(residual: Tensor) -> Tensor:
    """Huber loss with threshold 1 nat, element by element."""
    return huber_loss(residual, torch.zeros_like(residual), reduction="none")
