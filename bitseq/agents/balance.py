"""TrajectoryBalance, DetailedBalance and SubTrajectoryBalance, on the current batch."""

from typing import Any

import torch
from ml_collections import ConfigDict
from torch import Tensor

from bitseq.agents.base import LearningAgent
from bitseq.common import objectives
from bitseq.common.randomness import Streams
from bitseq.environment import StringEnvironment
from bitseq.sampling import Transitions, backward_trajectories, joined

N_GOOD = 1_000  # different strings that are kept for their reward


class BalanceAgent(LearningAgent):
    """TrajectoryBalance, DetailedBalance and SubTrajectoryBalance, on the current batch, divided by the length."""

    def __init__(self, config: ConfigDict, environment: StringEnvironment, streams: Streams) -> None:
        has_log_z = config.objective == "tb"
        super().__init__(config, environment, streams, has_log_flow=not has_log_z, has_log_z=has_log_z)
        self._good_strings = environment.initial_states(0)
        self._loss = {"tb": self._tb, "db": self._db, "subtb": self._subtb}[config.objective]

    def sample(self) -> Transitions:
        """A batch of the current P_F; the best strings so far are kept where some are to go back from."""
        batch = super().sample()
        if self.config.good_trajectories:
            strings = torch.cat([self._good_strings, batch.terminal_states]).unique(dim=0)
            best = self.environment.log_reward(strings).argsort(descending=True, stable=True)[:N_GOOD]
            self._good_strings = strings[best]
        return batch

    def _with_good_trajectories(self, batch: Transitions) -> Transitions:
        """The batch and, where the run has some, trajectories of the online P_B back from the best strings so far."""
        if not self.config.good_trajectories:
            return batch
        rows = self.streams.replay.integers(len(self._good_strings), size=self.config.good_trajectories)
        strings = self._good_strings[torch.from_numpy(rows).to(self._good_strings.device)]
        backward = self.policies.backward
        return joined(batch, backward_trajectories(strings, backward, self.environment, self.streams.replay))

    def forward_loss(self, batch: Transitions) -> Tensor:
        """The objective's mean loss over the batch and its good trajectories, divided by the length of a trajectory."""
        batch = self._with_good_trajectories(batch)
        shares_features = self.approach.scored in ("online", "online_detached")
        features = self.policies.trunk(batch.visited if shares_features else batch.states)
        hidden = features[: len(batch.actions)]
        log_pf = self.policies.forward_logits(batch.states, hidden).log_prob(batch.actions)
        next_hidden = features[batch.next_row, :1] if shares_features else None
        log_pb = self.scored_log_pb(batch.next_states, batch.actions, next_hidden)
        log_reward = self.environment.log_reward(batch.terminal_states)
        return self._loss(batch, hidden, log_pf, log_pb, log_reward) / self.environment.length

    def estimated_log_z(self) -> Tensor:
        """() log Z of TB, log F(s_0) of the others, nats."""
        if self.has_log_z:
            return self.policies.log_z
        return self.policies.log_flow(self.policies.trunk(self.environment.initial_states(1))).squeeze()

    def _tb(self, batch: Transitions, hidden: Tensor, log_pf: Tensor, log_pb: Tensor, log_reward: Tensor) -> Tensor:
        residual = objectives.trajectory_balance(
            log_pf, log_pb, self.policies.log_z, log_reward, batch.trajectory_index
        )
        return residual.square().mean()

    def _db(self, batch: Transitions, hidden: Tensor, log_pf: Tensor, log_pb: Tensor, log_reward: Tensor) -> Tensor:
        log_flow = self.policies.log_flow(hidden)
        residual = objectives.detailed_balance(
            log_pf, log_pb, log_flow, log_reward, batch.trajectory_index, batch.is_last
        )
        return residual.square().sum() / batch.n_trajectories

    def _subtb(self, batch: Transitions, hidden: Tensor, log_pf: Tensor, log_pb: Tensor, log_reward: Tensor) -> Tensor:
        log_flow = self.policies.log_flow(hidden)
        return objectives.sub_trajectory_balance(
            log_pf, log_pb, log_flow, log_reward, batch.trajectory_index, self.config.subtb_lambda
        ).mean()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return super().state_dict() | {"good_strings": self._good_strings}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self._good_strings = state["good_strings"].to(self.environment.device)
