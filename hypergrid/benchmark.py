"""Iterations per second of every algorithm x {uniform, tlm, or others}, beside torchgfn's own classes, in one run.

    python -m hypergrid.benchmark [--warmup 500] [--rounds 7] [--algorithms tb db ...] [--approaches uniform tlm ...]

Every contender trains on the standard 20x20x20x20 grid, batch 16, one thread, for ``--warmup`` iterations first,
because a trained P_F walks longer than a fresh one. torchgfn's sampler and GFlowNet classes then start from the same
weights with a uniform P_B. Contenders take turns, round after round, so that a slow spell of the machine hits
all of them; medians over rounds are printed. Mean lengths still differ: compare transitions per second.

The limit is the time that the matrix products of Algorithm 1 alone would take at the speed of one large product,
measured in the same run: per distinct state and pass 2 width^2 (layers - 1) operations; a rollout, a target and the
scores of new transitions are one pass each, a gradient three.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from gfn.estimators import DiscretePolicyEstimator, ScalarEstimator
from gfn.gflownet import DBGFlowNet, SubTBGFlowNet, TBGFlowNet
from gfn.preprocessors import KHotPreprocessor
from gfn.samplers import Sampler
from gfn.utils.modules import MLP
from ml_collections import ConfigDict

from hypergrid import settings
from hypergrid.agents.base import LearningAgent
from hypergrid.agents.dqn import QAgent
from hypergrid.agents.table import make_agent
from hypergrid.common import backward_loss
from hypergrid.common.algorithm import train_step
from hypergrid.common.terminal import command
from hypergrid.torchgfn.estimators import as_mlp

APPROACHES = ("uniform", "tlm")
TORCHGFN = {"tb": TBGFlowNet, "db": DBGFlowNet, "subtb": SubTBGFlowNet}
SECONDS_PER_TURN = 0.5


def main(argv: list[str] | None = None) -> int:
    """Measure and print a Markdown table; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hypergrid.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--warmup", type=int, default=500, help="training iterations before measuring (500)")
    parser.add_argument(
        "--rounds", type=int, default=7, choices=range(1, 1000), metavar="INT", help="turns of each contender (7)"
    )
    parser.add_argument("--algorithms", nargs="+", default=settings.LEARNING, choices=settings.LEARNING)
    parser.add_argument("--approaches", nargs="+", default=APPROACHES, choices=backward_loss.APPROACHES)
    arguments = parser.parse_args(argv)

    def work() -> None:
        torch.set_num_threads(1)
        heads = ("algorithm", "P_B", "iterations/s", "transitions/s", "mean length", "of the limit")
        print(f"| {' | '.join(heads)} | x torchgfn (transitions/s) |\n|---|---|---|---|---|---|---|")
        for name in arguments.algorithms:
            measure(name, arguments.approaches, arguments.warmup, arguments.rounds)

    return command(work)


def measure(name: str, approaches: list[str], warmup: int, rounds: int) -> None:
    """Print the rows of one algorithm; torchgfn's beside uniform."""
    agents = {approach: trained_agent(name, approach, warmup) for approach in approaches}
    contenders = {approach: own_step(agent) for approach, agent in agents.items()}
    if name in TORCHGFN and "uniform" in agents:
        contenders["torchgfn"] = torchgfn_step(name, agents["uniform"])
    turns: dict[str, list[tuple[float, float, float]]] = {contender: [] for contender in contenders}
    speed = []
    for _ in range(rounds):
        speed.append(product_speed())
        for contender, step in contenders.items():
            turns[contender].append(turn(step))
    rates = {
        contender: tuple(statistics.median(values) for values in zip(*measured, strict=True))
        for contender, measured in turns.items()
    }
    for contender, (iterations, transitions, states) in rates.items():
        length = transitions / iterations / 16
        limit, ratio = "", ""
        if contender in agents:
            seconds = operations(agents[contender], states / iterations) / statistics.median(speed)
            limit = f"{100 * iterations * seconds:.0f}%"
            if "torchgfn" in rates:
                ratio = f"{transitions / rates['torchgfn'][1]:.1f}"
        label = "uniform, torchgfn's classes" if contender == "torchgfn" else contender
        print(
            f"| {name} | {label} | {iterations:.1f} | {transitions:.0f} | {length:.1f} | {limit} | {ratio} |",
            flush=True,
        )
    print(f"<!-- {name}: large product at {statistics.median(speed) / 1e9:.0f} GFLOP/s -->", flush=True)


