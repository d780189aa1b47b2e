"""Every option has an effect: on the weights if it is of training, on its metric alone if it is of evaluation."""

import shlex

import pytest
from each import each
from shared_data import needs
from small_runs import command, quicken, without_pictures
from suites import checkpoint, metrics_without_time

from mols.common.options import free_fields
from mols.tasks import seh_frag

TEST_SET = "seh_test_set.csv"

# Objective, options in common, the option's own: what it changes shows in the weights after three steps.
TRAINING = {
    "seed": ("tb", "", "--seed 2"),
    "n": ("tb", "--rp 0.9", "--n 4"),
    "batch_size": ("tb", "", "--batch_size 5"),
    "temp": ("tb", "", "--temp 9"),
    "max_fragments": ("tb", "", "--max_fragments 3"),
    "rp": ("tb", "", "--rp 0.9"),
    "ap": ("tb", "--rp 0.9", "--ap none"),
    "aexp": ("tb", "--rp 0.9 --ap exp", "--aexp 0.01"),
    "width": ("tb", "", "--width 8"),
    "n_layers": ("tb", "", "--n_layers 2"),
    "n_heads": ("tb", "", "--n_heads 2"),
    "precision": ("tb", "", "--precision bfloat16"),
    "algo": ("tb", "", "--algo db"),
    "backward_approach": ("tb", "", "--backward_approach pessimistic"),
    "lr": ("tb", "", "--lr 0.001 --blr 5e-5"),
    "lrd": ("tb", "", "--lrd 1"),
    "log_z_lr": ("tb", "", "--log_z_lr 0.01"),
    "log_z_lrd": ("tb", "", "--log_z_lrd 1"),
    "weight_decay": ("tb", "", "--weight_decay 0.1"),
    "gradient_clipping": ("tb", "", "--gradient_clipping 0.01"),
    "target_decay": ("tb", "--lr 0.05", "--target_decay 0.1"),
    "no_sampling_model": ("tb", "--lr 0.05", "--no_sampling_model"),
    "subtb_lambda": ("subtb", "", "--subtb_lambda 0.5"),
    "blr": ("tb", "", "--blr 0.001"),
    "blrd": ("tb", "", "--blrd 1"),
    "rand_pb_init": ("tb", "", "--rand_pb_init"),
    "m_alpha": ("dqn", "", "--m_alpha 0.5"),
    "m_l0": ("dqn", "", "--m_l0=-0.01"),
    "leaf_coeff": ("dqn", "", "--leaf_coeff 1"),
    "not_dueling": ("dqn", "", "--not_dueling"),
    "q_target_decay": ("dqn", "", "--q_target_decay 0.1"),
    "proxy": ("db", "--temp 0.05", "--proxy surrogate"),  # or log R would be -75 either way
    "reward": ("tb", "", "--proxy auto --reward qed"),
}
# These leave the weights alone; what they change is the metric.
EVALUATION = {
    "validate_every": ("--validate_every 1", "step"),
    "corr_every": ("--corr_every 2", "reward_correlation"),
    "corr_rounds": ("--corr_rounds 2", "reward_correlation_generated"),
    "corr_molecules": ("--corr_molecules 4", "reward_correlation"),
    "test_set": ("--test_set original --corr_molecules 200", "reward_correlation"),
}


@pytest.fixture(scope="module")
def result_of(tmp_path_factory):
    """``result_of(algo, "--option value")``: the weights and the metrics of a run, which is not repeated."""
    results = {}

    def run(algo, line):
        if (algo, line) not in results:
            folder = tmp_path_factory.mktemp("run")
            with pytest.MonkeyPatch.context() as patch:
                quicken(patch)
                without_pictures(patch)
                assert seh_frag.main(command(algo, folder, *shlex.split(line))) == 0
            policies = checkpoint(folder)["agent"]["policies"]
            weights = {name: (tuple(tensor.shape), tensor.numpy().tobytes()) for name, tensor in policies.items()}
            results[algo, line] = weights, metrics_without_time(folder)
        return results[algo, line]

    return run


@each("name", list(TRAINING))
def test_an_option_of_training_changes_the_weights(name, result_of):
    algo, common, own = TRAINING[name]
    common = f"--n 3 --corr_every 0 {common}".strip()
    assert result_of(algo, common)[0] != result_of(algo, f"{common} {own}")[0]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs(TEST_SET) if name == "test_set" else ()) for name in EVALUATION]
)
def test_an_option_of_evaluation_changes_its_metric_alone(name, result_of):
    line, metric = EVALUATION[name]
    (weights, metrics), (same_weights, others) = result_of("tb", ""), result_of("tb", line)
    assert weights == same_weights
    assert metrics[metric] != others[metric]
    if name != "validate_every":
        assert metrics["loss"] == others["loss"]


def test_those_are_all_options_that_say_what_is_computed():
    """But for the names of columns."""
    named = set(seh_frag.Settings.model_fields) - set(free_fields(seh_frag.Settings))
    assert TRAINING.keys() | EVALUATION.keys() | {"mode_thresholds"} == named
