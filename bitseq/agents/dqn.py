"""SoftDQN and MunchausenDQN: Q-learning, P_F = softmax(Q / c)."""

from typing import Any

import numpy as np
import torch
from ml_collections import ConfigDict
from torch import Tensor

from bitseq.agents.base import LearningAgent
from bitseq.common import objectives
from bitseq.common.randomness import Streams
from bitseq.common.replay import PrioritisedReplay
from bitseq.environment import StringEnvironment
from bitseq.policies.logits import ActionLogits
from bitseq.sampling import Transitions


class QAgent(LearningAgent):
    """SoftDQN and MunchausenDQN: Q-learning from prioritised replay, P_F = softmax(Q / c)."""

    def __init__(self, config: ConfigDict, environment: StringEnvironment, streams: Streams) -> None:
        self._alpha, self._l0 = config.get("m_alpha", 0.0), config.get("m_l0", 0.0)  # SoftDQN has neither
        super().__init__(config, environment, streams, coefficient=objectives.entropy_coefficient(self._alpha))
        self._n_sampled = 0
        self._replay = PrioritisedReplay(
            config.replay_capacity,
            environment.length,
            priority_exponent=config.replay_priority_exponent,
            importance_exponent=config.replay_importance_exponent,
        )

    @property
    def learning(self) -> bool:
        """Learning starts after ``start_learning`` iterations of sampling."""
        return self._n_sampled > self.config.start_learning

    def sample(self) -> Transitions:
        """A batch of the current P_F, pushed into the replay buffer."""
        batch = super().sample()
        self._replay.push(batch.states.cpu().numpy(), batch.actions.cpu().numpy(), self._replay.largest)
        self._n_sampled += 1
        return batch

    def forward_loss(self, batch: Transitions) -> Tensor | None:
        """Huber loss of Q on replayed transitions, which is their new priority; log P_B is computed afresh.

        Transitions that complete a string count ``leaf_coeff`` times. New ones enter with the largest priority so far.
        """
        if not self.learning:
            return None
        drawn = self._replay.draw(self.config.replay_batch_size, self.streams.replay)
        positions, (states, actions, importance) = drawn[0], (self._to_device(array) for array in drawn[1:])
        q_value = self.policies.forward_logits(states, self.policies.trunk(states)).of(actions)
        is_last = self.environment.forward_mask(states).sum(-1) == 1
        target = self._target(states, actions, is_last)
        loss = torch.nn.functional.huber_loss(q_value, target, reduction="none", delta=self.config.huber_delta)
        loss = loss * torch.where(is_last, self.config.leaf_coeff, 1.0)
        self._replay.update(positions, loss.detach().cpu().numpy())
        return (loss * importance).mean()

    def estimated_log_z(self) -> Tensor:
        """() V(s_0) = c log sum exp(Q(s_0, .) / c), nats."""
        initial = self.environment.initial_states(1)
        logits = self.policies.forward_logits(initial, self.policies.trunk(initial))
        return self.coefficient * logits.over(self.coefficient).logsumexp().squeeze()

    def _target(self, states: Tensor, actions: Tensor, is_last: Tensor) -> Tensor:
        next_states = self.environment.step(states, actions)
        log_pb = self.scored_log_pb(next_states, actions)
        with torch.no_grad():
            log_policy = self._target_logits(states).over(self.coefficient).log_prob(actions)
            next_value = self.coefficient * self._target_logits(next_states).over(self.coefficient).logsumexp()
            # Of strings that are not complete yet this is no reward, and is not used.
            log_reward = self.environment.log_reward(next_states)
        return objectives.dqn_target(log_pb, next_value, log_reward, is_last, log_policy, self._alpha, self._l0)

    def _target_logits(self, states: Tensor) -> ActionLogits:
        target = self.target.policies
        return target.forward_logits(states, target.trunk(states))

    def _to_device(self, array: np.ndarray) -> Tensor:
        dtype = torch.long if array.dtype.kind == "i" else torch.get_default_dtype()
        return torch.from_numpy(array).to(device=self.environment.device, dtype=dtype)

    @property
    def target_decay(self) -> float:
        """Copies into the targets every ``update_target_every`` steps; in between they stay."""
        return float(self._n_sampled % self.config.update_target_every > 0)

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return super().state_dict() | {
            "replay": self._replay.state_dict(),
            "n_sampled": self._n_sampled,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self._replay.load_state_dict(state["replay"])
        self._n_sampled = state["n_sampled"]
