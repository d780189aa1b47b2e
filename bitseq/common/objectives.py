"""GFlowNet objectives as pure functions of flat tensors.

    TrajectoryBalance     log Z + sum_t log P_F - log R(x) - sum_t log P_B                   (Malkin et al. 2022)
    DetailedBalance       log F(s) + log P_F(s'|s) - log F(s') - log P_B(s|s')               (Bengio et al. 2023)
    SubTrajectoryBalance  the same between any two states of a trajectory, weight lambda^length  (Madan et al. 2023)
    SoftDQN               Q(s,a) - [log P_B(s|s') + V(s')],  V = log sum exp Q               (Tiapkin et al. 2024)
    MunchausenDQN         SoftDQN + alpha max(log pi(a|s), l_0), coefficient c = 1/(1-alpha)    (Vieillard et al. 2020)

with F(s') = R(x) and V(s') = log R(x) on the transition that ends a trajectory in x. Where that transition is a stop
action, which leaves the state as it is, its log P_B is 0; where it is the last of a fixed number of moves, it has a
log P_B like any other. Conventions: M transitions of N trajectories lie flat, trajectory after trajectory, each in
order of time; everything is in nats; ``log_pb`` is log P_B(s_t | s_{t+1}); no division by length here. All residuals
are 0 at the exact solution, for any P_B: with P_F(s'|s) = F(s') P_B(s|s') / F(s) and Q = V + c log P_F.
This file is the same, byte for byte, in every suite.
"""

from collections.abc import Callable

import torch
from torch import Tensor


def trajectory_balance(
    log_pf: Tensor, log_pb: Tensor, log_z: Tensor, log_reward: Tensor, trajectory_index: Tensor
) -> Tensor:
    """(N,) residuals of TrajectoryBalance (Malkin et al. 2022, section 2.3).

    Args:
        log_pf, log_pb: (M,).
        log_z: ().
        log_reward: (N,).
        trajectory_index: (M,) in 0..N-1.
    """
    log_ratio = torch.zeros_like(log_reward).index_add(0, trajectory_index, log_pf - log_pb)
    return log_z + log_ratio - log_reward


def detailed_balance(
    log_pf: Tensor, log_pb: Tensor, log_flow: Tensor, log_reward: Tensor, trajectory_index: Tensor, is_last: Tensor
) -> Tensor:
    """(M,) residuals of DetailedBalance (Bengio et al. 2023, section 3.2).

    Args:
        log_pf, log_pb: (M,).
        log_flow: (M,) log F of the state that each transition leaves.
        log_reward: (N,).
        trajectory_index: (M,).
        is_last: (M,) boolean, the transitions that end a trajectory.
    """
    log_flow_next = torch.where(is_last, log_reward[trajectory_index], log_flow.roll(-1))
    return log_flow + log_pf - log_flow_next - log_pb


def sub_trajectory_balance(
    log_pf: Tensor,
    log_pb: Tensor,
    log_flow: Tensor,
    log_reward: Tensor,
    trajectory_index: Tensor,
    subtb_lambda: float,
    penalty: Callable[[Tensor], Tensor] = torch.square,
) -> Tensor:
    """(N,) losses of SubTrajectoryBalance, geometric weights within each trajectory (Madan et al. 2023).

    A trajectory of n transitions gives

        sum_{i<j<=n} lambda^(j-i) A_ij^2 / sum_{i<j<=n} lambda^(j-i),    A_ij = c_i - c_j,

    with the potential c_i = log F(s_i) - sum_{t<i} (log P_F - log P_B) of each state, log R(x) standing for the
    flow of the end.

    Args:
        log_pf, log_pb, log_flow: (M,).
        log_reward: (N,).
        trajectory_index: (M,).
        subtb_lambda: weight per transition of a sub-trajectory's length, positive.
        penalty: of a residual A_ij, element by element, in place of its square.
    """
    n_trajectories = len(log_reward)
    trajectories = torch.arange(n_trajectories, device=log_pf.device)
    lengths = torch.bincount(trajectory_index, minlength=n_trajectories)
    position = torch.arange(len(log_pf), device=log_pf.device) - (lengths.cumsum(0) - lengths)[trajectory_index]
    width = int(lengths.max()) + 1
    zeros = log_pf.new_zeros(n_trajectories, width)
    log_ratio = zeros.index_put((trajectory_index, position + 1), log_pf - log_pb)
    log_flows = zeros.index_put((trajectory_index, position), log_flow).index_put((trajectories, lengths), log_reward)
    potential = log_flows - log_ratio.cumsum(1)
    state = torch.arange(width, device=log_pf.device)
    length = state[None, :] - state[:, None]
    weight = torch.where(length > 0, subtb_lambda ** length.clamp(min=0).to(log_pf.dtype), 0.0)
    weight = weight * (state <= lengths[:, None])[:, None, :]
    residual = potential[:, :, None] - potential[:, None, :]
    return (weight * penalty(residual)).sum((1, 2)) / weight.sum((1, 2))


def entropy_coefficient(m_alpha: float) -> float:
    """c = 1 / (1 - alpha): with it, softmax(Q / c) is the GFlowNet policy and V(s_0) is log Z."""
    return 1.0 / (1.0 - m_alpha)


def soft_value(q_values: Tensor, coefficient: float) -> Tensor:
    """(M,) V(s) = c log sum_a exp(Q(s, a) / c) of (M, A) values, illegal ones masked."""
    return coefficient * torch.logsumexp(q_values / coefficient, -1)


def dqn_target(
    log_pb: Tensor,
    next_value: Tensor,
    log_reward: Tensor,
    is_last: Tensor,
    target_log_policy: Tensor,
    m_alpha: float,
    m_l0: float,
) -> Tensor:
    """(M,) regression targets of Q(s, a) for MunchausenDQN; m_alpha 0 is SoftDQN (Tiapkin et al. 2024).

    Args:
        log_pb: (M,) log P_B(s|s'), the reward of a transition; 0 on stops.
        next_value: (M,) V(s') of the target network; ignored where ``is_last``.
        log_reward: (M,) log R(x) of the transitions that end in x; ignored elsewhere.
        is_last: (M,) boolean.
        target_log_policy: (M,) log pi(a|s) of the target network's policy.
        m_alpha: Munchausen coefficient, in [0, 1).
        m_l0: floor of c * log pi, in nats.
    """
    bonus = m_alpha * (entropy_coefficient(m_alpha) * target_log_policy).clamp(min=m_l0)
    return log_pb + torch.where(is_last, log_reward, next_value) + bonus
