"""TB, DB and SubTB against torchgfn's own classes, on torchgfn's own bit strings with the same weights.

torchgfn ends a trajectory by a stop action, certain on a full string. With log R as the flow of full strings, as it is
here, that transition's residual is 0, and what is left are the residuals of the L transitions before it.
"""

import numpy as np
import pytest
import torch
from each import each
from gfn.estimators import DiscretePolicyEstimator, ScalarEstimator
from gfn.gflownet import DBGFlowNet, SubTBGFlowNet, TBGFlowNet
from gfn.gym.bitSequenceNonAutoregressive import NonAutoregressiveBitSequence
from gfn.preprocessors import IdentityPreprocessor
from gfn.samplers import Sampler
from torch import nn

from bitseq.environment import mode_bits
from bitseq.sampling import Transitions


class Network(nn.Module):
    """One of our heads on the trunk, with torchgfn's states and actions."""

    def __init__(self, agent, output_dim):
        super().__init__()
        self.agent, self.input_dim, self.output_dim = [agent], agent.environment.length, output_dim

    def forward(self, encoded):
        (agent,) = self.agent
        states = torch.where(encoded < 0, agent.environment.empty, encoded).long()
        return self.read(agent, states, agent.policies.trunk(states))


class Forward(Network):
    def read(self, agent, states, hidden):
        joint = agent.policies.forward_logits(states, hidden).joint().flatten(1)
        return nn.functional.pad(joint, (0, 1))  # the stop action


class Backward(Network):
    def read(self, agent, states, hidden):
        return agent.policies.backward.head(hidden[:, 0]).repeat_interleave(agent.environment.n_words, dim=1)


class Flow(Network):
    def read(self, agent, states, hidden):
        is_full = (states != agent.environment.empty).all(1)
        log_reward = agent.environment.log_reward(states.clamp(max=agent.environment.n_words - 1))
        return torch.where(is_full, log_reward, agent.policies.log_flow(hidden)).unsqueeze(1)


def estimators(agent, gfn):
    """torchgfn's P_F, P_B and log F (None for TB) with the agent's weights."""
    encoding = IdentityPreprocessor(output_dim=agent.environment.length)
    forward = DiscretePolicyEstimator(Forward(agent, gfn.n_actions), gfn.n_actions, encoding)
    if agent.approach.policy == "learned":
        network = Backward(agent, gfn.n_actions - 1)
        backward = DiscretePolicyEstimator(network, gfn.n_actions, encoding, is_backward=True)
    else:
        backward = DiscretePolicyEstimator.uniform(gfn.n_actions, encoding)
    return forward, backward, ScalarEstimator(Flow(agent, 1), encoding) if agent.has_log_flow else None


def as_transitions(trajectories, environment):
    """torchgfn's (time, batch) trajectories, without their stop actions, as our flat transitions."""
    length = environment.length
    states = trajectories.states.tensor[: length + 1].transpose(0, 1)
    states = torch.where(states < 0, environment.empty, states)
    actions = trajectories.actions.tensor[:length].squeeze(-1).transpose(0, 1)
    n_trajectories = len(states)
    trajectory = torch.arange(n_trajectories).repeat_interleave(length)
    row = torch.arange(n_trajectories * length)
    is_last = row % length == length - 1
    return Transitions(
        torch.cat([states[:, :-1].flatten(0, 1), states[:, -1]]),
        torch.where(is_last, len(row) + trajectory, row + 1),
        actions.flatten(),
        trajectory,
        is_last,
    )


def unscaled_loss(objective, agent, gfn, trajectories):
    """Mean over trajectories: of TB's square, of DB's summed squares, of SubTB's weighted mean of squares."""
    forward, backward, log_flow = estimators(agent, gfn)
    length = agent.environment.length
    if objective == "tb":
        return TBGFlowNet(forward, backward, logZ=agent.policies.log_z).loss_from_trajectories(gfn, trajectories)
    if objective == "db":
        mean = DBGFlowNet(forward, backward, log_flow).loss_from_trajectories(gfn, trajectories)
        return mean * (length + 1)  # over the stop actions too, whose residual is 0
    theirs = SubTBGFlowNet(forward, backward, log_flow, weighting="geometric_within", lamda=0.9)
    by_length, _ = theirs.get_scores(trajectories, env=gfn)
    ending_before_the_stop = [scores[:-1] for scores in by_length[:length]]
    weighted = sum(0.9**i * scores.square().sum(0) for i, scores in enumerate(ending_before_the_stop, start=1))
    return (weighted / sum(0.9**i * (length + 1 - i) for i in range(1, length + 1))).mean()


@each("approach", ["uniform", "naive"])
@each("objective", ["tb", "db", "subtb"])
def test_losses_are_torchgfns(new_agent, objective, approach):
    agent = new_agent(objective, approach, n=16, k=4, uniform_initialisation=False, dropout=0)
    with torch.no_grad():
        for parameter in agent.parameters():  # away from the initialisation: nothing is 0, nothing is uniform
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    modes = torch.from_numpy(mode_bits(16, 5))
    gfn = NonAutoregressiveBitSequence(4, 16, len(modes), reward_exponent=2.0 * 16, H=modes)  # theirs is divided by n
    torch.manual_seed(2)
    trajectories = Sampler(estimators(agent, gfn)[0]).sample_trajectories(gfn, n=32, save_logprobs=False)
    batch = as_transitions(trajectories, agent.environment)
    assert np.unique(batch.actions.numpy()).size > 32
    expected = unscaled_loss(objective, agent, gfn, trajectories).item()
    assert agent.forward_loss(batch).item() * agent.environment.length == pytest.approx(expected, rel=1e-4)
