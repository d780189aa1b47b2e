"""A rollout of P_F: readable in torch, and compiled.

Both walk one trajectory after another and take one uniform random number a transition from the same stream, so that
they return the same trajectories, but for a draw that falls within rounding of a boundary.

At batch 16 a rollout in torch is all overhead (10 ms against 2 ms of arithmetic), so it is compiled, on the host, in
the arrays of the network's weights. One step changes one coordinate, hence one row difference of the first layer is
added to the running pre-activation; only the active units of a ReLU layer enter the next product; a state that the
batch has met before keeps its logits. On a GPU the weights (0.4 MB) are copied to the host once per batch.
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


class Rollout(NamedTuple):
    """M transitions of complete trajectories over U distinct states, as arrays of whole numbers on the host.

    Attributes:
        visited: (U,) canonical indices of the distinct states, in the order in which they were met.
        state_row: (M,) row in ``visited`` of the state that each transition leaves.
        actions: (M,) in 0..D; D stops.
        trajectory_index: (M,) in 0..N-1, not decreasing.
    """

    visited: np.ndarray
    state_row: np.ndarray
    actions: np.ndarray
    trajectory_index: np.ndarray


def readable_rollout(
    policies: Policies, environment: GridEnvironment, n_trajectories: int, rng: np.random.Generator, coefficient: float
) -> Rollout:
    """N trajectories of P_F = softmax(forward head / coefficient), as the formulas say it.

    An action a is drawn by inversion: the first with P_F(0) + ... + P_F(a) > u, u uniform on [0, 1).
    """
    row_of: dict[int, int] = {}
    transitions = []
    for trajectory in range(n_trajectories):
        state, action = torch.zeros(1, environment.ndim, dtype=torch.long, device=environment.device), None
        while action != environment.stop_action:
            row = row_of.setdefault(environment.index(state).item(), len(row_of))
            logits = policies.forward_logits(state, policies.trunk(state))
            cumulative = (logits / coefficient).softmax(-1).squeeze(0).cumsum(0)
            action = int((cumulative[:-1] <= rng.random()).sum())
            transitions.append((row, action, trajectory))
            state = environment.step(state, torch.tensor([action], device=environment.device))
    return Rollout(np.array(list(row_of)), *np.array(transitions).T.copy())


def compiled_rollout(
    policies: Policies, environment: GridEnvironment, n_trajectories: int, rng: np.random.Generator, coefficient: float
) -> Rollout:
    """What ``readable_rollout`` returns, 40 times as fast."""
    trunk, head = policies.trunk, policies.forward_head
    table, bias, head_weight, head_bias = _on_host(trunk.table, trunk.bias, head.weight, head.bias)
    # One (inputs, outputs) matrix and one bias per hidden layer after the first; none is an empty stack.
    width = len(bias)
    weights, biases = (np.empty((len(trunk.layers), *shape), table.dtype) for shape in ((width, width), (width,)))
    for row, layer in enumerate(trunk.layers):
        weights[row], biases[row] = _on_host(layer.matrix, layer.bias)
    capacity = n_trajectories * environment.max_length
    row, actions, trajectory_index = (np.empty(capacity, np.int64) for _ in range(3))
    visited = np.empty(min(capacity, environment.n_states), np.int64)
    n_transitions, n_visited = _walk(
        table,
        bias,
        weights,
        biases,
        head_weight,
        head_bias,
        coefficient,
        n_trajectories,
        environment.height,
        rng,
        np.empty((len(visited), len(head_bias)), table.dtype),
        visited,
        row,
        actions,
        trajectory_index,
    )
    return Rollout(visited[:n_visited], *(array[:n_transitions] for array in (row, actions, trajectory_index)))


def _on_host(*parameters: Tensor) -> list[np.ndarray]:
    return [parameter.cpu().numpy() for parameter in parameters]


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
    logits,
    visited,
    rows,
    actions,
    index,
):
    """Walk n trajectories, one after another; return the numbers of transitions and of distinct states.

    Fills ``logits`` and ``visited`` per distinct state, and per transition the row of its state among them, its
    action and its trajectory.
    """
    ndim = len(head_bias) - 1
    pre_activation = np.empty_like(bias)
    coordinates = np.empty(ndim, np.int64)
    slots = _empty_slots(len(visited))
    m = n_visited = 0
    for trajectory in range(n_trajectories):
        coordinates[:] = 0
        pre_activation[:] = bias
        for dimension in range(ndim):
            pre_activation += table[dimension * height]
        state, action = 0, -1
        while action != ndim:
            slot = _slot_of(state, slots, visited)
            if slots[slot] < 0:
                slots[slot], visited[n_visited] = n_visited, state
                _write_logits(pre_activation, weights, biases, head_weight, head_bias, logits[n_visited])
                n_visited += 1
            action = _draw(logits[slots[slot]], coordinates, height, coefficient, rng)
            rows[m], actions[m], index[m] = slots[slot], action, trajectory
            m += 1
            if action != ndim:
                row = action * height + coordinates[action]
                pre_activation += table[row + 1] - table[row]
                coordinates[action] += 1
                state += height ** (ndim - 1 - action)
    return m, n_visited


@njit(cache=True)
def _empty_slots(capacity):
    """A hash table, open addressing, for ``capacity`` states: at most half full, its size a power of two."""
    size = 2
    while size < 2 * capacity:
        size *= 2
    return np.full(size, -1, np.int64)


@njit(cache=True)
def _slot_of(state, slots, visited):
    """Where a state's row stands in the hash table, or has to be put."""
    last = len(slots) - 1
    slot = (state * 0x9E3779B1) & last
    while slots[slot] >= 0 and visited[slots[slot]] != state:
        slot = (slot + 1) & last
    return slot


@njit(cache=True, fastmath=FAST)
def _write_logits(pre_activation, weights, biases, head_weight, head_bias, logits):
    """Write the outputs of the network into ``logits``."""
    hidden, zero = pre_activation, pre_activation.dtype.type(0)
    for layer in range(len(weights)):
        hidden = _affine_of_relu(hidden, weights[layer], biases[layer])
    for a in range(len(logits)):
        total = head_bias[a]
        for unit in range(len(hidden)):
            total += max(hidden[unit], zero) * head_weight[a, unit]
        logits[a] = total


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
