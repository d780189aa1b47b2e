"""The agents of the hypergrid: what ``algorithm.train_step`` calls.

One class trains with TrajectoryBalance, DetailedBalance or SubTrajectoryBalance on the current batch, one with
SoftDQN or MunchausenDQN on replayed transitions, one only samples. What the backward approaches differ in comes
from their row of ``backward_loss.APPROACHES``.
"""

from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Adam
from torch.optim.lr_scheduler import ExponentialLR

from hypergrid import evaluation, objectives
from hypergrid.algorithm import Learner
from hypergrid.backward_loss import (
    APPROACHES,
    BackwardApproach,
    RecentBatches,
    ema_update,
    trajectory_negative_log_likelihood,
    uniform_deviation,
)
from hypergrid.environment import GridEnvironment
from hypergrid.experiment import Streams
from hypergrid.policies import MASKED, Policies, frozen_copy, parameters_of
from hypergrid.replay import PrioritisedReplay
from hypergrid.sampling import Transitions, sample_trajectories, taken_log_pb

COLUMNS = (
    "l1_dist",
    "kl_dist",
    "total_variation",
    "l1_floor",
    "exact_l1_dist",
    "exact_total_variation",
    "log_z_error",
)


class SamplingAgent:
    """The part of every agent that samples and is evaluated; alone, the reference algorithms.

    ``perfect`` draws terminal states from R / Z itself; ``uniform`` follows a uniform P_F. Neither learns.

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
        self.config, self.environment, self.streams = config.algo, environment, streams
        self.batch_size = general.n_envs
        self.n_steps = -(-general.n_trajectories // general.n_envs)
        self._validation_interval, self._exact_interval = general.validation_interval, general.exact_interval
        self._histogram = evaluation.TerminalHistogram(environment.n_states, general.validation_samples)
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

    def sample(self) -> Transitions | None:
        """A batch of trajectories of the current P_F; its terminal states enter the histogram."""
        if self.config.name == "perfect":
            draws = self.streams.sampling.choice(
                self.environment.n_states, size=self.batch_size, p=self.environment.true_distribution
            )
            self._histogram.push(draws)
            return None
        batch = sample_trajectories(
            self.policies, self.environment, self.batch_size, self.streams.sampling, self.coefficient
        )
        self._histogram.push(self.environment.index(batch.terminal_states).cpu().numpy())
        return batch

    def backward_loss(self, batch: Transitions | None) -> Tensor | None:
        """Nothing to learn."""

    def forward_loss(self, batch: Transitions | None) -> Tensor | None:
        """Nothing to learn."""

    def update_backward_target(self) -> None:
        """No target."""

    def update_q_target(self) -> None:
        """No target."""

    def exact_distribution(self) -> np.ndarray:
        """(n_states,) the sampler's own distribution over terminal states, without sampling noise."""
        if self.config.name == "perfect":
            return self.environment.true_distribution
        probabilities = evaluation.forward_probabilities(self.policies, self.environment, self.coefficient)
        return evaluation.terminal_distribution(probabilities, self.environment)

    def empirical_distribution(self) -> np.ndarray:
        """(n_states,) frequencies of the last terminal states sampled in training."""
        return self._histogram.frequencies()

    @property
    def exact_is_possible(self) -> bool:
        """Whether the grid is small enough for dynamic programming over all states."""
        return self._exact_interval > 0 and self.environment.n_states <= evaluation.MAX_EXACT_STATES

    def evaluate(self, step: int) -> dict[str, float]:
        """The metrics due at this step; the last step gets all of them."""
        true = self.environment.true_distribution
        metrics = evaluation.distances(self.empirical_distribution(), true)
        metrics["l1_floor"] = evaluation.perfect_l1_dist(true, len(self._histogram))
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


