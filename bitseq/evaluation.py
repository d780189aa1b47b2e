"""How well a sampler knows the strings: modes found in training, correlation with the reward, exact distances.

    log P(x) = log mean over trajectories tau ~ P_B(.|x) of P_F(tau) / P_B(tau|x)        (Gritsaev et al. 2025, 4.2)

estimated with some backward trajectories per string; its Spearman correlation with log R over the test strings is the
paper's ``reward_correlation``. On sizes that enumerate, P_F's distribution over strings is computed exactly instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from bitseq.environment import StringEnvironment
from bitseq.policies.backward import Backward
from bitseq.policies.model import Policies
from bitseq.sampling import draw, taken_log_pb

CHUNK = 4096  # states in one network pass
MAX_EXACT_STATES = 100_000
N_CURRENT = 1_000  # strings that the current modes are counted near


@contextmanager
def evaluation_mode(policies: Policies) -> Iterator[None]:
    """Dropout off and no gradients; the mode is as before afterwards."""
    training = policies.training
    policies.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        policies.train(training)


class ModeTracker:
    """What training has found so far, updated by each batch of strings.

    Args:
        environment: the strings.
        threshold: Hamming distance, in bits, within which a mode counts as found.

    Attributes:
        found_at: (m_size,) trajectories sampled when a mode was found, the batch included; -1: not yet.
        seen_at: (m_size,) number of the last string within the threshold, the first is 0; -1: none so far.
        best_distance: (m_size,) of the nearest string so far to each mode, bits.
        best_string: (m_size, L) that string.
    """

    _TENSORS = ("found_at", "seen_at", "best_distance", "best_string")

    def __init__(self, environment: StringEnvironment, threshold: int) -> None:
        self._environment, self._threshold = environment, threshold
        shape = (environment.m_size,)
        self.found_at, self.seen_at = torch.full(shape, -1), torch.full(shape, -1)
        self.best_distance = torch.full(shape, environment.n + 1)
        self.best_string = torch.zeros(*shape, environment.length, dtype=torch.long)
        self._n_sampled = 0
        self._recent: dict[str, float] = {"reward": 0.0, "log_reward": 0.0, "strings": 0}

    def push(self, strings: Tensor) -> None:
        """Take note of (N, L) complete strings."""
        distances = self._environment.distances(strings)
        log_reward = -self._environment.reward_exponent * distances.min(1).values.double()
        sums = {"reward": log_reward.exp().sum(), "log_reward": log_reward.sum(), "strings": len(strings)}
        self._recent = {name: value + float(sums[name]) for name, value in self._recent.items()}
        number = self._n_sampled + torch.arange(len(strings), device=distances.device).unsqueeze(1)
        last = torch.where(distances <= self._threshold, number, -1).max(0).values
        self.seen_at = torch.maximum(self.seen_at, last.cpu())
        self._n_sampled += len(strings)
        nearest, row = distances.min(0)
        nearest, nearest_string = nearest.long().cpu(), strings[row].cpu()
        self.found_at[(nearest <= self._threshold) & (self.found_at < 0)] = self._n_sampled
        better = nearest < self.best_distance
        self.best_distance[better], self.best_string[better] = nearest[better], nearest_string[better]

    @property
    def modes_found(self) -> int:
        """Modes within the threshold of some string so far."""
        return int((self.found_at >= 0).sum())

    @property
    def modes_current(self) -> int:
        """Modes within the threshold of one of the last 1,000 strings."""
        return int((self.seen_at >= max(0, self._n_sampled - N_CURRENT)).sum())

    def metrics(self) -> dict[str, float]:
        """modes_found, modes_current; of strings since the last call, if any, mean_reward, mean_log_reward (nats)."""
        count = self._recent["strings"]
        means = {f"mean_{name}": self._recent[name] / count for name in ("reward", "log_reward") if count}
        self._recent = dict.fromkeys(self._recent, 0.0)
        return {"modes_found": self.modes_found, "modes_current": self.modes_current, **means}

    def state_dict(self) -> dict[str, Any]:
        """What was found, for a checkpoint."""
        tensors = {name: getattr(self, name) for name in self._TENSORS}
        return tensors | {"n_sampled": self._n_sampled, "recent": self._recent}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        for name in self._TENSORS:
            setattr(self, name, state[name])
        self._n_sampled, self._recent = state["n_sampled"], state["recent"]


def estimated_log_prob(
    strings: Tensor,
    policies: Policies,
    backward: Backward,
    environment: StringEnvironment,
    rng: np.random.Generator,
    *,
    rounds: int,
    coefficient: float = 1.0,
) -> Tensor:
    """(S,) estimates of log P(x), nats, each from ``rounds`` backward trajectories (Gritsaev et al. 2025, 4.2).

    All trajectories go back in step. Where several meet in a state, it takes one pass of the trunk, which serves P_F of
    the actions taken there and P_B.

    Args:
        strings: (S, L) complete.
        policies: P_F.
        backward: P_B that the trajectories are drawn from: the run's own, or another.
        environment: the strings.
        rng: the evaluation stream.
        rounds: backward trajectories per string.
        coefficient: P_F = softmax(forward head / coefficient).
    """
    draws = torch.from_numpy(rng.random((environment.length, rounds * len(strings)))).to(strings.device)
    with evaluation_mode(policies):
        log_pb = torch.cat([backward.log_probs(chunk) for chunk in strings.split(CHUNK)]).repeat(rounds, 1)
        states, log_ratio = strings.repeat(rounds, 1), log_pb.new_zeros(rounds * len(strings))
        for uniform in draws:
            states, actions = environment.backward_step(states, draw(log_pb.exp().double(), uniform))
            log_ratio -= taken_log_pb(log_pb, actions, environment.n_words)
            log_pf, log_pb = _log_probs(states, actions, policies, backward, environment, coefficient)
            log_ratio += log_pf
    return log_ratio.view(rounds, -1).logsumexp(0) - np.log(rounds)


def _log_probs(
    states: Tensor,
    actions: Tensor,
    policies: Policies,
    backward: Backward,
    environment: StringEnvironment,
    coefficient: float,
) -> tuple[Tensor, Tensor]:
    """(M,) log P_F of the actions in (M, L) states of equally many words, and (M, L) log P_B there."""
    distinct, row = environment.distinct(states)
    log_pf, log_pb = torch.empty(len(states), device=states.device), []
    for first, chunk in zip(range(0, len(distinct), CHUNK), distinct.split(CHUNK), strict=True):
        here = ((row >= first) & (row < first + CHUNK)).nonzero().squeeze(1)
        log_pf[here], begin = policies.log_probs_of(chunk, row[here] - first, actions[here], coefficient)
        log_pb.append(backward.log_probs(chunk, begin))
    return log_pf, torch.cat(log_pb)[row]


def spearman(log_prob: Tensor, log_reward: Tensor) -> float:
    """Spearman's rank correlation of (S,) estimates with (S,) log rewards."""
    return float(spearmanr(log_prob.cpu().numpy(), log_reward.cpu().numpy()).statistic)


