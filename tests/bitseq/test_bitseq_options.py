"""Every option has an effect: another value trains other weights or measures other things."""

import csv
from functools import cache

import pytest
import torch
from each import each

from bitseq import plots, settings
from bitseq.common.options import free_fields
from bitseq.run import main

SMALL = "--n 8 --k 2 --M_size 5 --mode_threshold 1 --width 16 --n_layers 1 --n_heads 2 --ff_width 16 --device cpu "
SMALL += "--num_iterations 4 --validate_every 2 --corr_every 4 --exact_every 4 --corr_num_rounds 1"
SMALL_REPLAY = "--start_learning 1 --replay_batch_size 8 --update_target_every 2"

# (objective, approach): a changed value of each option that the pair shows the effect of
EFFECTS = {
    ("tb", "tlm"): {
        "objective": "db",
        "backward_approach": "naive",
        "seed": 2,
        "num_iterations": 5,
        "batch_size": 8,
        "n": 16,
        "k": 4,
        "M_size": 2,  # the fourth and the fifth repeat others
        "mode_threshold": 3,
        "reward_exponent": 1,
        "width": 8,
        "n_layers": 2,
        "n_heads": 4,
        "ff_width": 8,
        "dropout": 0.3,
        "rand_action_prob": 0.5,
        "learning_rate": 0.01,
        "weight_decay": 0.1,
        "log_z_learning_rate": 0.01,
        "update_order": "forward_first",
        "backward_learning_rate": 0.01,
        "gamma": 0.5,
        "target_decay": 0,
        "uniform_initialisation": False,
        "backward_head_only": False,
        "validate_every": 1,
        "corr_every": 0,
        "corr_num_rounds": 2,
        "correlation_network": "online",
        "exact_every": 2,
    },
    ("subtb", "uniform"): {"subtb_lambda": 0.5, "good_trajectories": 4},
    ("soft_dqn", "tlm"): {
        "leaf_coeff": 1,
        "huber_delta": 0.1,
        "replay_capacity": 16,
        "replay_batch_size": 16,
        "replay_priority_exponent": 0,
        "replay_importance_exponent": 1,
        "start_learning": 2,
        "update_target_every": 3,
        "backward_learning_rate": 0.01,
    },
    ("munchausen_dqn", "uniform"): {"m_alpha": 0.5, "m_l0": -0.1},
    ("db", "pessimistic"): {"backward_learning_rate": 0.01, "backward_head_only": True},
    ("db", "naive"): {"uniform_initialisation": False},
}
EVALUATION = {
    "validate_every",
    "corr_every",
    "corr_num_rounds",
    "correlation_network",
    "exact_every",
}  # change no weight
STORAGE = {"output_dir", "if_exists", "checkpoint_every", "tensorboard", "wandb"}  # change nothing that is computed
MACHINE = {"device", "threads", "kernels"}  # change the rounding alone


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """``outcome(objective, approach, *arguments)``: weights and metrics.csv of a run of four steps, made once."""

    @cache
    def run(objective, approach, *arguments):
        folder = tmp_path_factory.mktemp("run")
        argv = ["--objective", objective, "--backward_approach", approach, *SMALL.split()]
        argv += [*(SMALL_REPLAY.split() if objective in settings.DQN else []), "--output_dir", str(folder), *arguments]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plots, "draw_run", lambda *_: None)
            assert main(argv) == 0
        (path,) = folder.rglob("checkpoint.pt")
        agent = torch.load(path, weights_only=True)["agent"]
        with (path.parent / "metrics.csv").open(newline="") as file:
            rows = [{name: cell for name, cell in row.items() if name != "wall_s"} for row in csv.DictReader(file)]
        return agent["policies"], rows

    return run


def as_arguments(name, value):
    return (f"--{'' if value else 'no-'}{name}",) if isinstance(value, bool) else (f"--{name}", str(value))


def same_weights(one, other):
    return one.keys() == other.keys() and all(
        value.shape == other[name].shape and torch.equal(value, other[name]) for name, value in one.items()
    )


CASES = [(pair, name, value) for pair, changes in EFFECTS.items() for name, value in changes.items()]


@each("pair,name,value", CASES)
def test_a_changed_value_changes_what_is_computed(outcome, pair, name, value):
    """The weights, or, of the options of evaluation and of the mode count, the metrics alone."""
    base_weights, base_rows = outcome(*pair)
    weights, rows = outcome(*pair, *as_arguments(name, value))
    if name in EVALUATION | {"mode_threshold"}:
        assert same_weights(base_weights, weights)
        assert base_rows != rows
    else:
        assert not same_weights(base_weights, weights)


def test_what_the_options_of_evaluation_change(outcome):
    """The columns that each is about, and no others in the rows that both runs have."""
    _, base = outcome("tb", "tlm")
    for name, changed_columns in {
        "mode_threshold": {"modes_found", "modes_current"},
        "corr_every": {"reward_correlation", "reward_correlation_uniform"},
        "corr_num_rounds": {"reward_correlation", "reward_correlation_uniform"},
        "correlation_network": {"reward_correlation", "reward_correlation_uniform"},
        "exact_every": {"exact_total_variation", "exact_kl"},
    }.items():
        _, rows = outcome("tb", "tlm", *as_arguments(name, EFFECTS["tb", "tlm"][name]))
        differing = {c for one, other in zip(base, rows, strict=True) for c in one if one[c] != other[c]}
        assert differing == changed_columns
    _, rows = outcome("tb", "tlm", "--validate_every", "1")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4"]
    assert [row["step"] for row in base] == ["2", "4"]


@pytest.mark.parametrize(
    "arguments", [("--checkpoint_every", "1"), ("--if_exists", "overwrite"), ("--tensorboard",)], ids=" ".join
)
def test_storage_changes_nothing_that_is_computed(outcome, arguments):
    """Nor does another output_dir: each run here has its own."""
    base_weights, base_rows = outcome("tb", "tlm")
    weights, rows = outcome("tb", "tlm", *arguments)
    assert same_weights(base_weights, weights)
    assert base_rows == rows


def test_no_option_is_forgotten():
    shown = {name for changes in EFFECTS.values() for name in changes}
    assert not shown & (STORAGE | MACHINE)
    assert shown | STORAGE | MACHINE == set(settings.Settings.model_fields)
    assert set(free_fields(settings.Settings)) == STORAGE | MACHINE
