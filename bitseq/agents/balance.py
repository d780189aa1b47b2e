"""TrajectoryBalance, DetailedBalance and SubTrajectoryBalance, on the current batch."""

from ml_collections import ConfigDict
from torch import Tensor

from bitseq.agents.base import LearningAgent
from bitseq.common import objectives
from bitseq.common.randomness import Streams
from bitseq.environment import StringEnvironment
from bitseq.sampling import Transitions


class BalanceAgent(LearningAgent):
    """TrajectoryBalance, DetailedBalance and SubTrajectoryBalance, on the current batch, divided by the length."""

    def __init__(self, config: ConfigDict, environment: StringEnvironment, streams: Streams) -> None:
        has_log_z = config.objective == "tb"
        super().__init__(config, environment, streams, has_log_flow=not has_log_z, has_log_z=has_log_z)
        self._loss = {"tb": self._tb, "db": self._db, "subtb": self._subtb}[config.objective]

    def forward_loss(self, batch: Transitions) -> Tensor:
        """The objective's mean loss over the current batch, divided by the length of a trajectory."""
        shares_features = self.approach.scored in ("online", "online_detached")
        features = self.policies.trunk(batch.visited if shares_features else batch.states)
        hidden = features[: len(batch.actions)]
        log_pf = self.policies.forward_logits(batch.states, hidden).log_prob(batch.actions)
        next_hidden = features[batch.next_row, :1] if shares_features else None
        log_pb = self.scored_log_pb(batch.next_states, batch.actions, next_hidden)
        log_reward = self.environment.log_reward(batch.terminal_states)
        return self._loss(batch, hidden, log_pf, log_pb, log_reward) / self.environment.length

    def log_z_estimate(self) -> Tensor:
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
            log_pf, log_pb, log_flow, log_reward, batch.trajectory_index, batch.is_last, self.config.subtb_lambda
        ).mean()
