"""SoftDQN and MunchausenDQN: Q-learning, P_F = softmax(Q / c)."""

from typing import Any

import torch
from ml_collections import ConfigDict
from torch import Tensor

from mols.agents.base import Batch, LearningAgent, huber
from mols.agents.task import Task
from mols.common import objectives
from mols.common.randomness import Streams
from mols.policies.graph_transformer import Features
from mols.policies.model import Policies, frozen_copy, move_towards


class QAgent(LearningAgent):
    """SoftDQN and MunchausenDQN with P_F = softmax(Q / c) and a target of Q of its own beside the EMA model.

    Dueling, Q = V + c log pi with pi = softmax(heads / c) and V the graph's own output; not dueling, Q are the heads
    and V = c logsumexp(Q / c). One coefficient c = 1 / (1 - alpha) everywhere: the policy that samples is
    proportional to R at the optimum.
    """

    def __init__(self, config: ConfigDict, task: Task, streams: Streams) -> None:
        self._alpha, self._l0 = config.get("m_alpha", 0.0), config.get("m_l0", 0.0)  # SoftDQN has neither
        super().__init__(config, task, streams, coefficient=objectives.entropy_coefficient(self._alpha))
        self.dueling = not config.not_dueling
        self.q_target = frozen_copy(self.policies, without=("backward_head", "log_n_head"))

    def forward_loss(self, batch: Batch) -> Tensor:
        """Huber loss of Q, the stops counted ``leaf_coeff`` times."""
        transitions, states = batch.transitions, batch.transitions.visited
        features = self.policies.features(states)
        value, log_policy = self._value_and_log_policy(self.policies, batch, features)
        q_value = value[transitions.state_row] + self.coefficient * log_policy
        with torch.no_grad():
            target_features = self.q_target.features(states)
            target_value, target_log_policy = self._value_and_log_policy(self.q_target, batch, target_features)
        target = objectives.dqn_target(
            self.scored_log_pb(transitions, features),
            target_value[transitions.next_row],
            batch.log_reward[transitions.trajectory_index],
            transitions.is_stop,
            target_log_policy,
            self._alpha,
            self._l0,
        )
        weight = torch.where(transitions.is_stop, self.config.leaf_coeff, 1.0)
        return (weight * huber(q_value - target)).sum() / transitions.n_trajectories

    def _value_and_log_policy(self, policies: Policies, batch: Batch, features: Features) -> tuple[Tensor, Tensor]:
        """(U,) V of the distinct states, and (M,) log pi of the actions taken."""
        transitions = batch.transitions
        scaled = policies.forward_logits(transitions.visited, features) / self.coefficient
        total = scaled.logsumexp(-1)
        log_policy = scaled[transitions.state_row, transitions.actions] - total[transitions.state_row]
        value = policies.log_flow(features) if self.dueling else self.coefficient * total
        return value, log_policy

    def estimated_log_z(self) -> Tensor:
        """V(s_0)."""
        start = self.environment.initial_states(1)
        features = self.sampler.features(start)
        if self.dueling:
            return self.sampler.log_flow(features)[0]
        return self.coefficient * (self.sampler.forward_logits(start, features) / self.coefficient).logsumexp(-1)[0]

    def update_model_target(self) -> None:
        """One step of the Q target too."""
        super().update_model_target()
        move_towards(self.q_target, self.policies, self.config.q_target_decay)

    def state_dict(self) -> dict[str, Any]:
        """The Q target too."""
        return super().state_dict() | {"q_target": self.q_target.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self.q_target.load_state_dict(state["q_target"])
