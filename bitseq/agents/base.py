"""What the agents of all objectives share: sampling, evaluation, the two optimisers and the loss of P_B.

What the backward approaches differ in comes from their row of ``backward_loss.APPROACHES``; there is no other place.
"""

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import torch
from ml_collections import ConfigDict
from torch import Tensor
from torch.nn import Parameter

from bitseq import evaluation
from bitseq.agents.learners import backward_learner, forward_learner
from bitseq.common.algorithm import Learner
from bitseq.common.backward_loss import APPROACHES, LOSSES, BackwardApproach, RecentBatches, uniform_deviation
from bitseq.common.randomness import Streams
from bitseq.environment import StringEnvironment
from bitseq.evaluation import ModeTracker
from bitseq.policies.backward import Backward, FixedBackward
from bitseq.policies.model import Policies, Target
from bitseq.reference import perfect
from bitseq.sampling import Transitions, sample_trajectories, taken_log_pb


class LearningAgent(ABC):
    """Policies, the two optimisers, the loss of P_B, and what is measured.

    Args:
        config: the checked configuration, see ``settings``.
        environment: the strings.
        streams: the run's random streams.
        coefficient: P_F = softmax(forward head / coefficient).
        has_log_flow, has_log_z: what the objective learns besides P_F.
    """

    def __init__(
        self,
        config: ConfigDict,
        environment: StringEnvironment,
        streams: Streams,
        *,
        coefficient: float = 1.0,
        has_log_flow: bool = False,
        has_log_z: bool = False,
    ) -> None:
        self.config, self.environment, self.streams = config, environment, streams
        self.coefficient, self.has_log_flow, self.has_log_z = coefficient, has_log_flow, has_log_z
        self.approach: BackwardApproach = APPROACHES[config.backward_approach]
        self.batch_size, self.n_steps = config.batch_size, config.num_iterations
        self.backward_first = config.update_order == "backward_first"
        self.policies = self._make_policies()
        self.target = Target(self.policies)
        self.modes = ModeTracker(environment, config.mode_threshold)
        self._parameters = [p for p in self.policies.parameters() if p.requires_grad]
        self._recent = RecentBatches()
        self._last_states: Tensor | None = None
        self.forward_learner = forward_learner(config, self.approach, self.policies)
        self.backward_learner: Learner | None = None
        if self.approach.loss in LOSSES:
            self.backward_learner = backward_learner(config, self.approach, self.policies)

    def _make_policies(self) -> Policies:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.streams.initialisation)  # the CPU's alone
            return Policies(
                self.environment,
                self.approach,
                width=self.config.width,
                n_layers=self.config.n_layers,
                n_heads=self.config.n_heads,
                ff_width=self.config.ff_width,
                dropout=self.config.dropout,
                uniform_initialisation=self.config.uniform_initialisation,
                has_log_flow=self.has_log_flow,
                has_log_z=self.has_log_z,
                kernels=self.config.kernels,
            ).to(self.environment.device)

    def parameters(self) -> list[Parameter]:
        """Every trainable parameter."""
        return self._parameters

    @property
    def learning(self) -> bool:
        """Whether learning has started."""
        return True

    def sample(self) -> Transitions:
        """A batch of the current P_F, dropout on; it also enters the buffer of recent batches where P_B needs it."""
        batch = sample_trajectories(
            self.policies,
            self.environment,
            self.batch_size,
            self.streams.sampling,
            coefficient=self.coefficient,
            rand_action_prob=self.config.rand_action_prob,
        )
        self.modes.push(batch.terminal_states)
        self._last_states = batch.visited
        if self.approach.batch == "recent":
            self._recent.push(tuple(batch))
        return batch

    def backward_loss(self, batch: Transitions) -> Tensor | None:
        """The loss of P_B that the approach's row names, of the batch that it names."""
        if self.backward_learner is None or not self.learning:
            return None
        if self.approach.batch == "recent":
            batch = Transitions(*self._recent.draw(self.streams.replay))
        states = batch.next_states
        with torch.set_grad_enabled(not self.config.backward_head_only):
            hidden = self.policies.trunk(states, begin_only=True)
        log_pb = self.policies.backward.log_probs(states, hidden)
        taken = taken_log_pb(log_pb, batch.actions, self.environment.n_words)
        return LOSSES[self.approach.loss](taken, batch.n_trajectories)

    @property
    def target_decay(self) -> float:
        """Weight of the old parameters when a target moves in this step; 1: it stays."""
        return self.config.target_decay

    def update_backward_target(self) -> None:
        """One step of P_B's target."""
        self.policies.update_backward_target(self.target_decay)

    def update_model_target(self) -> None:
        """One step of the target of the whole model, which is Q's too."""
        self.target.move(self.target_decay)

    def scored_log_pb(self, next_states: Tensor, actions: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(M,) the log P_B that the P_F objective scores, as the approach's row says.

        Args:
            next_states: (M, L) the states that the transitions reach.
            actions: (M,).
            hidden: P_F's features of ``next_states`` where they are known.
        """
        policy = self.policies.backward_target if self.approach.scored == "target" else self.policies.backward
        with torch.set_grad_enabled(self.approach.forward_gradient_reaches_backward):
            return taken_log_pb(policy.log_probs(next_states, hidden), actions, self.environment.n_words)

    def evaluate(self, step: int) -> dict[str, float]:
        """The metrics due at this step, at the last one all that are switched on; means are since the last call."""
        with evaluation.evaluation_mode(self.policies):
            log_pb = self.policies.backward.log_probs(self._last_states)
            deviation = uniform_deviation(log_pb, self.environment.backward_mask(self._last_states)).item()
            log_z = self.estimated_log_z().item()
        true_log_z, mean_log_reward = self._perfect
        metrics = {"pb_deviation": deviation, "log_z": log_z, "log_z_error": abs(log_z - true_log_z)}
        metrics |= {"mean_log_reward_perfect": mean_log_reward, **self.modes.metrics()}
        if self._is_due(step, self.config.corr_every):
            metrics |= self._correlations(uniform_too=step == self.n_steps)
        if self._is_due(step, self.config.exact_every) and self.exact_is_possible:
            _, true = evaluation.true_distribution(self.environment)
            learned = evaluation.exact_distribution(self.policies, self.environment, self.coefficient)
            metrics |= evaluation.exact_distances(learned, true)
        return metrics

    @cached_property
    def _perfect(self) -> tuple[float, float]:
        return perfect(self.environment)

    def _is_due(self, step: int, every: int) -> bool:
        if every == 0:
            return False
        return step == self.n_steps or step // every > (step - self.config.validate_every) // every

    @property
    def exact_is_possible(self) -> bool:
        """Whether there are few enough states for dynamic programming."""
        return evaluation.n_states(self.environment) <= evaluation.MAX_EXACT_STATES

    @property
    def correlated(self) -> Policies:
        """The network whose correlation with the reward is measured: the whole model's target, or the online one."""
        return self.target.policies if self.config.correlation_network == "target" else self.policies

    def _correlations(self, uniform_too: bool) -> dict[str, float]:
        backward = self.correlated.backward
        metrics = {"reward_correlation": self.reward_correlation(backward)}
        if uniform_too:
            fixed = isinstance(backward, FixedBackward)  # the same estimate: not twice
            uniform = FixedBackward("uniform", self.environment.empty)
            metrics["reward_correlation_uniform"] = (
                metrics["reward_correlation"] if fixed else self.reward_correlation(uniform)
            )
        return metrics

    def reward_correlation(self, backward: Backward) -> float:
        """Spearman correlation of log R with log P(x) over the test strings, trajectories drawn from ``backward``."""
        strings = self.environment.test_states
        log_prob = evaluation.estimated_log_prob(
            strings,
            self.correlated,
            backward,
            self.environment,
            self.streams.evaluation,
            rounds=self.config.corr_num_rounds,
            coefficient=self.coefficient,
        )
        return evaluation.spearman(log_prob, self.environment.log_reward(strings))

    @abstractmethod
    def estimated_log_z(self) -> Tensor:
        """() what the online model says that log Z is, nats."""

    @abstractmethod
    def forward_loss(self, batch: Transitions) -> Tensor | None:
        """The GFlowNet objective of P_F."""

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        learners = {"forward": self.forward_learner, "backward": self.backward_learner}
        return {
            "policies": self.policies.state_dict(),
            "target": self.target.policies.state_dict(),
            "modes": self.modes.state_dict(),
            "streams": self.streams.state_dict(),
            "learners": {name: learner.state_dict() for name, learner in learners.items() if learner is not None},
            "recent": self._recent.state_dict(),
            "last_states": self._last_states,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.policies.load_state_dict(state["policies"])
        self.target.policies.load_state_dict(state["target"])
        self.modes.load_state_dict(state["modes"])
        self.streams.load_state_dict(state["streams"])
        self.forward_learner.load_state_dict(state["learners"]["forward"])
        if self.backward_learner is not None:
            self.backward_learner.load_state_dict(state["learners"]["backward"])
        device = self.environment.device
        self._recent.load_state_dict(tuple(t.to(device) for t in batch) for batch in state["recent"])
        self._last_states = state["last_states"].to(device)
