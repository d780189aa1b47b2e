"""TrajectoryBalance, DetailedBalance and SubTrajectoryBalance, on the current batch."""

import torch
from ml_collections import ConfigDict
from torch import Tensor

from mols.agents.base import Batch, LearningAgent, huber
from mols.agents.task import Task
from mols.common import objectives
from mols.common.randomness import Streams
from mols.policies.graph_transformer import Features


class BalanceAgent(LearningAgent):
    """TrajectoryBalance, DetailedBalance and SubTrajectoryBalance."""

    def __init__(self, config: ConfigDict, task: Task, streams: Streams) -> None:
        super().__init__(config, task, streams, has_log_z=config.algo == "tb")
        self._loss = {"tb": self._tb, "db": self._db, "subtb": self._subtb}[config.algo]

    def forward_loss(self, batch: Batch) -> Tensor:
        """The objective's mean loss over the batch."""
        transitions, states = batch.transitions, batch.transitions.visited
        features = self.policies.features(states)
        logits = self.policies.forward_logits(states, features)
        log_pf = logits.log_softmax(-1)[transitions.state_row, transitions.actions]
        log_pb = self.scored_log_pb(transitions, features)
        return self._loss(batch, features, log_pf, log_pb).mean()

    def _tb(self, batch: Batch, features: Features, log_pf: Tensor, log_pb: Tensor) -> Tensor:
        index = batch.transitions.trajectory_index
        return huber(objectives.trajectory_balance(log_pf, log_pb, self.policies.log_z, batch.log_reward, index))

    def _db(self, batch: Batch, features: Features, log_pf: Tensor, log_pb: Tensor) -> Tensor:
        index = batch.transitions.trajectory_index
        residual = objectives.detailed_balance(
            log_pf, log_pb, self._log_flow(batch, features), batch.log_reward, index, batch.transitions.is_stop
        )
        return torch.zeros_like(batch.log_reward).index_add(0, index, huber(residual))

    def _subtb(self, batch: Batch, features: Features, log_pf: Tensor, log_pb: Tensor) -> Tensor:
        return objectives.sub_trajectory_balance(
            log_pf,
            log_pb,
            self._log_flow(batch, features),
            batch.log_reward,
            batch.transitions.trajectory_index,
            self.config.subtb_lambda,
            huber,
        )

    def estimated_log_z(self) -> Tensor:
        """log Z, or log F(s_0)."""
        if self.has_log_z:
            return self.sampler.log_z
        return self.sampler.log_flow(self.sampler.features(self.environment.initial_states(1)))[0]

    def _log_flow(self, batch: Batch, features: Features) -> Tensor:
        return self.policies.log_flow(features)[batch.transitions.state_row]
