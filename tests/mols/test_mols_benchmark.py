"""The benchmark: its table, the parts of an iteration, and the operations that bound it."""

import re
from collections import Counter
from types import SimpleNamespace

import pytest
from each import each, each_algo
from small_runs import command, quicken
from torch.nn.functional import linear

from mols import benchmark, settings
from mols.agents.dqn import QAgent
from mols.agents.table import make_agent
from mols.common.algorithm import train_step
from mols.policies import compiled_layers
from mols.policies.layers import Layer
from mols.tasks import seh_frag


@pytest.fixture
def reward_agent(monkeypatch):
    """``reward_agent(algo, approach, option, ...)``: an agent of a small run."""
    quicken(monkeypatch)

    def new(algo, approach, *extra):
        argv = command(algo, "none", "--corr_every=0", "--backward_approach", approach, *extra)
        config = settings.parse(argv, seh_frag.Settings)
        return make_agent(config, seh_frag.make_task(config))

    return new


def test_the_operations_of_an_iteration_by_hand(reward_agent):
    """Width 16, two layers, three heads, 10 tokens; a product (a, b) @ (b, c) counts 2abc."""
    forward = 2 * (10 * 2 * 32 * (3 * 48 + 16) + 2 * (10 * 2 * 16 * 64))
    expected = {("tb", "uniform"): 1 + 3, ("tb", "tlm"): 1 + 3 + 3 + 1, ("dqn", "uniform"): 1 + 3 + 1}
    expected["soft_dqn", "tlm"] = 1 + 3 + 3 + 2  # targets of Q and of P_B
    expected["tb", "pessimistic"] = 1 + 3 + 3  # the online P_B is scored
    for (algo, approach), n_passes in expected.items():
        agent = reward_agent(algo, approach, "--width=16", "--n_layers=2", "--n_heads=3")
        assert benchmark.operations(agent, 10) == n_passes * forward


@each("approach", benchmark.APPROACHES)
@each_algo
def test_the_operations_are_those_that_an_iteration_makes(algo, approach, reward_agent, monkeypatch):
    agent = reward_agent(algo, approach, "--max_fragments=5", "--batch_size=8", "--n_layers=2", "--n_heads=2")
    counted = []

    def count(n_inputs, output):
        gradient = 3 if output.requires_grad else 1
        counted.append(gradient * 2 * output.numel() * n_inputs)
        return output

    monkeypatch.setattr(compiled_layers, "linear", lambda *args: count(args[0].shape[1], linear(*args)))
    for policies in (agent.policies, agent.average, *([agent.q_target] if isinstance(agent, QAgent) else [])):
        for layer in policies.modules():
            if isinstance(layer, Layer):
                for part in (layer.up, layer.down):
                    part.register_forward_hook(lambda module, _, output: count(module.in_features, output))
    train_step(agent)
    states = agent._last_states
    tokens = sum(max(1, sum(fragment != 72 for fragment in slots)) + 1 for slots in states.fragment.tolist())
    assert sum(counted) == benchmark.operations(agent, tokens)


def require_table(out, objectives):
    number = r"\d+\.\d\d"
    for objective in objectives:
        for approach in benchmark.APPROACHES:
            cells = rf"{number} \| \d+% \| {' . '.join([number] * 5)} \| \d+\.\d \| \d+"
            assert len(re.findall(rf"^\| {objective} \| {approach} \| {cells} \|$", out, re.MULTILINE)) == 1
        assert len(re.findall(rf"^<!-- {objective}: large product at \d+ GFLOP/s -->$", out, re.MULTILINE)) == 1
    assert out.startswith("| objective | P_B | s/iteration |")


def test_the_benchmark_prints_its_table(reward_agent, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "warm_agent", lambda task, objective, approach, _: reward_agent(objective, approach))
    assert benchmark.main(["--task", "seh", "--rounds", "1", "--iterations", "1", "--objectives", "tb", "dqn"]) == 0
    require_table(capsys.readouterr().out, ("tb", "dqn"))


def test_the_parts_of_an_iteration_by_a_clock_that_the_test_moves(reward_agent, monkeypatch):
    """Masks take 1 s each and rewards 100 s; masks within the rewards and the losses are these'."""
    agent, clock, inside, masks = reward_agent("tb", "tlm"), [0.0], [], Counter()
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(perf_counter=lambda: clock[0]))

    def slow(function, part, seconds):
        def slowed(*arguments, **options):
            masks.update(inside[-1:] if part is None else [])
            clock[0] += seconds
            inside.append(part or inside[-1])
            result = function(*arguments, **options)
            inside.pop()
            return result

        return slowed

    agent.environment.forward_mask = slow(agent.environment.forward_mask, None, 1)
    agent.task.score = slow(agent.task.score, "reward", 100)
    for method, part in (("sample", "environment"), ("backward_loss", "losses"), ("forward_loss", "losses")):
        setattr(agent, method, slow(getattr(agent, method), part, 0))
    lengths, sample = [], agent.sample

    def sampled():
        batch = sample()
        lengths.append(len(batch.transitions.actions))
        return batch

    agent.sample = sampled
    part = benchmark.Stopwatch(agent).turn(1)
    assert len(lengths) == 1 and part["length"] == lengths[0] / benchmark.BATCH
    assert masks["environment"] > 2 and masks["reward"] > 0 and masks["losses"] > 0
    expected = {"rollout": 0, "environment": masks["environment"], "reward": 100 + masks["reward"]}
    expected |= {"losses": masks["losses"], "updates": 0}
    assert {name: part[name] for name in benchmark.PARTS} == expected
    assert part["step"] == clock[0]


def test_the_benchmark_says_what_is_missing(tmp_path, capsys):
    assert benchmark.main(["--rounds", "1", "--objectives", "tb", "--data_dir", str(tmp_path / "none")]) == 2
    assert "which is not a folder" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--rounds", "--iterations"])
def test_no_turns_are_refused(option, monkeypatch):
    monkeypatch.setattr(benchmark, "warm_agent", None)  # before anything is computed
    with pytest.raises(SystemExit) as stop:
        benchmark.main([option, "0"])
    assert stop.value.code == 2


@pytest.mark.slow
def test_the_benchmark_prints_its_table_at_full_size(monkeypatch, capsys):
    quicken(monkeypatch)
    assert benchmark.main(["--task", "seh", "--rounds", "1", "--iterations", "1", "--objectives", "tb"]) == 0
    require_table(capsys.readouterr().out, ("tb",))