def n_states(environment: StringEnvironment) -> int:
    """(V + 1)^L, complete or not."""
    return (environment.n_words + 1) ** environment.length


def all_states(environment: StringEnvironment) -> Tensor:
    """((V + 1)^L, L) every state; row i holds the digits of i in base V + 1."""
    index = torch.arange(n_states(environment), device=environment.device)
    return index.unsqueeze(1) // _strides(environment) % (environment.n_words + 1)


def true_distribution(environment: StringEnvironment) -> tuple[Tensor, Tensor]:
    """(V^L, L) all strings, in the order of ``all_states``, and (V^L,) float64 R / Z."""
    states = all_states(environment)
    strings = states[(states != environment.empty).all(1)]
    return strings, environment.log_reward(strings).double().softmax(0)


def exact_distribution(policies: Policies, environment: StringEnvironment, coefficient: float = 1.0) -> Tensor:
    """(V^L,) float64 probability of every string under P_F, by dynamic programming over all states.

    mu(s_0) = 1, mu(s') = sum_s mu(s) P_F(s'|s), states in order of their number of words.
    """
    states, strides = all_states(environment), _strides(environment)
    n_filled = (states != environment.empty).sum(1)
    visit = torch.zeros(len(states), dtype=torch.float64, device=states.device)
    visit[n_filled == 0] = 1.0
    change = torch.arange(environment.n_words, device=states.device) - environment.empty
    with evaluation_mode(policies):
        for filled in range(environment.length):
            for index in torch.nonzero(n_filled == filled).squeeze(1).split(CHUNK):
                logits = policies.forward_logits(states[index], policies.trunk(states[index])).over(coefficient)
                joint = logits.joint().flatten(1).double().softmax(-1)
                flow = visit[index].unsqueeze(1) * joint
                child = index[:, None, None] + change * strides[:, None]
                legal = (states[index] == environment.empty).unsqueeze(-1).expand(child.shape)
                visit.index_add_(0, child[legal], flow.view(child.shape)[legal])
    return visit[n_filled == environment.length]


def exact_distances(learned: Tensor, true: Tensor) -> dict[str, float]:
    """exact_total_variation and exact_kl = KL(true || learned), nats, of two (V^L,) distributions."""
    return {
        "exact_total_variation": ((learned - true).abs().sum() / 2).item(),
        "exact_kl": (torch.xlogy(true, true) - torch.xlogy(true, learned)).sum().item(),
    }


def _strides(environment: StringEnvironment) -> Tensor:
    base = environment.n_words + 1
    return torch.tensor([base**d for d in reversed(range(environment.length))], device=environment.device)
