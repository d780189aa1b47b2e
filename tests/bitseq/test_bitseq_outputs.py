"""What is made of runs: the pictures, and the benchmark's tables."""

import csv
import re
import warnings
from pathlib import Path

import pytest
import torch
from each import each, each_objective
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import bitseq
from bitseq import benchmark, environment, plots, settings
from bitseq.agents.table import COLUMNS, make_agent
from bitseq.analysis.labels import COLOURS
from bitseq.common.algorithm import train_step
from bitseq.common.run_folder import COMMON_COLUMNS

SUITE = Path(bitseq.__file__).parent
PANELS = ["modes_found", "mean_log_reward", "reward_correlation", "loss", "pb_deviation", "exact_total_variation"]
ABSENT = "not computed in this run"


@pytest.fixture
def draw(tmp_path, monkeypatch, new_agent):
    """``draw(rows, *batches, option=value, ...)``: the two figures of a run with these metrics and training strings.

    A warning, as of the mean of nothing or of equal limits, is an error.
    """
    figures = []
    monkeypatch.setattr(plots.plt, "close", figures.append)

    def new(rows, *batches, approach="tlm", **options):
        agent = new_agent("db", approach, num_iterations=100, **options)
        for batch in batches or [["01010101"] * 16]:
            bits = torch.tensor([[int(bit) for bit in string] for string in batch])
            agent.modes.push(agent.environment.tokens(bits))
        with (tmp_path / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*COMMON_COLUMNS, *COLUMNS])
            writer.writeheader()
            writer.writerows(rows)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plots.draw_run(tmp_path, agent)
        for name in ("curves.png", "modes.png"):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        return figures

    yield new
    monkeypatch.undo()
    plots.plt.close("all")


def row(step, **values):
    metrics = {"modes_found": 1, "mean_reward": 0.5, "mean_log_reward": -3.0, "pb_deviation": 0.1, "loss": 2.0 / step}
    metrics["mean_log_reward_perfect"] = -1.5
    return {"step": step, "trajectories": 16 * step, "wall_s": 1.0} | metrics | values


def curve(axis):
    return [list(values) for values in axis.lines[0].get_data()]


def test_the_curves_are_the_metrics(draw):
    rows = [
        row(10, modes_found=0, loss=8.5, pb_deviation=0.0, mean_log_reward=-9.5),
        row(20, modes_found=2, loss=0.25, pb_deviation=0.125, mean_log_reward=-7.0, exact_total_variation=0.75),
        row(
            30,
            modes_found=4,
            modes_current=2,
            loss=0.5,
            pb_deviation=0.5,
            mean_log_reward=-2.0,
            exact_total_variation=0.5,
        )
        | {"reward_correlation": 0.625, "reward_correlation_uniform": 0.375},
    ]
    figure = draw(rows, approach="pessimistic", learning_rate=0.002, seed=4)[0]
    axes = dict(zip(PANELS, figure.axes, strict=True))
    for name, axis in axes.items():
        assert curve(axis) == [[r["step"] for r in rows if name in r], [r[name] for r in rows if name in r]], name
        assert axis.lines[0].get_color() == COLOURS["pessimistic"]
        assert (
            axis.get_xlim() == (0, 100)
            and axis.get_xlabel() == "iterations"
            and axis.get_ylabel()
            and not axis.texts[1:]
        )
        assert axis.get_yscale() == ("log" if name == "loss" else "linear")
    assert list(axes["modes_found"].lines[1].get_ydata()) == [5, 5]  # M_size
    assert list(axes["modes_found"].lines[2].get_ydata())[2] == 2  # of the last 1,000
    assert list(axes["mean_log_reward"].lines[1].get_ydata()) == [-1.5] * 3
    assert [list(v) for v in axes["reward_correlation"].lines[1].get_data()] == [[30], [0.375]]
    for part in ("n=8, k=2", "db", "pessimistic", "0.002", "seed 4"):
        assert part in figure.get_suptitle()


def test_a_metric_that_no_row_has_is_said_to_be_absent(draw):
    absent = ("reward_correlation", "loss", "exact_total_variation")
    figure = draw([{name: value for name, value in row(10).items() if name not in absent}])[0]
    for name, axis in zip(PANELS, figure.axes, strict=True):
        assert (ABSENT in [text.get_text() for text in axis.texts]) == (name in absent)
        assert (len(axis.lines) == 0) == (name in absent)


def test_a_loss_of_zero_is_drawn_too(draw):
    axis = draw([row(10, loss=0.0), row(20)])[0].axes[PANELS.index("loss")]
    assert axis.get_yscale() == "linear" and curve(axis) == [[10, 20], [0.0, 0.1]]


def flipped(string, position):
    return string[:position] + str(1 - int(string[position])) + string[position + 1 :]


def test_the_modes_are_drawn_in_the_order_in_which_they_were_found(draw):
    modes = environment.mode_strings(24, 5)
    assert len(set(modes)) == 5
    first = [flipped(modes[3], 9)] * 16
    second = [modes[1], *[flipped(flipped(modes[4], 0), 1)] * 15]  # two bits away: not found, but the best
    figure = draw([row(10)], first, second, n=24, mode_threshold=1)[1]
    when, best = figure.axes
    order = [3, 1, 0, 2, 4]  # found in batch 1, in batch 2, the others as they are numbered
    assert [list(values) for values in when.lines[0].get_data()] == [[1.0, 2.0], [0, 1]]
    assert when.get_xlim() == (0, 100) and when.get_title() == "2 of 5 within 1 bits"
    strings = [*dict.fromkeys(first + second)]
    nearest = {mode: min(strings, key=lambda s: differences(s, mode)) for mode in modes}
    shades = [[int(m) + 2 * (m != b) for m, b in zip(mode, nearest[mode], strict=True)] for mode in modes]
    assert best.images[0].get_array().tolist() == [shades[number] for number in order]
    distances = [str(differences(nearest[modes[number]], modes[number])) for number in order]
    assert distances[:2] == ["1", "0"] and distances[4] == "2"
    assert [text.get_text() for text in best.texts] == distances
    assert [text.get_position()[1] for text in best.texts] == list(range(5))
    assert [label.get_text() for label in when.get_yticklabels()] == [str(number) for number in order]


