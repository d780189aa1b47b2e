"""Trajectories from the current P_F, as flat transitions.

At batch 16 a rollout in torch is all overhead, so the loop runs on the host, in NumPy on views of the weights:
one step changes one coordinate, hence one row difference of the first layer's matrix is added to the running
pre-activation; finished trajectories leave the batch; actions are drawn by the Gumbel-max trick. On a GPU the
weights (0.4 MB) are copied to the host once per batch.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from hypergrid.environment import GridEnvironment
from hypergrid.policies import Policies


class Transitions(NamedTuple):
    """M transitions of N complete trajectories, trajectory after trajectory, each in order of time.

    Attributes:
        states: (M, D) the state that each transition leaves.
        actions: (M,) in 0..D; D stops, once at the end of each trajectory.
        trajectory_index: (M,) in 0..N-1, not decreasing.
    """

    states: Tensor
    actions: Tensor
    trajectory_index: Tensor

    @property
    def is_stop(self) -> Tensor:
        """(M,) boolean: the last transition of each trajectory."""
        return self.actions == self.states.shape[1]

    @property
    def n_trajectories(self) -> int:
        """N."""
        return int(self.trajectory_index[-1]) + 1

    @property
    def terminal_states(self) -> Tensor:
        """(N, D) where the trajectories stopped."""
        return self.states[self.is_stop]


def taken_log_pb(log_pb: Tensor, transitions: Transitions) -> Tensor:
    """(M,) log P_B(s_t | s_{t+1}) of the transitions taken; 0 on stops.

    Args:
        log_pb: (M, D) log P_B at the state that each transition leaves, so that row i+1 is the child of row i.
        transitions: the M transitions.
    """
    actions = transitions.actions.clamp(max=log_pb.shape[1] - 1).unsqueeze(1)
    return log_pb.roll(-1, 0).gather(1, actions).squeeze(1).masked_fill(transitions.is_stop, 0.0)


class _HostPolicy:
    """P_F on the host for n trajectories that move one coordinate at a time.

    Args:
        policies: the weights.
        n: trajectories, all in s_0.
        coefficient: the forward head's outputs are divided by it: the entropy coefficient of the DQN objectives.
    """

    def __init__(self, policies: Policies, n: int, coefficient: float) -> None:
        trunk, head = policies.trunk, policies.forward_head
        table = trunk.table.detach().cpu().numpy()
        self._step_rows = table[1:] - table[:-1]
        start = table[trunk.offsets.cpu().numpy()].sum(0) + trunk.bias.detach().cpu().numpy()
        self._layers = [(layer.weight.detach().cpu().t(), layer.bias.detach().cpu()) for layer in trunk.layers]
        self._head_weight = np.ascontiguousarray(head.weight.detach().cpu().numpy().T / coefficient)
        self._head_bias = head.bias.detach().cpu().numpy() / coefficient
        self._set(np.tile(start, (n, 1)))

    def _set(self, pre_activation: np.ndarray) -> None:
        """Hold these trajectories, and buffers of their number: NumPy's and torch's views of the same memory."""
        self._pre_activation = pre_activation
        self._hidden = [np.empty_like(pre_activation) for _ in range(len(self._layers) + 1)]
        self._hidden_torch = [torch.from_numpy(hidden) for hidden in self._hidden]

    def logits(self) -> np.ndarray:
        """(n, D+1) of the trajectories that are left; illegal actions are not masked."""
        np.maximum(self._pre_activation, 0.0, out=self._hidden[0])
        for layer, (weight, bias) in enumerate(self._layers):
            # torch multiplies these small matrices twice as fast as NumPy's BLAS, and in `threads` threads.
            torch.addmm(bias, self._hidden_torch[layer], weight, out=self._hidden_torch[layer + 1])
            np.maximum(self._hidden[layer + 1], 0.0, out=self._hidden[layer + 1])
        return np.dot(self._hidden[-1], self._head_weight) + self._head_bias

    def move(self, table_rows: np.ndarray) -> None:
        """Add 1 to one coordinate of every trajectory; (n,) rows of the first layer that encode it before."""
        self._pre_activation += self._step_rows[table_rows]

    def keep(self, going: np.ndarray) -> None:
        """Drop the trajectories that are not in the (n,) boolean mask."""
        self._set(self._pre_activation[going])


@torch.no_grad()
def sample_trajectories(
    policies: Policies,
    environment: GridEnvironment,
    n_trajectories: int,
    rng: np.random.Generator,
    coefficient: float = 1.0,
) -> Transitions:
    """N trajectories of P_F = softmax(forward head / coefficient), no exploration noise.

    Args:
        policies: the current weights.
        environment: the grid.
        n_trajectories: N.
        rng: the sampling stream.
        coefficient: entropy coefficient; 1 for the objectives whose head gives log P_F itself.
    """
    ndim, limit = environment.ndim, environment.height - 1
    policy = _HostPolicy(policies, n_trajectories, coefficient)
    first_rows = np.arange(ndim) * environment.height
    states, alive = np.zeros((n_trajectories, ndim), np.int64), np.arange(n_trajectories)
    visited: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    while len(alive):
        logits = policy.logits()
        logits[:, :ndim][states == limit] = -np.inf
        logits -= np.log(rng.standard_exponential(logits.shape, dtype=np.float32))
        actions = logits.argmax(1)
        visited.append((states, actions, alive))
        going = actions < ndim
        if not going.all():
            states, actions, alive = states[going], actions[going], alive[going]
            policy.keep(going)
        each = np.arange(len(alive))
        policy.move(first_rows[actions] + states[each, actions])
        states = states.copy()
        states[each, actions] += 1
    states, actions, index = (np.concatenate(parts) for parts in zip(*visited, strict=True))
    order = np.argsort(index, kind="stable")
    arrays = (states[order], actions[order], index[order])
    return Transitions(*(torch.from_numpy(array).to(environment.device) for array in arrays))
