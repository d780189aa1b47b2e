"""TrajectoryBalance, DetailedBalance and SubTrajectoryBalance, on the current batch."""

from abc import abstractmethod

import torch
from torch import Tensor

from hypergrid.agents.base import LearningAgent
from hypergrid.common import objectives
from hypergrid.sampling import Transitions, taken_log_pb


class BalanceAgent(LearningAgent):
    """What the balance objectives share: both policies' log-probabilities of the batch, and whose estimate log Z is."""

    def forward_loss(self, batch: Transitions) -> Tensor:
        """The objective's mean loss over the current batch."""
        hidden = self.policies.trunk(batch.visited)
        log_pf = self.policies.forward_logits(batch.visited, hidden).log_softmax(-1)[batch.state_row, batch.actions]
        log_pb = taken_log_pb(self.scored_log_pb(batch.visited, hidden), batch)
        return self._loss(batch, hidden, log_pf, log_pb, self.environment.log_reward(batch.terminal_states))

    @abstractmethod
    def _loss(self, batch: Transitions, hidden: Tensor, log_pf: Tensor, log_pb: Tensor, log_reward: Tensor) -> Tensor:
        """The loss of (M,) log P_F and log P_B, (N,) log R and the (U, width) features of the distinct states."""

    def _log_flow(self, batch: Transitions, hidden: Tensor) -> Tensor:
        """(M,) log F of the states that the transitions leave."""
        return self.policies.log_flow_head(hidden).squeeze(-1)[batch.state_row]

    @torch.no_grad()
    def estimated_log_z(self) -> float:
        """Log F(s_0)."""
        return self.policies.log_flow_head(self.policies.trunk(self._initial_state())).item()


class TrajectoryBalanceAgent(BalanceAgent):
    """TrajectoryBalance (Malkin et al. 2022), with a parameter for log Z."""

    has_log_z = True

    def _loss(self, batch: Transitions, hidden: Tensor, log_pf: Tensor, log_pb: Tensor, log_reward: Tensor) -> Tensor:
        log_z, trajectory = self.policies.log_z, batch.trajectory_index
        return objectives.trajectory_balance(log_pf, log_pb, log_z, log_reward, trajectory).square().mean()

    def estimated_log_z(self) -> float:
        """The parameter."""
        return self.policies.log_z.item()


class DetailedBalanceAgent(BalanceAgent):
    """DetailedBalance (Bengio et al. 2023), with log F of every state."""

    has_log_flow = True

    def _loss(self, batch: Transitions, hidden: Tensor, log_pf: Tensor, log_pb: Tensor, log_reward: Tensor) -> Tensor:
        log_flow, where = self._log_flow(batch, hidden), (batch.trajectory_index, batch.is_stop)
        return objectives.detailed_balance(log_pf, log_pb, log_flow, log_reward, *where).square().mean()


class SubTrajectoryBalanceAgent(BalanceAgent):
    """SubTrajectoryBalance (Madan et al. 2023), with log F of every state."""

    has_log_flow = True

    def _loss(self, batch: Transitions, hidden: Tensor, log_pf: Tensor, log_pb: Tensor, log_reward: Tensor) -> Tensor:
        log_flow, index = self._log_flow(batch, hidden), batch.trajectory_index
        return objectives.sub_trajectory_balance(
            log_pf, log_pb, log_flow, log_reward, index, self.algo.subtb_lambda
        ).mean()
