"""Seconds per iteration of every objective x {uniform, tlm, or others}, and where they go, in one run.

    python -m mols.benchmark --task seh [--rounds 3] [--iterations 2] [--objectives tb ...] [--approaches uniform ...]

Every contender trains with the default network, batch 64, one thread. Contenders take turns, round after round, so that
a slow spell of the machine hits all of them; medians over rounds are printed. ``environment`` is masks, steps and
equal states within the rollout, ``reward`` molecules, features and the reward's network; ``length`` is that of a
trajectory, in transitions.

The limit is the time that the matrix products of Algorithm 1 alone would take on the distinct states of the batch, at
the speed of one large product measured in the same run: a rollout and a target are one pass, a gradient three.
"""

import argparse
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable

import torch

from mols import settings
from mols.agents.base import LearningAgent
from mols.agents.dqn import QAgent
from mols.agents.table import make_agent
from mols.common import backward_loss
from mols.common.algorithm import train_step
from mols.common.terminal import ExperimentError
from mols.tasks import qm9, seh_frag

APPROACHES = ("uniform", "tlm")
TASKS = {"seh": seh_frag, "qm9": qm9}
PROXIES = {seh_frag: "original", qm9: "embedded"}
BATCH = 64
ENVIRONMENT = ("forward_mask", "step", "undo", "keys")
PARTS = ("rollout", "environment", "reward", "losses", "updates")


def main(argv: list[str] | None = None) -> int:
    """Measure and print a Markdown table; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m mols.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=TASKS, default="seh")
    parser.add_argument(
        "--rounds", type=int, default=3, choices=range(1, 1000), metavar="INT", help="turns of each contender (3)"
    )
    parser.add_argument(
        "--iterations", type=int, default=2, choices=range(1, 1000), metavar="INT", help="of a turn (2)"
    )
    parser.add_argument("--objectives", nargs="+", default=settings.OBJECTIVES, choices=settings.OBJECTIVES)
    parser.add_argument("--approaches", nargs="+", default=APPROACHES, choices=backward_loss.APPROACHES)
    parser.add_argument("--data_dir", default="", help="folder of the reward's weights (seh)")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(1)
    print(f"| objective | P_B | s/iteration | of the limit | {' | '.join(PARTS)} | length | distinct states |")
    print("|---|---|---|---|" + "---|" * (len(PARTS) + 2))
    try:
        for objective in arguments.objectives:
            measure(
                TASKS[arguments.task],
                objective,
                arguments.approaches,
                arguments.rounds,
                arguments.iterations,
                arguments.data_dir,
            )
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def measure(task, objective: str, approaches: list[str], rounds: int, iterations: int, data_dir: str) -> None:
    """Print the rows of one objective."""
    watches = {approach: Stopwatch(warm_agent(task, objective, approach, data_dir)) for approach in approaches}
    turns: dict[str, list[Counter]] = {approach: [] for approach in watches}
    speeds = []
    for _ in range(rounds):
        speeds.append(product_speed())
        for approach, watch in watches.items():
            turns[approach].append(watch.turn(iterations))
    for approach, watch in watches.items():
        part = {name: statistics.median(turn[name] for turn in turns[approach]) for name in turns[approach][0]}
        limit = operations(watch.agent, part["tokens"]) / statistics.median(speeds)
        states = len(watch.agent._last_states[0])
        cells = [f"{part['step']:.2f}", f"{100 * limit / part['step']:.0f}%", *(f"{part[name]:.2f}" for name in PARTS)]
        cells += [f"{part['length']:.1f}", f"{states}"]
        print(f"| {objective} | {approach} | {' | '.join(cells)} |", flush=True)
    print(f"<!-- {objective}: large product at {statistics.median(speeds) / 1e9:.0f} GFLOP/s -->", flush=True)


def warm_agent(task, objective: str, approach: str, data_dir: str) -> LearningAgent:
    """A default agent of seed 1 after two iterations."""
    argv = ["--algo", objective, "--backward_approach", approach, "--device", "cpu", "--batch_size", str(BATCH)]
    argv += ["--corr_every", "0", *(["--data_dir", data_dir] if data_dir else [])]
    argv += ["--proxy", PROXIES[task]]  # the same network on every machine
    config = settings.parse(argv, task.Settings)
    agent = make_agent(config, task.make_task(config))
    for _ in range(2):
        train_step(agent)
    return agent


class Stopwatch:
    """Seconds spent in the parts of an agent's iterations, by wrapping its methods."""

    def __init__(self, agent: LearningAgent) -> None:
        self.agent, self._seconds, self._inside, self._transitions = agent, Counter(), "", 0
        agent.sample = self._timed(self._counted(agent.sample), "sample")
        agent.task.score = self._timed(agent.task.score, "reward")
        agent.backward_loss = self._timed(agent.backward_loss, "losses")
        agent.forward_loss = self._timed(agent.forward_loss, "losses")
        for method in ENVIRONMENT:
            setattr(agent.environment, method, self._timed(getattr(agent.environment, method), method, "sample"))

    def _counted(self, sample: Callable) -> Callable:
        def counted():
            batch = sample()
            self._transitions += len(batch.transitions.actions)
            return batch

        return counted

    def _timed(self, function: Callable, part: str, within: str = "") -> Callable:
        def timed(*arguments, **options):
            outer, self._inside, start = self._inside, part, time.perf_counter()
            result = function(*arguments, **options)
            self._inside = outer
            if within in ("", outer):
                self._seconds[part] += time.perf_counter() - start
            return result

        return timed

    def turn(self, iterations: int) -> Counter:
        """Means over some iterations."""
        self._seconds.clear()
        self._transitions, tokens, start = 0, 0, time.perf_counter()
        for _ in range(iterations):
            train_step(self.agent)
            states = self.agent._last_states
            tokens += int((self.agent.environment.n_nodes(states).clamp(min=1) + 1).sum())
        step = (time.perf_counter() - start) / iterations
        mean = Counter({name: seconds / iterations for name, seconds in self._seconds.items()})
        part = Counter(step=step, tokens=tokens / iterations, reward=mean["reward"], losses=mean["losses"])
        part["length"] = self._transitions / iterations / BATCH
        part["environment"] = sum(mean[method] for method in ENVIRONMENT)
        part["rollout"] = mean["sample"] - part["reward"] - part["environment"]
        part["updates"] = step - mean["sample"] - part["losses"]
        return part


def operations(agent: LearningAgent, tokens: float) -> float:
    """Floating-point operations of the trunk's matrix products in one iteration (see the module's docstring)."""
    width, heads, layers = agent.config.width, agent.config.n_heads, agent.config.n_layers
    layer = 2 * width * (3 * heads * width + width) + 8 * width**2
    one_pass = 2 * tokens * layers * layer
    learns_backward = agent.backward_learner is not None
    # rollout; P_F's gradient; the Q target's pass; P_B's gradient, and the pass of its own target
    passes = 1 + 3 + isinstance(agent, QAgent) + 3 * learns_backward
    passes += learns_backward and agent.approach.scored in ("fixed", "target")
    return passes * one_pass


def product_speed() -> float:
    """Operations per second of one large float32 product."""
    left, right = torch.randn(2048, 256), torch.randn(256, 256)
    start = time.perf_counter()
    for _ in range(10):
        left @ right
    return 10 * 2 * 2048 * 256**2 / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
