"""The agents of the molecules: what ``algorithm.train_step`` calls, one class per kind of objective.

``BalanceAgent`` trains with TrajectoryBalance, DetailedBalance or SubTrajectoryBalance, ``QAgent`` with SoftDQN or
MunchausenDQN; both on the current batch, with the Huber loss of the residuals, summed over a trajectory's transitions
or averaged over its sub-trajectories, and averaged over trajectories.
"""

from collections.abc import Sequence
from typing import Any

import torch
from ml_collections import ConfigDict
from torch import Tensor
from torch.nn.functional import huber_loss

from mols.common import objectives
from mols.common.randomness import Streams
from mols.learning import Batch, LearningAgent
from mols.policies import frozen_copy, move_towards
from mols.task import Task


def columns(thresholds: Sequence[float]) -> tuple[str, ...]:
    """The suite's own columns of metrics.csv, for a task's thresholds of modes."""
    return (
        *(f"modes_found_{threshold:g}" for threshold in thresholds),
        "mean_reward",
        "invalid_share",
        "top_100_reward",
        "top_100_diversity",
        "rewards_evaluated",
        "reward_correlation",
        "reward_correlation_generated",
        *(f"modes_sorted_{threshold:g}" for threshold in thresholds),
    )


def huber(residual: Tensor) -> Tensor:
    """Huber loss with threshold 1 nat, element by element."""
    return huber_loss(residual, torch.zeros_like(residual), reduction="none")


class BalanceAgent(LearningAgent):
    """TrajectoryBalance, DetailedBalance and SubTrajectoryBalance."""

    def __init__(self, config: ConfigDict, task: Task, streams: Streams) -> None:
        self.has_log_z = config.algo == "tb"
        self._loss = {"tb": self._tb, "db": self._db, "subtb": self._subtb}[config.algo]
        super().__init__(config, task, streams)

    def forward_loss(self, batch: Batch) -> Tensor:
        """The objective's mean loss over the batch."""
        transitions, states = batch.transitions, batch.transitions.visited
        features = self.policies.features(states)
        logits = self.policies.forward_logits(states, features)
        log_pf = logits.log_softmax(-1)[transitions.state_row, transitions.actions]
        log_pb = self.scored_log_pb(transitions, features)
        return self._loss(batch, features, log_pf, log_pb).mean()

    def _tb(self, batch: Batch, features, log_pf: Tensor, log_pb: Tensor) -> Tensor:
        index = batch.transitions.trajectory_index
        return huber(objectives.trajectory_balance(log_pf, log_pb, self.policies.log_z, batch.log_reward, index))

    def _db(self, batch: Batch, features, log_pf: Tensor, log_pb: Tensor) -> Tensor:
        index = batch.transitions.trajectory_index
        residual = objectives.detailed_balance(
            log_pf, log_pb, self._log_flow(batch, features), batch.log_reward, index, batch.transitions.is_stop
        )
        return torch.zeros_like(batch.log_reward).index_add(0, index, huber(residual))

    def _subtb(self, batch: Batch, features, log_pf: Tensor, log_pb: Tensor) -> Tensor:
        return objectives.sub_trajectory_balance(
            log_pf,
            log_pb,
            self._log_flow(batch, features),
            batch.log_reward,
            batch.transitions.trajectory_index,
            batch.transitions.is_stop,
            self.config.subtb_lambda,
            huber,
        )

    def _log_flow(self, batch: Batch, features) -> Tensor:
        return self.policies.log_flow(features)[batch.transitions.state_row]


class QAgent(LearningAgent):
    """SoftDQN and MunchausenDQN with P_F = softmax(Q / c) and a target of Q of its own beside the EMA model.

    Dueling, Q = V + c log pi with pi = softmax(heads / c) and V the graph's own output; not dueling, Q are the heads
    and V = c logsumexp(Q / c). One coefficient c = 1 / (1 - alpha) everywhere: the policy that samples is
    proportional to R at the optimum.
    """

    def __init__(self, config: ConfigDict, task: Task, streams: Streams) -> None:
        self.coefficient = objectives.entropy_coefficient(config.m_alpha)
        self.dueling = not config.not_dueling
        super().__init__(config, task, streams)
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
            self.config.m_alpha,
            self.config.m_l0,
        )
        weight = torch.where(transitions.is_stop, self.config.leaf_coeff, 1.0)
        return (weight * huber(q_value - target)).sum() / transitions.n_trajectories

    def _value_and_log_policy(self, policies, batch: Batch, features) -> tuple[Tensor, Tensor]:
        """(U,) V of the distinct states, and (M,) log pi of the actions taken."""
        transitions = batch.transitions
        scaled = policies.forward_logits(transitions.visited, features) / self.coefficient
        total = scaled.logsumexp(-1)
        log_policy = scaled[transitions.state_row, transitions.actions] - total[transitions.state_row]
        value = policies.log_flow(features) if self.dueling else self.coefficient * total
        return value, log_policy

    def update_q_target(self) -> None:
        """One step of the Q target too."""
        super().update_q_target()
        move_towards(self.q_target, self.policies, self.config.q_target_decay)

    def state_dict(self) -> dict[str, Any]:
        """The Q target too."""
        return super().state_dict() | {"q_target": self.q_target.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        self.q_target.load_state_dict(state["q_target"])


AGENTS: dict[str, type[LearningAgent]] = {
    "tb": BalanceAgent,
    "db": BalanceAgent,
    "subtb": BalanceAgent,
    "soft_dqn": QAgent,
    "dqn": QAgent,
}


def make_agent(config: ConfigDict, task: Task) -> LearningAgent:
    """The agent of a checked configuration, with the seed's streams."""
    return AGENTS[config.algo](config, task, Streams.from_seed(config.seed))
