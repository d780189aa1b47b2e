"""Does TLM help? Two of torchgfn's environments, three backward approaches, exact distances, in a minute.

python -m hypergrid.torchgfn.examples.discrete_ebm [--iterations N] [--seed N] [--out FILE.png]
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import torch
from gfn.env import DiscreteEnv
from gfn.estimators import DiscretePolicyEstimator
from gfn.gflownet import TBGFlowNet
from gfn.gym import DiscreteEBM, HyperGrid
from gfn.preprocessors import IdentityPreprocessor, KHotPreprocessor, Preprocessor
from gfn.samplers import Sampler
from gfn.utils.modules import MLP

from hypergrid import BackwardTraining
from hypergrid.analysis.labels import COLOURS
from hypergrid.common.files import make_folder, save_picture
from hypergrid.common.terminal import ExperimentError, command

matplotlib.use("Agg")
from matplotlib import pyplot as plt

APPROACHES = ("uniform", "naive", "tlm")
BATCH_SIZE, LEARNING_RATE = 16, 4e-3
N_POINTS = 10  # of a curve


def main(argv: list[str] | None = None) -> int:
    """Train, print a Markdown table and draw a picture; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hypergrid.torchgfn.examples.discrete_ebm", description=__doc__)
    parser.add_argument("--iterations", type=int, default=300, help="of 16 trajectories, at least 10 (300)")
    parser.add_argument("--seed", type=int, default=1, help="of torch (1)")
    parser.add_argument("--out", type=Path, default=Path("discrete_ebm.png"), help="the picture (discrete_ebm.png)")
    arguments = parser.parse_args(argv)
    return command(lambda: compare(arguments.iterations, arguments.seed, arguments.out))


def compare(n_iterations: int, seed: int, out: Path) -> None:
    """Every approach on both environments: exact total variation at the end, and over the iterations."""
    if n_iterations < N_POINTS:
        raise ExperimentError(f"--iterations is {n_iterations}: it must be at least {N_POINTS}")
    if out.suffix not in (".png", ".pdf"):
        raise ExperimentError(f"--out is {out}: its name must end in .png or .pdf")
    make_folder(out.absolute().parent)
    torch.set_num_threads(1)
    environments = {
        "DiscreteEBM, 6 spins": (DiscreteEBM(6, alpha=0.1), IdentityPreprocessor(6)),
        "HyperGrid, 8 x 8": (HyperGrid(2, 8), KHotPreprocessor(8, 2)),
    }
    print(f"Exact total variation after {n_iterations} iterations, TB, seed {seed}:\n")
    print(f"| environment | {' | '.join(APPROACHES)} |\n|---|{'---|' * len(APPROACHES)}")
    figure, axes = plt.subplots(1, len(environments), figsize=(11, 4), layout="constrained")
    for axis, (name, (environment, preprocessor)) in zip(axes, environments.items(), strict=True):
        curves = {a: train(environment, preprocessor, a, n_iterations, seed) for a in APPROACHES}
        print(f"| {name} | {' | '.join(f'{curve[-1][1]:.3f}' for curve in curves.values())} |", flush=True)
        for approach, curve in curves.items():
            axis.plot(*zip(*curve, strict=True), color=COLOURS[approach], label=approach)
        axis.set(title=name, xlabel="iterations", ylabel="exact total variation", ylim=(0, None))
        axis.legend(frameon=False)
    save_picture(figure, out, dpi=120)
    plt.close(figure)
    print(f"\n{out}")


def train(
    environment: DiscreteEnv, preprocessor: Preprocessor, approach: str, n_iterations: int, seed: int
) -> list[tuple[int, float]]:
    """Train a GFlowNet by trajectory balance; (iteration, exact total variation) at ten points."""
    torch.manual_seed(seed)
    n_actions = environment.n_actions
    forward = MLP(preprocessor.output_dim, n_actions, hidden_dim=64)
    backward_net = MLP(preprocessor.output_dim, n_actions - 1, trunk=forward.trunk)
    torch.nn.init.zeros_(backward_net.last_layer.weight)  # P_B starts at uniform
    torch.nn.init.zeros_(backward_net.last_layer.bias)
    pf = DiscretePolicyEstimator(forward, n_actions, preprocessor)
    pb = DiscretePolicyEstimator(backward_net, n_actions, preprocessor, is_backward=True)

    backward = BackwardTraining(pb, approach=approach, learning_rate=LEARNING_RATE)
    gflownet = TBGFlowNet(pf=pf, pb=backward.scored)
    own = [
        {"params": gflownet.pf_pb_parameters(), "lr": LEARNING_RATE},
        {"params": gflownet.logz_parameters(), "lr": 0.1},
    ]
    optimizer, sampler, curve = torch.optim.Adam(own), Sampler(pf), []
    points = {round(n_iterations * part / N_POINTS) for part in range(1, N_POINTS + 1)}
    for iteration in range(1, n_iterations + 1):
        trajectories = sampler.sample_trajectories(environment, n=BATCH_SIZE)
        backward.step(trajectories)
        optimizer.zero_grad()
        gflownet.loss(environment, trajectories).backward()
        optimizer.step()
        if iteration in points:
            curve.append((iteration, total_variation(environment, pf)))
    return curve


@torch.no_grad()
def total_variation(environment: DiscreteEnv, pf: DiscretePolicyEstimator) -> float:
    """Between P_F's own distribution over terminal states and R / Z, both by enumeration; no sampling noise."""
    states, visit = environment.states_from_tensor(environment.s0.unsqueeze(0)), torch.ones(1)
    stopped, reward = torch.zeros(environment.n_states), torch.zeros(environment.n_states)
    while len(visit):
        probability = visit.unsqueeze(1) * pf.to_probability_distribution(states, pf(states)).probs
        can_stop = states.forward_masks[:, -1]
        ends = states[can_stop]
        index = environment.get_states_indices(ends)
        stopped[index] += probability[can_stop, -1]
        reward[index] = environment.reward(ends)
        row, action = states.forward_masks[:, :-1].nonzero(as_tuple=True)
        following = environment.step(states[row], environment.actions_from_tensor(action.unsqueeze(1)))
        index, place = environment.get_states_indices(following).unique(return_inverse=True)
        visit = torch.zeros(len(index)).index_add(0, place, probability[row, action])
        first = torch.zeros(len(index), dtype=torch.long).scatter(0, place, torch.arange(len(place)))
        states = environment.states_from_tensor(following.tensor[first])
    return (stopped - reward / reward.sum()).abs().sum().item() / 2


if __name__ == "__main__":
    sys.exit(main())