class LearningAgent(SamplingAgent):
    """Shared by all objectives: policies, the two optimisers, and the loss of P_B."""

    has_log_flow = False
    has_log_z = False

    def __init__(self, config: ConfigDict, environment: GridEnvironment, streams: Streams) -> None:
        self.approach: BackwardApproach = APPROACHES[config.algo.backward_approach]
        super().__init__(config, environment, streams)
        self.backward_first = self.config.update_order == "backward_first"
        self._recent = RecentBatches()
        self._last_states: Tensor | None = None
        self.forward_learner = self._make_forward_learner()
        self.backward_learner = self._make_backward_learner() if self.approach.loss == "likelihood" else None

    def _make_policies(self) -> Policies:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.streams.initialisation)
            return Policies(
                self.environment.ndim,
                self.environment.height,
                self.approach,
                width=self.config.hidden_width,
                n_layers=self.config.hidden_layers,
                tied_trunk=self.config.tied_trunk,
                zero_initialisation=self.config.zero_initialisation,
                has_log_flow=self.has_log_flow,
                has_log_z=self.has_log_z,
            ).to(self.environment.device)

    def _make_forward_learner(self) -> Learner:
        groups = self.policies.groups()
        names = ["trunk", "forward_head", "log_flow"]
        if self.approach.forward_gradient_reaches_backward:
            names += ["backward_head", "backward_trunk"]
        parameters = [{"params": parameters_of(groups, names), "lr": self.config.learning_rate}]
        if self.has_log_z:
            parameters.append({"params": groups["log_z"], "lr": self.config.log_z_learning_rate})
        return Learner(Adam(parameters, fused=True), max_norm=self.config.gradient_clipping)

    def _make_backward_learner(self) -> Learner:
        trunk = "trunk" if self.policies.tied else "backward_trunk"
        parameters = parameters_of(self.policies.groups(), [trunk, "backward_head"])
        optimizer = Adam(parameters, lr=self.config.backward_learning_rate, fused=True)
        decay = self.config.backward_learning_rate_decay if self.approach.decays_learning_rate else 1.0
        return Learner(optimizer, ExponentialLR(optimizer, decay), max_norm=self.config.gradient_clipping)

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
        """-log P_B of whole trajectories, of the batch that the approach's row names."""
        if self.backward_learner is None or not self.learning:
            return None
        if self.approach.batch == "recent":
            batch = Transitions(*self._recent.draw(self.streams.replay))
        log_pb = taken_log_pb(self.policies.backward.log_probs(batch.visited), batch)
        return trajectory_negative_log_likelihood(log_pb, batch.n_trajectories)

    def update_backward_target(self) -> None:
        """One EMA step of P_B's target."""
        self.policies.update_backward_target(self.config.target_decay)

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

    def estimated_log_z(self) -> float:
        """What the model holds for log Z, nats."""
        raise NotImplementedError

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


class BalanceAgent(LearningAgent):
    """TrajectoryBalance, DetailedBalance and SubTrajectoryBalance, on the current batch."""

    def __init__(self, config: ConfigDict, environment: GridEnvironment, streams: Streams) -> None:
        self.has_log_z = config.algo.name == "tb"
        self.has_log_flow = not self.has_log_z
        self._loss = {"tb": self._tb, "db": self._db, "subtb": self._subtb}[config.algo.name]
        super().__init__(config, environment, streams)

    def forward_loss(self, batch: Transitions) -> Tensor:
        """The objective's mean loss over the current batch."""
        hidden = self.policies.trunk(batch.visited)
        log_pf = self.policies.forward_logits(batch.visited, hidden).log_softmax(-1)[batch.state_row, batch.actions]
        log_pb = taken_log_pb(self.scored_log_pb(batch.visited, hidden), batch)
        return self._loss(batch, hidden, log_pf, log_pb, self.environment.log_reward(batch.terminal_states))

    def _tb(self, batch: Transitions, hidden: Tensor, log_pf: Tensor, log_pb: Tensor, log_reward: Tensor) -> Tensor:
        residual = objectives.trajectory_balance(
            log_pf, log_pb, self.policies.log_z, log_reward, batch.trajectory_index
        )
        return residual.square().mean()

    def _db(self, batch: Transitions, hidden: Tensor, log_pf: Tensor, log_pb: Tensor, log_reward: Tensor) -> Tensor:
        log_flow = self.policies.log_flow_head(hidden).squeeze(-1)[batch.state_row]
        residual = objectives.detailed_balance(
            log_pf, log_pb, log_flow, log_reward, batch.trajectory_index, batch.is_stop
        )
        return residual.square().mean()

    def _subtb(self, batch: Transitions, hidden: Tensor, log_pf: Tensor, log_pb: Tensor, log_reward: Tensor) -> Tensor:
        log_flow = self.policies.log_flow_head(hidden).squeeze(-1)[batch.state_row]
        return objectives.sub_trajectory_balance(
            log_pf, log_pb, log_flow, log_reward, batch.trajectory_index, batch.is_stop, self.config.subtb_lambda
        ).mean()

    @torch.no_grad()
    def estimated_log_z(self) -> float:
        """log Z of TrajectoryBalance, log F(s_0) of the others."""
        if self.has_log_z:
            return self.policies.log_z.item()
        return self.policies.log_flow_head(self.policies.trunk(self._initial_state())).item()


