"""Trajectories from the current P_F, as flat transitions.

At batch 16 a rollout in torch is all overhead (10 ms against 2 ms of arithmetic), so it is compiled: one trajectory
after another, on the host, in the arrays of the network's weights. One step changes one coordinate, hence one row
difference of the first layer is added to the running pre-activation, and only the active units of a ReLU layer
enter the next product. On a GPU the weights (0.4 MB) are copied to the host once per batch.
"""

from typing import NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from hypergrid.environment import GridEnvironment
from hypergrid.policies import Policies

# Sums may be reassociated, which vectorises them; infinities keep their meaning.
FAST = {"contract", "nsz", "arcp", "reassoc"}


class Transitions(NamedTuple):
    """M transitions of N complete trajectories, trajectory after trajectory, each in order of time.

    The U distinct states among them are listed once, so that a network sees each of them once; the transitions
    refer to their rows.

    Attributes:
        visited: (U, D) the distinct states.
        state_row: (M,) row in ``visited`` of the state that each transition leaves.
        next_row: (M,) row of the state that it reaches; its own state's where it stops.
        actions: (M,) in 0..D; D stops, once at the end of each trajectory.
        trajectory_index: (M,) in 0..N-1, not decreasing.
        is_stop: (M,) boolean.
    """

    visited: Tensor
    state_row: Tensor
    next_row: Tensor
    actions: Tensor
    trajectory_index: Tensor
    is_stop: Tensor

    @property
    def states(self) -> Tensor:
        """(M, D) the state that each transition leaves."""
        return self.visited[self.state_row]

    @property
    def n_trajectories(self) -> int:
        """N."""
        return int(self.trajectory_index[-1]) + 1

    @property
    def terminal_states(self) -> Tensor:
        """(N, D) where the trajectories stopped."""
        return self.visited[self.state_row[self.is_stop]]


def taken_log_pb(log_pb: Tensor, transitions: Transitions) -> Tensor:
    """(M,) log P_B(s_t | s_{t+1}) of the transitions taken; 0 on stops.

    Args:
        log_pb: (U, D) log P_B at the distinct states.
        transitions: the M transitions.
    """
    with_stop = torch.nn.functional.pad(log_pb, (0, 1))
    return with_stop[transitions.next_row, transitions.actions]


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
    trunk, head = policies.trunk, policies.forward_head
    table, bias, head_weight, head_bias = _on_host(trunk.table, trunk.bias, head.weight, head.bias)
    # One (inputs, outputs) matrix and one bias per hidden layer after the first; none is an empty stack.
    width = len(bias)
    weights, biases = np.empty((len(trunk.layers), width, width), table.dtype), np.empty((len(trunk.layers), width))
    for layer, linear in enumerate(trunk.layers):
        weights[layer], biases[layer] = linear.weight.t().cpu().numpy(), linear.bias.cpu().numpy()
    capacity = n_trajectories * environment.max_length
    state_index, actions, trajectory_index = (np.empty(capacity, np.int64) for _ in range(3))
    n_transitions = _walk(
        table,
        bias,
        weights,
        biases.astype(table.dtype),
        head_weight,
        head_bias,
        coefficient,
        n_trajectories,
        environment.height,
        rng,
        state_index,
        actions,
        trajectory_index,
    )
    return _transitions(
        state_index[:n_transitions], actions[:n_transitions], trajectory_index[:n_transitions], environment
    )


def _on_host(*parameters: Tensor) -> list[np.ndarray]:
    return [parameter.cpu().numpy() for parameter in parameters]


def _transitions(
    state_index: np.ndarray, actions: np.ndarray, trajectory_index: np.ndarray, environment: GridEnvironment
) -> Transitions:
    """Flat transitions of (M,) state indices, actions and trajectory indices."""
    is_stop = actions == environment.ndim
    distinct, state_row = np.unique(state_index, return_inverse=True)
    next_row = np.where(is_stop, state_row, np.append(state_row[1:], 0))
    strides = environment.height ** np.arange(environment.ndim - 1, -1, -1)
    visited = distinct[:, None] // strides % environment.height
    arrays = (visited, state_row, next_row, actions, trajectory_index, is_stop)
    return Transitions(*(torch.from_numpy(array).to(environment.device) for array in arrays))


@njit(cache=True, fastmath=FAST)
def _walk(
    table,
    bias,
    weights,
    biases,
    head_weight,
    head_bias,
    coefficient,
    n_trajectories,
    height,
    rng,
    states,
    actions,
    index,
):
    """Write the transitions of n trajectories, one after another, into the last three arrays; return their number."""
    n_actions, width = head_weight.shape
    ndim = n_actions - 1
    pre_activation, hidden, logits = np.empty_like(bias), np.empty_like(bias), np.empty_like(head_bias)
    coordinates = np.empty(ndim, np.int64)
    zero = bias.dtype.type(0)
    m = 0
    for trajectory in range(n_trajectories):
        coordinates[:] = 0
        pre_activation[:] = bias
        for dimension in range(ndim):
            pre_activation += table[dimension * height]
        state, action = 0, -1
        while action != ndim:
            hidden[:] = pre_activation
            for layer in range(len(weights)):
                hidden = _affine_of_relu(hidden, weights[layer], biases[layer])
            for a in range(n_actions):
                total = head_bias[a]
                for unit in range(width):
                    total += max(hidden[unit], zero) * head_weight[a, unit]
                logits[a] = total
            action = _draw(logits, coordinates, height, coefficient, rng)
            states[m], actions[m], index[m] = state, action, trajectory
            m += 1
            if action != ndim:
                row = action * height + coordinates[action]
                pre_activation += table[row + 1] - table[row]
                coordinates[action] += 1
                state += height ** (ndim - 1 - action)
    return m


@njit(cache=True, fastmath=FAST)
def _affine_of_relu(inputs, weight, bias):
    """bias + relu(inputs) @ weight, over the active inputs alone, four at a time."""
    active, n_active = np.empty(len(inputs), np.int64), 0
    for unit in range(len(inputs)):
        if inputs[unit] > 0:
            active[n_active] = unit
            n_active += 1
    out = bias.copy()
    whole = n_active - n_active % 4
    for first in range(0, whole, 4):
        i, j, k, l = active[first], active[first + 1], active[first + 2], active[first + 3]  # noqa: E741
        x, y, z, w = inputs[i], inputs[j], inputs[k], inputs[l]
        for unit in range(len(out)):
            out[unit] += x * weight[i, unit] + y * weight[j, unit] + z * weight[k, unit] + w * weight[l, unit]
    for first in range(whole, n_active):
        i = active[first]
        for unit in range(len(out)):
            out[unit] += inputs[i] * weight[i, unit]
    return out


@njit(cache=True)
def _draw(logits, coordinates, height, coefficient, rng):
    """An action of softmax(logits / coefficient) over the legal ones; the last, stop, always is."""
    stop = len(logits) - 1
    largest = logits[stop]
    for a in range(stop):
        if coordinates[a] < height - 1:
            largest = max(largest, logits[a])
    total = 0.0
    for a in range(stop + 1):
        if a == stop or coordinates[a] < height - 1:
            total += np.exp((logits[a] - largest) / coefficient)
    left = rng.random() * total
    for a in range(stop):
        if coordinates[a] < height - 1:
            left -= np.exp((logits[a] - largest) / coefficient)
            if left < 0:
                return a
    return stop