def differences(one, two):
    return sum(a != b for a, b in zip(one, two, strict=True))


def test_modes_png_when_nothing_was_found(draw):
    when = draw([row(10)], mode_threshold=0)[1].axes[0]
    assert when.get_title() == "0 of 5 within 0 bits" and len(when.lines[0].get_xdata()) == 0


def test_many_modes_go_without_labels(draw):
    best = draw([row(10)], ["01" * 16] * 16, n=32, M_size=plots.MAX_LABELLED + 1)[1].axes[1]
    assert len(best.texts) == 0 and best.images[0].get_array().shape == (plots.MAX_LABELLED + 1, 32)


@pytest.mark.parametrize("string", ["00001111", "01010101"], ids=["found", "not found"])
def test_both_pictures_of_a_single_mode(string, draw):
    curves, modes = draw([row(10)], [string] * 16, M_size=1)
    found = string == environment.mode_strings(8, 1)[0]
    assert modes.axes[0].get_title() == f"{int(found)} of 1 within 1 bits"
    assert list(curves.axes[0].lines[1].get_ydata()) == [1, 1]


def test_the_operations_of_an_iteration_by_hand():
    """n 16, k 4, width 16, two layers, feed-forward 24, batch 4; a product (a, b) @ (b, c) counts 2abc."""
    sizes = "--n 16 --k 4 --M_size 5 --mode_threshold 1 --width 16 --n_layers 2 --n_heads 2 --ff_width 24"
    argv = [*sizes.split(), "--batch_size", "4", "--device", "cpu", "--backward_approach"]
    attention = 5 * 2 * 16 * 48 + 2 * (2 * 5 * 5 * 16) + 5 * 2 * 16 * 16  # 5 tokens: 4 words and the begin token
    trunk = 2 * (attention + 2 * (5 * 2 * 16 * 24))
    forward = trunk + 2 * 16 * 16 * (4 + 3 + 2 + 1) // 4  # words of the empty positions, along a trajectory
    assert benchmark.operations(make_agent(settings.parse([*argv, "uniform"]))) == 16 * (1 + 3) * forward
    tlm = 16 * (4 * forward + (3 + 1) * trunk)  # P_B's gradient, and its target
    assert benchmark.operations(make_agent(settings.parse([*argv, "tlm", "--no-backward_head_only"]))) == tlm
    assert benchmark.operations(make_agent(settings.parse([*argv, "tlm"]))) == tlm - 16 * 2 * trunk
    pessimistic = 16 * (4 * forward + trunk) + 4 * 3 * trunk  # 4 ends; its head alone learns from its own loss
    assert benchmark.operations(make_agent(settings.parse([*argv, "pessimistic"]))) == pessimistic
    replay = ["tlm", "--objective", "dqn", "--replay_batch_size", "32"]
    expected = 16 * (forward + 3 * trunk) + 32 * ((3 + 2) * forward + trunk)
    assert benchmark.operations(make_agent(settings.parse([*argv, *replay]))) == expected


@each("approach", ["uniform", "naive", "maxent", "tlm"])  # torch's counter does not take pessimistic's detached P_B
@each_objective
def test_the_operations_are_those_that_torch_counts(objective, approach, new_agent, monkeypatch):
    monkeypatch.setattr(torch.backends.mha, "get_fastpath_enabled", lambda: False)  # torch counts none of fused layers
    agent = new_agent(objective, approach, kernels="torch", n=64, k=4, width=64, ff_width=32, n_layers=2, batch_size=4)
    train_step(agent)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        train_step(agent)
    # Left out: P_B's and the positions' heads, log F, the distances to the modes.
    assert counter.get_total_flops() == pytest.approx(benchmark.operations(agent), rel=0.01)


def test_the_benchmark_prints_its_tables(new_agent, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "warm_agent", lambda objective, approach: new_agent(objective, approach))
    benchmark.main(["--rounds", "1", "--seconds", "0.01", "--objectives", "tb", "munchausen_dqn"])
    require_tables(capsys.readouterr().out, ("tb", "munchausen_dqn"))


@pytest.mark.parametrize("bad", [["--rounds", "0"], ["--objectives", "ppo"], ["--seconds", "x"]])
def test_the_benchmark_refuses_what_it_cannot_measure(bad, capsys):
    with pytest.raises(SystemExit) as stop:
        benchmark.main(bad)
    assert stop.value.code == 2 and capsys.readouterr().out == ""


@pytest.mark.slow
def test_the_benchmark_prints_its_tables_at_full_size(capsys):
    benchmark.main(["--rounds", "1", "--seconds", "0.01", "--objectives", "tb"])
    require_tables(capsys.readouterr().out, ("tb",))


def require_tables(out, objectives):
    number = r"\d+(\.\d)?"
    for objective in objectives:
        for approach in ("uniform", "tlm"):
            cells = rf"{number} \| \d+% \| {number} \| {number} \| {number} \| {number}"
            assert len(re.findall(rf"^\| {objective} \| {approach} \| {cells} \|$", out, re.MULTILINE)) == 1
    assert re.search(r"^\| uniform \| \d+ \|\n\| tlm \| \d+ \|$", out, re.MULTILINE)