def trained_agent(name: str, approach: str, warmup: int) -> LearningAgent:
    """A default agent of seed 1 after ``warmup`` iterations."""
    config = ConfigDict(
        {"general": settings.general(1), "env": settings.environment("standard"), "algo": settings.algorithm(name)}
    )
    config.algo.backward_approach, config.general.device = approach, "cpu"
    agent = make_agent(config)
    for _ in range(warmup):
        train_step(agent)
    return agent


def own_step(agent: LearningAgent) -> Callable[[], tuple[int, int]]:
    """One iteration of ours; returns the numbers of transitions sampled and of distinct states among them."""
    sample, sizes = agent.sample, []

    def counted_sample():
        batch = sample()
        sizes.append((len(batch.actions), len(batch.visited)))
        return batch

    agent.sample = counted_sample

    def step() -> tuple[int, int]:
        train_step(agent)
        return sizes.pop()

    return step


def torchgfn_step(name: str, agent: LearningAgent) -> Callable[[], tuple[int, int]]:
    """One iteration of torchgfn's sampler and loss with the same network and a uniform P_B; it computes every state."""
    environment = agent.environment
    preprocessor, n_actions = KHotPreprocessor(environment.height, environment.ndim), environment.ndim + 1
    module = as_mlp(agent.policies.trunk, agent.policies.forward_head)
    forward = DiscretePolicyEstimator(module, n_actions, preprocessor)
    backward = DiscretePolicyEstimator.uniform(n_actions, preprocessor)
    if agent.policies.log_flow_head is None:
        gflownet = TBGFlowNet(forward, backward, init_logZ=agent.estimated_log_z())
    else:
        flow = MLP(preprocessor.output_dim, 1, trunk=module.trunk)
        flow.last_layer.load_state_dict(agent.policies.log_flow_head.state_dict())
        gflownet = TORCHGFN[name](forward, backward, ScalarEstimator(flow, preprocessor))
    optimizer = torch.optim.Adam(gflownet.parameters(), lr=1e-3)
    sampler = Sampler(forward)

    def step() -> tuple[int, int]:
        trajectories = sampler.sample_trajectories(environment.gfn, n=agent.batch_size)
        loss = gflownet.loss(environment.gfn, gflownet.to_training_samples(trajectories), recalculate_all_logprobs=True)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        n_transitions = int(trajectories.terminating_idx.sum())
        return n_transitions, n_transitions

    return step


def turn(step: Callable[[], tuple[int, int]]) -> tuple[float, float, float]:
    """Iterations, transitions and distinct states per second over one turn."""
    done = []
    start = time.perf_counter()
    while (seconds := time.perf_counter() - start) < SECONDS_PER_TURN:
        done.append((1, *step()))
    iterations, transitions, states = (sum(column) / seconds for column in zip(*done, strict=True))
    return iterations, transitions, states


def operations(agent: LearningAgent, states: float) -> float:
    """Floating-point operations of the matrix products of an iteration over so many distinct states (see the top)."""
    algorithm, scored = agent.algo, agent.approach.scored
    passes = 1 + 3 * (agent.backward_learner is not None) + (scored == "target")
    if isinstance(agent, QAgent):
        replayed = 5 + {"fixed": 0, "online": 3}.get(scored, 1)  # Q's gradient, its target twice, P_B of the next state
        total = states * (passes + 2) + algorithm.replay_batch_size * replayed
    else:
        total = states * (passes + 3)
    return total * 2 * algorithm.hidden_width**2 * (algorithm.hidden_layers - 1)


def product_speed() -> float:
    """Operations per second of one large float32 product of the hidden layer's width."""
    left, right = torch.randn(2048, 256), torch.randn(256, 256)
    start = time.perf_counter()
    for _ in range(10):
        left @ right
    return 10 * 2 * 2048 * 256**2 / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
