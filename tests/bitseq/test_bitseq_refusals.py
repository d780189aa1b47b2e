"""One clear sentence for whatever is wrong on the command line, exit status 2, and nothing written."""

import shlex

import pytest
import torch
from each import each
from suites import refused

from bitseq.common import algorithm
from bitseq.run import main


def refused_at_once(argv, message, tmp_path, monkeypatch, capsys):
    def started(*_, **__):
        raise AssertionError("training has started")  # not for hours

    monkeypatch.setattr(algorithm, "train", started)
    monkeypatch.chdir(tmp_path)
    refused(main, argv, message, tmp_path, capsys)


BAD = [
    ("--learning_rat 1", "unknown argument --learning_rat"),
    ("--learning 1", "unknown argument --learning"),  # an abbreviation
    ("--log_z 1", "unknown argument --log_z"),
    ("stray", "unknown argument stray"),
    ("--tensorboard maybe", "--tensorboard is 'maybe': input should be"),
    ("--no-tensorboard=true", "explicit argument 'true'"),
    ("--no_tensorboard true", "unknown argument true"),
    ("--learning_rate", "expected one argument"),
    ("--output_dir -mine", "write a value that starts with - as --option=-1"),
    ("--objective", "expected one argument"),
    ("--objective ppo", "--objective is 'ppo': input should be"),
    ("--backward_approach tml", "input should be"),
    ("--update_order both", "input should be"),
    ("--device tpu", "input should be"),
    ("--if_exists maybe", "input should be"),
    ("--learning_rate abc", "--learning_rate is 'abc': input should be"),
    ("--learning_rate nan", "--learning_rate is 'nan': input should be"),
    ("--learning_rate inf", "input should be"),
    ("--learning_rate -1", "input should be"),
    ("--lr 0", "--learning_rate is '0'"),
    ("--blr -0.5", "--backward_learning_rate is '-0.5'"),
    ("--reward_exponent nan", "input should be"),
    ("--dropout nan", "input should be"),
    ("--dropout 1", "input should be"),
    ("--gamma 0", "input should be"),
    ("--gamma 1.5", "input should be"),
    ("--target_decay 1", "input should be"),
    ("--rand_action_prob 1.1", "input should be"),
    ("--weight_decay -1", "input should be"),
    ("--batch_size 1.5", "input should be"),
    ("--batch_size 0", "input should be"),
    ("--num_iterations x", "input should be"),
    ("--num_iterations 0", "input should be"),
    ("--seed 0", "--seed is '0'"),
    ("--threads 0", "input should be"),
    ("--kernels numba", "input should be"),
    ("--device cpu --width 66 --n_heads 6 --kernels compiled", "--n_heads, 6, to divide 64: take torch"),
    ("--validate_every 0", "input should be"),
    ("--checkpoint_every 0", "input should be"),
    ("--corr_every -1", "input should be"),
    ("--exact_every -1", "input should be"),
    ("--mode_threshold -1", "input should be"),
    ("--width 0", "input should be"),
    ("--k 0", "input should be"),
    ("--output_dir=", "input should be a folder's name"),
    ("--objective dqn --num_iterations 50", "--start_learning is 50: lower it, or nothing is learned in 50 iterations"),
    ("--objective dqn --m_alpha 1", "input should be"),
    ("--objective dqn --m_l0 0", "input should be"),
    ("--objective dqn --m_l0 nan", "input should be"),
    ("--objective dqn --replay_batch_size 0", "input should be"),
    ("--n 120 --k 7", "--n is 120: it must be a multiple of --k, 7"),
    ("--n 12 --k 2 --M_size 1 --mode_threshold 1", "a mode's block, 8"),
    ("--n 120 --k 24", "too many actions"),
    ("--n 64 --k 32 --M_size 1", "input should be"),
    ("--n 8 --k 2 --mode_threshold 1 --M_size 6", "--M_size is 6: strings of 8 bits have at most 5 modes"),
    ("--n 8 --k 2 --M_size 5", "--mode_threshold is 30: it must be at most --n, 8"),
    ("--mode_threshold 121", "at most --n"),
    ("--width 60", "--width is 60: it must be a multiple of --n_heads, 8"),
    ("--objective db --log_z_learning_rate 0.1", "--log_z_learning_rate has no effect with --objective db"),
    ("--objective db --subtb_lambda 0.5", "no effect with --objective db"),
    ("--objective tb --m_alpha 0.1", "--m_alpha has no effect with --objective tb: leave it out"),
    ("--replay_capacity 10", "no effect with --objective tb"),
    (
        "--backward_approach uniform --blr 0.1",
        "--backward_learning_rate has no effect with --backward_approach uniform",
    ),
    ("--objective dqn --target_decay 0.5", "no effect with --objective munchausen_dqn"),
    (
        "--correlation_network online --backward_approach uniform --target_decay 0.5",
        "--target_decay has no effect with --correlation_network online and --backward_approach uniform",
    ),
    ("--correlation_network both", "input should be"),
    ("--objective soft_dqn --m_alpha 0.2", "--m_alpha has no effect with --objective soft_dqn: leave it out"),
    ("--objective soft_dqn --m_l0=-3", "--m_l0 has no effect with --objective soft_dqn: leave it out"),
    ("--objective dqn --m_alpha 0 --m_l0=-3", "--m_l0 has no effect with --m_alpha 0: leave it out"),
    (
        "--objective dqn --replay_priority_exponent 0 --replay_importance_exponent 0.5",
        "--replay_importance_exponent has no effect with --replay_priority_exponent 0: leave it out",
    ),
    (
        "--corr_every 0 --backward_approach uniform --target_decay 0.5",
        "--target_decay has no effect with --corr_every 0 and --backward_approach uniform: leave it out",
    ),
    ("--reward_exponent 710", "input should be"),
]


@each("line,message", BAD)
def test_bad_values_and_combinations_get_one_sentence(line, message, tmp_path, monkeypatch, capsys):
    refused_at_once(shlex.split(line), message, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("argv", [["--seed", "1" + 400 * "0"], ["two\nlines"]], ids=["a huge number", "two lines"])
def test_odd_text_gets_one_sentence_too(argv, tmp_path, monkeypatch, capsys):
    refused_at_once(argv, "", tmp_path, monkeypatch, capsys)


def test_a_floor_of_the_log_policy_that_is_not_finite_is_refused(tmp_path, monkeypatch, capsys):
    argv = ["--objective", "dqn", "--m_l0=-inf"]
    refused_at_once(argv, "--m_l0 is '-inf'", tmp_path, monkeypatch, capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_refused(tmp_path, monkeypatch, capsys):
    refused_at_once(["--device", "cuda"], "no usable GPU", tmp_path, monkeypatch, capsys)
