"""TB, DB and SubTB against torchgfn's own classes, on torchgfn's own trajectories with the same weights."""

import pytest
import torch
from each import each
from gfn.estimators import DiscretePolicyEstimator, ScalarEstimator
from gfn.gflownet import DBGFlowNet, SubTBGFlowNet, TBGFlowNet
from gfn.preprocessors import KHotPreprocessor
from gfn.samplers import Sampler
from torch import nn

from hypergrid.sampling import Transitions


class DenseNetwork(nn.Module):
    """Our trunk and one head as torch's own layers, on the K-hot encoding."""

    def __init__(self, trunk, head):
        super().__init__()
        first = nn.Linear(*trunk.table.shape)
        first.weight, first.bias = nn.Parameter(trunk.table.detach().T.clone()), trunk.bias
        layers = [first, nn.ReLU()]
        for layer in trunk.layers:
            layers += [layer, nn.ReLU()]
        self.network = nn.Sequential(*layers, head)
        self.input_dim, self.output_dim = trunk.table.shape[0], head.out_features

    def forward(self, encoded):
        return self.network(encoded.float())


def estimators(agent):
    """torchgfn's P_F, P_B and log F (None for TB) with the agent's weights."""
    environment, policies = agent.environment, agent.policies
    encoding = KHotPreprocessor(environment.height, environment.ndim)
    n_actions = environment.ndim + 1
    forward = DiscretePolicyEstimator(DenseNetwork(policies.trunk, policies.forward_head), n_actions, encoding)
    if agent.approach.policy == "learned":
        network = DenseNetwork(policies.backward.trunk, policies.backward.head)
        backward = DiscretePolicyEstimator(network, n_actions, encoding, is_backward=True)
    else:
        backward = DiscretePolicyEstimator.uniform(n_actions, encoding)
    head = policies.log_flow_head
    return forward, backward, head and ScalarEstimator(DenseNetwork(policies.trunk, head), encoding)


def as_transitions(trajectories, environment):
    """torchgfn's padded (time, batch) trajectories as our flat transitions."""
    states, actions = trajectories.states.tensor, trajectories.actions.tensor.squeeze(-1)
    rows = []  # (index of the state, index of the next, action, trajectory)
    for n, length in enumerate(trajectories.terminating_idx.tolist()):
        index = environment.index(states[:length, n])
        following = torch.cat([index[1:], index[-1:]])
        rows.append(torch.stack([index, following, actions[:length, n], torch.full((length,), n)]))
    index, following, action, trajectory = torch.cat(rows, dim=1)
    distinct, row = torch.unique(index, return_inverse=True)
    return Transitions(
        environment.states_at(distinct),
        row,
        torch.searchsorted(distinct, following),
        action,
        trajectory,
        action == environment.stop_action,
    )


@each("approach", ["uniform", "naive"])
@each("objective", ["tb", "db", "subtb"])
def test_losses_are_torchgfns(new_agent, objective, approach):
    agent = new_agent(objective, approach, ndim=3, height=5, zero_initialisation=False)
    with torch.no_grad():
        for parameter in agent.parameters():  # away from the initialisation: nothing is 0, nothing is uniform
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    forward, backward, log_flow = estimators(agent)
    torch.manual_seed(2)
    trajectories = Sampler(forward).sample_trajectories(agent.environment.gfn, n=64, save_logprobs=False)
    if objective == "tb":
        theirs = TBGFlowNet(forward, backward, logZ=agent.policies.log_z)
    elif objective == "db":
        theirs = DBGFlowNet(forward, backward, log_flow)
    else:
        theirs = SubTBGFlowNet(forward, backward, log_flow, weighting="geometric_within", lamda=0.9)
    loss = theirs.loss_from_trajectories(agent.environment.gfn, trajectories)
    batch = as_transitions(trajectories, agent.environment)
    assert len(batch.actions) > 128
    assert agent.forward_loss(batch).item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-5)
