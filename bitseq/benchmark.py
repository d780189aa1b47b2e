"""Iterations per second of every objective x {uniform, tlm, or others}, and where an iteration's time goes, in one run.

    python -m bitseq.benchmark [--rounds 5] [--seconds 1] [--objectives tb db ...] [--approaches uniform tlm ...]

Every contender trains on the default strings (n 120, k 8), batch 16, one thread. Contenders take turns, round after
round, so that a slow spell of the machine hits all of them; medians over rounds are printed, ms an iteration. Losses
are forward passes; updates are gradients, optimisers and targets; metrics are what a row of metrics.csv costs, spread
over the steps between two rows. The reward correlation has a table of its own.

The limit is the time that the matrix products of Algorithm 1 alone would take at the speed of one large product,
measured in the same run: a rollout and a target are one pass over their states, a gradient three. Passes of P_B count
in full, though they ask the last layer for the begin token alone.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from copy import copy
from typing import Any

import torch

from bitseq import settings
from bitseq.agents.base import LearningAgent
from bitseq.agents.dqn import QAgent
from bitseq.agents.table import make_agent
from bitseq.common import backward_loss
from bitseq.common.algorithm import train_step
from bitseq.common.terminal import command

APPROACHES = ("uniform", "tlm")
WARMUP = 10  # steps before measuring; learning of the DQN objectives has started by then


def main(argv: list[str] | None = None) -> int:
    """Measure and print two Markdown tables; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bitseq.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--rounds", type=int, default=5, choices=range(1, 1000), metavar="INT", help="turns of each contender (5)"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn, of at least one iteration (1)")
    parser.add_argument("--objectives", nargs="+", default=settings.OBJECTIVES, choices=settings.OBJECTIVES)
    parser.add_argument("--approaches", nargs="+", default=APPROACHES, choices=backward_loss.APPROACHES)
    arguments = parser.parse_args(argv)

    def work() -> None:
        torch.set_num_threads(1)
        print("| objective | P_B | iterations/s | of the limit | rollout | losses | updates | metrics (ms) |")
        print("|---|---|---|---|---|---|---|---|")
        for objective in arguments.objectives:
            measure(objective, arguments.approaches, arguments.rounds, arguments.seconds)
        print("\n| P_B of the trajectories | one reward correlation (s) |\n|---|---|")
        for approach in arguments.approaches:
            print(f"| {approach} | {correlation_seconds(warm_agent('db', approach)):.0f} |")

    return command(work)


def measure(objective: str, approaches: list[str], rounds: int, seconds: float) -> None:
    """Print the rows of one objective."""
    contenders = {approach: warm_agent(objective, approach) for approach in approaches}
    watches = {approach: Stopwatch(agent) for approach, agent in contenders.items()}
    turns: dict[str, list[Counter]] = {approach: [] for approach in contenders}
    speeds = []
    for _ in range(rounds):
        speeds.append(product_speed())
        for approach, agent in contenders.items():
            turns[approach].append(turn(agent, watches[approach], seconds))
    for approach, agent in contenders.items():
        part = {name: statistics.median(t[name] for t in turns[approach]) for name in turns[approach][0]}
        limit = operations(agent) / statistics.median(speeds)
        cells = [f"{1 / part['step']:.1f}", f"{100 * limit / part['step']:.0f}%"]
        cells += [f"{1e3 * part[name]:.1f}" for name in ("rollout", "losses", "updates", "metrics")]
        print(f"| {objective} | {approach} | {' | '.join(cells)} |", flush=True)
    print(f"<!-- {objective}: large product at {statistics.median(speeds) / 1e9:.0f} GFLOP/s -->", flush=True)


def warm_agent(objective: str, approach: str) -> LearningAgent:
    """A default agent of seed 1 after some iterations and an evaluation, whose first takes longer."""
    argv = ["--objective", objective, "--backward_approach", approach, "--device", "cpu"]
    argv += ["--start_learning", "1"] if objective in settings.DQN else []
    agent = make_agent(settings.parse(argv))
    for _ in range(WARMUP):
        train_step(agent)
    agent.evaluate(agent.config.validate_every)
    return agent


class Stopwatch:
    """Seconds spent in an agent's rollouts and losses, by wrapping these methods."""

    def __init__(self, agent: LearningAgent) -> None:
        self.seconds: Counter = Counter()
        for method, part in (("sample", "rollout"), ("backward_loss", "losses"), ("forward_loss", "losses")):
            setattr(agent, method, self._timed(getattr(agent, method), part))

    def _timed(self, function: Callable, part: str) -> Callable:
        def timed(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = function(*arguments)
            self.seconds[part] += time.perf_counter() - start
            return result

        return timed


def turn(agent: LearningAgent, watch: Stopwatch, seconds: float) -> Counter:
    """Seconds per iteration over one turn: the step, its parts, and its share of the metrics."""
    watch.seconds.clear()
    iterations, start = 0, time.perf_counter()
    while (taken := time.perf_counter() - start) < seconds or not iterations:
        train_step(agent)
        iterations += 1
    parts = Counter({name: value / iterations for name, value in watch.seconds.items()})
    parts["updates"] = taken / iterations - parts.total()
    start = time.perf_counter()
    agent.evaluate(agent.config.validate_every)  # a step at which no correlation is due
    parts["metrics"] = (time.perf_counter() - start) / agent.config.validate_every
    parts["step"] = taken / iterations + parts["metrics"]
    return parts


def correlation_seconds(agent: LearningAgent) -> float:
    """Seconds of one reward correlation, after a short one that brings in what is compiled."""
    agent.environment, whole = copy(agent.environment), agent.environment
    agent.environment.test_states = whole.test_states[:2]
    agent.reward_correlation(agent.correlated.backward)
    agent.environment = whole
    start = time.perf_counter()
    agent.reward_correlation(agent.correlated.backward)
    return time.perf_counter() - start


def operations(agent: LearningAgent) -> float:
    """Floating-point operations of the matrix products of one iteration (see the module's docstring)."""
    config, length = agent.config, agent.environment.length
    tokens = length + 1
    layer = tokens * (8 * config.width**2 + 4 * config.width * config.ff_width) + 4 * tokens**2 * config.width
    trunk = config.n_layers * layer
    forward = trunk + 2 * config.width * agent.environment.n_words * (length + 1) / 2  # words of the empty positions
    transitions = config.batch_size * length
    total = transitions * forward
    if agent.backward_learner is not None:
        total += transitions * trunk * (1 if config.backward_head_only else 3)
    # The P_B that is scored: of the balance objectives the online one reads P_F's features, and those of the ends.
    if isinstance(agent, QAgent):
        scored = {"fixed": 0, "target": 1, "online_detached": 1, "online": 3}[agent.approach.scored]
        return total + config.replay_batch_size * (5 * forward + scored * trunk)
    ends = config.batch_size / transitions
    scored = {"fixed": 0, "target": 1, "online_detached": 3 * ends, "online": 3 * ends}[agent.approach.scored]
    return total + transitions * (3 * forward + scored * trunk)


def product_speed() -> float:
    """Operations per second of one large float32 product, by torch's default library."""
    left, right = torch.randn(2048, 256), torch.randn(256, 256)
    start = time.perf_counter()
    for _ in range(10):
        left @ right
    return 10 * 2 * 2048 * 256**2 / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
