"""TrajectoryBalance, DetailedBalance and SubTrajectoryBalance, on the current batch."""

import torch
from ml_collections import ConfigDict
from torch import Tensor

from hypergrid.agents.base import LearningAgent
from hypergrid.common import objectives
from hypergrid.common.randomness import Streams
from hypergrid.environment import GridEnvironment
from hypergrid.sampling import Transitions, taken_log_pb


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