class QAgent(LearningAgent):
    """SoftDQN and MunchausenDQN: Q-learning from prioritised replay, P_F = softmax(Q / c)."""

    def __init__(self, config: ConfigDict, environment: GridEnvironment, streams: Streams) -> None:
        algo = config.algo
        self._alpha, self._l0 = (algo.m_alpha, algo.m_l0) if algo.name == "munchausen_dqn" else (0.0, 0.0)
        self.coefficient = objectives.entropy_coefficient(self._alpha)
        super().__init__(config, environment, streams)
        self.q_target = (frozen_copy(self.policies.trunk), frozen_copy(self.policies.forward_head))
        self._n_sampled = 0
        self._replay = PrioritisedReplay(
            algo.replay_capacity,
            environment.ndim,
            priority_exponent=algo.replay_priority_exponent,
            importance_exponent=algo.replay_importance_exponent,
        )

    @property
    def learning(self) -> bool:
        """Learning starts after ``start_learning`` iterations of sampling."""
        return self._n_sampled > self.config.start_learning

    def sample(self) -> Transitions:
        """A batch of the current P_F, pushed into the replay buffer."""
        batch = super().sample()
        self._replay.push(batch.states.cpu().numpy(), batch.actions.cpu().numpy())
        self._n_sampled += 1
        return batch

    def forward_loss(self, batch: Transitions) -> Tensor | None:
        """Huber loss of Q on replayed transitions, whose priorities it updates; log P_B is computed afresh."""
        if not self.learning:
            return None
        drawn = self._replay.draw(self.config.replay_batch_size, self.streams.replay)
        positions, (states, actions, weights) = drawn[0], (self._to_device(array) for array in drawn[1:])
        q_values = self.policies.forward_logits(states, self.policies.trunk(states))
        q_value = q_values.gather(1, actions.unsqueeze(1)).squeeze(1)
        target = self._target(states, actions)
        self._replay.update(positions, (q_value - target).detach().cpu().numpy())
        loss = torch.nn.functional.huber_loss(q_value, target, reduction="none", delta=self.config.huber_delta)
        return (loss * weights).mean()

    def _target(self, states: Tensor, actions: Tensor) -> Tensor:
        next_states = self.environment.step(states, actions)
        is_stop = actions == self.environment.stop_action
        hidden = None
        if self.approach.forward_gradient_reaches_backward and self.policies.tied:
            hidden = self.policies.trunk(next_states)
        log_pb = self.scored_log_pb(next_states, hidden)
        log_pb = log_pb.gather(1, actions.clamp(max=self.environment.ndim - 1).unsqueeze(1)).squeeze(1)
        with torch.no_grad():
            target_values = self._target_q(torch.cat([states, next_states]))
            values, next_values = target_values.chunk(2)
            policy = (values / self.coefficient).log_softmax(-1).gather(1, actions.unsqueeze(1)).squeeze(1)
            next_value = objectives.soft_value(next_values, self.coefficient)
            log_reward = self.environment.log_reward(states)
        return objectives.dqn_target(log_pb, next_value, log_reward, is_stop, policy, self._alpha, self._l0)

    def _target_q(self, states: Tensor) -> Tensor:
        trunk, head = self.q_target
        limit = self.environment.height - 1
        return head(trunk(states)).masked_fill(torch.nn.functional.pad(states == limit, (0, 1)), MASKED)

    def _to_device(self, array: np.ndarray) -> Tensor:
        dtype = torch.long if array.dtype.kind == "i" else torch.get_default_dtype()
        return torch.from_numpy(array).to(device=self.environment.device, dtype=dtype)

    def update_q_target(self) -> None:
        """One EMA step of the Q target."""
        online = (self.policies.trunk, self.policies.forward_head)
        for target, source in zip(self.q_target, online, strict=True):
            ema_update(target.parameters(), source.parameters(), self.config.target_decay)

    @torch.no_grad()
    def estimated_log_z(self) -> float:
        """V(s_0)."""
        state = self._initial_state()
        q_values = self.policies.forward_logits(state, self.policies.trunk(state))
        return objectives.soft_value(q_values, self.coefficient).item()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return super().state_dict() | {
            "q_target": [module.state_dict() for module in self.q_target],
            "replay": self._replay.state_dict(),
            "n_sampled": self._n_sampled,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        for module, saved in zip(self.q_target, state["q_target"], strict=True):
            module.load_state_dict(saved)
        self._replay.load_state_dict(state["replay"])
        self._n_sampled = state["n_sampled"]


AGENTS: dict[str, type[SamplingAgent]] = {
    "tb": BalanceAgent,
    "db": BalanceAgent,
    "subtb": BalanceAgent,
    "soft_dqn": QAgent,
    "munchausen_dqn": QAgent,
    "perfect": SamplingAgent,
    "uniform": SamplingAgent,
}


def make_agent(config: ConfigDict) -> SamplingAgent:
    """The agent of a checked configuration, on a fresh environment with the seed's streams."""
    environment = GridEnvironment(
        config.env.ndim, config.env.height, config.env.R0, config.env.R1, config.env.R2, config.general.device
    )
    return AGENTS[config.algo.name](config, environment, Streams.from_seed(config.general.seed))
