"""What the agents of all objectives share: sampling, evaluation, the two optimisers and the loss of P_B.

What the backward approaches differ in comes from their row of ``backward_loss.APPROACHES``; there is no other place.
"""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR

from hypergrid import evaluation
from hypergrid.common.algorithm import Learner, parameters_of
from hypergrid.common.backward_loss import APPROACHES, LOSSES, BackwardApproach, RecentBatches, uniform_deviation
from hypergrid.common.randomness import Streams
from hypergrid.environment import GridEnvironment
from hypergrid.policies import Policies
from hypergrid.sampling import Transitions, sample_trajectories, taken_log_pb


class SamplingAgent:
    """The part of every agent that samples and is evaluated; alone, the reference that follows a uniform P_F.

    Args:
        config: general, env and algo sections.
        environment: the grid.
        streams: the run's random streams.
    """

    forward_learner: Learner | None = None
    backward_learner: Learner | None = None
    backward_first = True
    coefficient = 1.0

    def __init__(self, config: ConfigDict, environment: GridEnvironment, streams: Streams) -> None:
        general = config.general
        self.algo, self.environment, self.streams = config.algo, environment, streams
        self.batch_size = general.n_envs
        self.n_steps = -(-general.n_trajectories // general.n_envs)
        self._kernels = general.kernels
        self._validation_interval, self._exact_interval = general.validation_interval, general.exact_interval
        self._histogram = evaluation.TerminalHistogram(general.validation_samples)
        self.policies = self._make_policies()
        self._parameters = [p for p in self.policies.parameters() if p.requires_grad]

    def _make_policies(self) -> Policies:
        policies = Policies(self.environment.ndim, self.environment.height, APPROACHES["uniform"], width=1)
        for parameter in policies.forward_head.parameters():
            torch.nn.init.zeros_(parameter)
        return policies.to(self.environment.device)

    def parameters(self) -> list[Parameter]:
        """Every trainable parameter."""
        return self._parameters

    def sample(self) -> Transitions:
        """A batch of trajectories of the current P_F; its terminal states enter the histogram."""
        batch = sample_trajectories(
            self.policies, self.environment, self.batch_size, self.streams.sampling, self.coefficient, self._kernels
        )
        self._histogram.push(self.environment.index(batch.terminal_states).cpu().numpy())
        return batch

    def backward_loss(self, batch: Transitions | None) -> Tensor | None:
        """Nothing to learn."""

    def forward_loss(self, batch: Transitions | None) -> Tensor | None:
        """Nothing to learn."""

    def update_backward_target(self) -> None:
        """No target."""

    def update_model_target(self) -> None:
        """No target."""

    def exact_distribution(self) -> np.ndarray:
        """(n_states,) the sampler's own distribution over terminal states, without sampling noise."""
        probabilities = evaluation.forward_probabilities(self.policies, self.environment, self.coefficient)
        return evaluation.terminal_distribution(probabilities, self.environment)

    def empirical_distribution(self) -> np.ndarray:
        """(n_states,) frequencies of the last terminal states sampled in training."""
        return self._histogram.frequencies(self.environment.n_states)

    @property
    def exact_is_possible(self) -> bool:
        """Whether the grid is small enough for dynamic programming over all states."""
        return self._exact_interval > 0 and self.environment.n_states <= evaluation.MAX_EXACT_STATES

    def evaluate(self, step: int) -> dict[str, float]:
        """The metrics due at this step; the last step gets all of them."""
        states = self.environment.states_at(torch.from_numpy(self._histogram.index).to(self.environment.device))
        modes = self.environment.mode(states)
        metrics = {"mean_log_reward": self.environment.log_reward(states).mean().item()}
        metrics["modes_visited"] = len(modes[modes >= 0].unique())
        if not self.environment.enumerated:
            return metrics
        true = self.environment.true_distribution
        metrics |= evaluation.distances(self.empirical_distribution(), true)
        metrics["l1_floor"] = evaluation.perfect_l1_dist(*self.environment.probability_levels, len(self._histogram))
        if self.exact_is_possible and self._exact_is_due(step):
            exact = evaluation.distances(self.exact_distribution(), true)
            metrics["exact_l1_dist"] = exact["l1_dist"]
            metrics["exact_total_variation"] = exact["total_variation"]
        return metrics

    def _exact_is_due(self, step: int) -> bool:
        previous = step - self._validation_interval
        return step == self.n_steps or step // self._exact_interval > previous // self._exact_interval

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "policies": self.policies.state_dict(),
            "histogram": self._histogram.state_dict(),
            "streams": self.streams.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.policies.load_state_dict(state["policies"])
        self._histogram.load_state_dict(state["histogram"])
        self.streams.load_state_dict(state["streams"])


class PerfectAgent(SamplingAgent):
    """The reference that draws its terminal states from R / Z itself."""

    def sample(self) -> None:
        """Terminal states enter the histogram; there are no trajectories."""
        true = self.environment.true_distribution
        self._histogram.push(self.streams.sampling.choice(len(true), size=self.batch_size, p=true))

    def exact_distribution(self) -> np.ndarray:
        """(n_states,) R / Z."""
        return self.environment.true_distribution


class LearningAgent(SamplingAgent, ABC):
    """Shared by all objectives: policies, the two optimisers, and the loss of P_B."""

    has_log_flow = False
    has_log_z = False

    def __init__(self, config: ConfigDict, environment: GridEnvironment, streams: Streams) -> None:
        self.approach: BackwardApproach = APPROACHES[config.algo.backward_approach]
        super().__init__(config, environment, streams)
        self.backward_first = self.algo.update_order == "backward_first"
        self._recent = RecentBatches()
        self._last_states: Tensor | None = None
        self.forward_learner = self._make_forward_learner()
        self.backward_learner = self._make_backward_learner() if self.approach.loss in LOSSES else None

    def _make_policies(self) -> Policies:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.streams.initialisation)  # the CPU's alone
            return Policies(
                self.environment.ndim,
                self.environment.height,
                self.approach,
                width=self.algo.hidden_width,
                n_layers=self.algo.hidden_layers,
                tied_trunk=self.algo.tied_trunk,
                zero_initialisation=self.algo.zero_initialisation,
                has_log_flow=self.has_log_flow,
                has_log_z=self.has_log_z,
            ).to(self.environment.device)

    def _make_forward_learner(self) -> Learner:
        groups = self.policies.groups()
        names = ["trunk", "forward_head", "log_flow"]
        if self.approach.forward_gradient_reaches_backward:
            names += ["backward_head", "backward_trunk"]
        parameters = [{"params": parameters_of(groups, names), "lr": self.algo.learning_rate}]
        if self.has_log_z:
            parameters.append({"params": groups["log_z"], "lr": self.algo.log_z_learning_rate})
        return Learner(Adam(parameters, fused=True), max_norm=self.algo.gradient_clipping)

    def _make_backward_learner(self) -> Learner:
        trunk = "trunk" if self.policies.tied else "backward_trunk"
        parameters = parameters_of(self.policies.groups(), [trunk, "backward_head"])
        optimizer = Adam(parameters, lr=self.algo.backward_learning_rate, fused=True)
        decay = self.algo.backward_learning_rate_decay if self.approach.decays_learning_rate else 1.0
        return Learner(optimizer, ExponentialLR(optimizer, decay), max_norm=self.algo.gradient_clipping)

    @property
    def learning(self) -> bool:
        """Whether learning has started."""
        return True

    def sample(self) -> Transitions:
        """A batch of the current P_F, which also enters the buffer of recent batches where P_B learns from it."""
        batch = super().sample()
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
        log_pb = taken_log_pb(self.policies.backward.log_probs(batch.visited), batch)
        return LOSSES[self.approach.loss](log_pb, batch.n_trajectories)

    def update_backward_target(self) -> None:
        """One EMA step of P_B's target."""
        self.policies.update_backward_target(self.algo.target_decay)

    def scored_log_pb(self, states: Tensor, hidden: Tensor | None) -> Tensor:
        """(M, D) the log P_B that the P_F objective scores, as the approach's row says.

        Args:
            states: (M, D).
            hidden: (M, width) P_F's features of ``states`` where they are known.
        """
        if self.approach.scored == "target":
            with torch.no_grad():
                return self.policies.backward_target.log_probs(states)
        hidden = self.policies.backward_hidden(hidden) if hidden is not None else None
        if self.approach.scored == "online_detached":
            with torch.no_grad():
                return self.policies.backward.log_probs(states, hidden)
        return self.policies.backward.log_probs(states, hidden)

    @torch.no_grad()
    def evaluate(self, step: int) -> dict[str, float]:
        """The metrics due at this step, those of P_B and log Z included."""
        states = self._last_states
        legal = self.environment.backward_mask(states)
        deviation = uniform_deviation(self.policies.backward.log_probs(states), legal)
        error = abs(self.estimated_log_z() - self.environment.log_z)
        return {"pb_deviation": deviation.item(), **super().evaluate(step), "log_z_error": error}

    @abstractmethod
    def estimated_log_z(self) -> float:
        """What the model holds for log Z, nats."""

    def _initial_state(self) -> Tensor:
        return torch.zeros(1, self.environment.ndim, dtype=torch.long, device=self.environment.device)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        learners = {"forward": self.forward_learner, "backward": self.backward_learner}
        return super().state_dict() | {
            "learners": {name: learner.state_dict() for name, learner in learners.items() if learner is not None},
            "recent": self._recent.state_dict(),
            "last_states": self._last_states,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self.forward_learner.load_state_dict(state["learners"]["forward"])
        if self.backward_learner is not None:
            self.backward_learner.load_state_dict(state["learners"]["backward"])
        device = self.environment.device
        self._recent.load_state_dict(tuple(t.to(device) for t in batch) for batch in state["recent"])
        self._last_states = state["last_states"].to(device)
