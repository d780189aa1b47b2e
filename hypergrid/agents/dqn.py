"""SoftDQN and MunchausenDQN: Q-learning, P_F = softmax(Q / c)."""

from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

from hypergrid.agents.base import LearningAgent
from hypergrid.common import objectives
from hypergrid.common.backward_loss import ema_update
from hypergrid.common.randomness import Streams
from hypergrid.common.replay import PrioritisedReplay
from hypergrid.environment import GridEnvironment
from hypergrid.policies import MASKED, frozen_copy
from hypergrid.sampling import Transitions, taken_log_pb


class QAgent(LearningAgent):
    """SoftDQN and MunchausenDQN: Q-learning from prioritised replay, P_F = softmax(Q / c)."""

    def __init__(self, config: ConfigDict, environment: GridEnvironment, streams: Streams) -> None:
        algo = config.algo
        self._alpha, self._l0 = algo.get("m_alpha", 0.0), algo.get("m_l0", 0.0)  # SoftDQN has neither
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
        return self._n_sampled > self.algo.start_learning

    def sample(self) -> Transitions:
        """A batch of the current P_F, pushed into the replay buffer."""
        batch = super().sample()
        priorities = self._priorities(batch).cpu().numpy()
        self._replay.push(batch.states.cpu().numpy(), batch.actions.cpu().numpy(), priorities)
        self._n_sampled += 1
        return batch

    @torch.no_grad()
    def _priorities(self, batch: Transitions) -> Tensor:
        """(M,) Huber loss of each new transition under the networks as they are; a distinct state is scored once."""
        hidden = self.policies.trunk(batch.visited)
        q_value = self.policies.forward_logits(batch.visited, hidden)[batch.state_row, batch.actions]
        log_pb = taken_log_pb(self.scored_log_pb(batch.visited, hidden), batch)
        values = self._target_q(batch.visited)
        target = self._target(batch.states, batch.actions, log_pb, values[batch.state_row], values[batch.next_row])
        return self._huber(q_value, target)

    def forward_loss(self, batch: Transitions) -> Tensor | None:
        """Huber loss of Q on replayed transitions, which is their new priority; log P_B is computed afresh."""
        if not self.learning:
            return None
        drawn = self._replay.draw(self.algo.replay_batch_size, self.streams.replay)
        positions, (states, actions, weights) = drawn[0], (self._to_device(array) for array in drawn[1:])
        next_states, action = self.environment.step(states, actions), actions.unsqueeze(1)
        q_values = self.policies.forward_logits(states, self.policies.trunk(states))
        log_pb = torch.nn.functional.pad(self.scored_log_pb(next_states, None), (0, 1))  # 0 on stops
        values, next_values = self._target_q(torch.cat([states, next_states])).chunk(2)
        target = self._target(states, actions, log_pb.gather(1, action).squeeze(1), values, next_values)
        loss = self._huber(q_values.gather(1, action).squeeze(1), target)
        self._replay.update(positions, loss.detach().cpu().numpy())
        return (loss * weights).mean()

    def _target(self, states: Tensor, actions: Tensor, log_pb: Tensor, values: Tensor, next_values: Tensor) -> Tensor:
        """(M,) what Q(s, a) is regressed on, from the (M, D+1) values of the target network at s and s'."""
        policy = (values / self.coefficient).log_softmax(-1).gather(1, actions.unsqueeze(1)).squeeze(1)
        next_value = objectives.soft_value(next_values, self.coefficient)
        log_reward, is_stop = self.environment.log_reward(states), actions == self.environment.stop_action
        return objectives.dqn_target(log_pb, next_value, log_reward, is_stop, policy, self._alpha, self._l0)

    def _huber(self, q_value: Tensor, target: Tensor) -> Tensor:
        return torch.nn.functional.huber_loss(q_value, target, reduction="none", delta=self.algo.huber_delta)

    @torch.no_grad()
    def _target_q(self, states: Tensor) -> Tensor:
        trunk, head = self.q_target
        return head(trunk(states)).masked_fill(~self.environment.forward_mask(states), MASKED)

    def _to_device(self, array: np.ndarray) -> Tensor:
        dtype = torch.long if array.dtype.kind == "i" else torch.get_default_dtype()
        return torch.from_numpy(array).to(device=self.environment.device, dtype=dtype)

    def update_model_target(self) -> None:
        """One EMA step of the Q target."""
        online = (self.policies.trunk, self.policies.forward_head)
        for target, source in zip(self.q_target, online, strict=True):
            ema_update(target.parameters(), source.parameters(), self.algo.target_decay)

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
