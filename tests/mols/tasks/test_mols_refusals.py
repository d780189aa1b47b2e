"""One clear sentence for whatever is wrong on the command line or with the data, exit status 2, nothing written."""

import gzip
import hashlib
import pickle
import shlex
import urllib.error
import urllib.request

import numpy as np
import pytest
import torch
from each import each
from shared_data import SHARED, needs
from small_runs import command, quicken, refused, stand_in, without_pictures
from suites import metrics_without_time

from mols.rewards import downloads as files
from mols.rewards.seh.proxy import WEIGHTS_FILE
from mols.tasks import seh_frag

TEST_SET = "seh_test_set.csv"


def refused_at_once(argv, message, tmp_path, monkeypatch, capsys):
    def started(*_, **__):
        raise AssertionError("a task is being made")  # not for hours

    monkeypatch.setattr(seh_frag, "make_task", started)
    monkeypatch.chdir(tmp_path)
    refused(argv, message, tmp_path, capsys)


BAD = [
    ("--learning_rate 1", "unknown argument --learning_rate"),
    ("--batch 1", "unknown argument --batch"),  # an abbreviation
    ("--log_z 1", "unknown argument --log_z"),
    ("stray", "unknown argument stray"),
    ("--tensorboard maybe", "--tensorboard is 'maybe': input should be"),
    ("--no-not_dueling=true", "explicit argument 'true'"),
    ("--lr", "expected one argument"),
    ("--algo", "expected one argument"),
    ("--algo ppo", "--algo is 'ppo': input should be"),
    ("--algo munchausen_dqn", "input should be"),
    ("--backward_approach tml", "input should be"),
    ("--proxy mine", "--proxy is 'mine': input should be"),
    ("--test_set qm9", "input should be"),
    ("--ap cosine", "input should be"),
    ("--device tpu", "input should be"),
    ("--kernels numba", "input should be"),
    ("--kernels compiled --device cuda", "--kernels is 'compiled', which a GPU cannot run: use auto or torch"),
    ("--if_exists maybe", "input should be"),
    ("--lr abc", "--lr is 'abc': input should be"),
    ("--lr nan", "--lr is 'nan': input should be"),
    ("--lr inf", "input should be"),
    ("--lr -1", "input should be"),
    ("--lr 0", "--lr is '0'"),
    ("--lrd 0", "--lrd is '0': input should be"),
    ("--blr -0.5", "--blr is '-0.5'"),
    ("--blrd nan", "input should be"),
    ("--log_z_lr 0", "input should be"),
    ("--log_z_lrd 0", "input should be"),
    ("--temp nan", "input should be"),
    ("--temp 0", "input should be"),
    ("--target_decay 1", "input should be"),
    ("--target_decay nan", "input should be"),
    ("--rp 1.1", "input should be"),
    ("--rp nan", "input should be"),
    ("--aexp 0.1", "--aexp has no effect with --ap linear: leave it out, or take --ap exp"),
    ("--ap none --aexp 0.1", "--aexp has no effect with --ap none"),
    ("--ap exp --aexp 0", "input should be"),
    ("--ap exp --aexp 1.5", "input should be"),
    ("--weight_decay -1", "input should be"),
    ("--gradient_clipping -1", "input should be"),
    ("--gradient_clipping nan", "input should be"),
    ("--batch_size 1.5", "input should be"),
    ("--batch_size 0", "input should be"),
    ("--n x", "input should be"),
    ("--n 0", "input should be"),
    ("--seed 0", "--seed is '0'"),
    ("--threads 0", "input should be"),
    ("--workers -1", "input should be"),
    ("--validate_every 0", "input should be"),
    ("--checkpoint_every 0", "input should be"),
    ("--corr_every -1", "input should be"),
    ("--corr_rounds 0", "input should be"),
    ("--corr_molecules -1", "input should be"),
    ("--max_fragments 0", "input should be"),
    ("--max_fragments 33", "input should be"),
    ("--width 0", "input should be"),
    ("--n_layers 0", "input should be"),
    ("--n_heads 0", "input should be"),
    ("--output_dir=", "input should be a folder's name"),
    ("--algo dqn --m_alpha 1", "input should be"),
    ("--algo dqn --m_l0 0", "input should be"),
    ("--algo dqn --m_l0 nan", "input should be"),
    ("--algo dqn --m_l0=-inf", "--m_l0 is '-inf'"),
    ("--algo dqn --leaf_coeff 0", "input should be"),
    ("--algo subtb --subtb_lambda 0", "input should be"),
    ("--algo db --log_z_lr 0.1", "--log_z_lr has no effect with --algo db: leave it out"),
    ("--algo dqn --log_z_lrd 10", "--log_z_lrd has no effect with --algo dqn"),
    ("--algo db --subtb_lambda 0.5", "no effect with --algo db"),
    ("--algo tb --m_alpha 0.1", "--m_alpha has no effect with --algo tb: leave it out"),
    ("--m_l0 -10", "no effect with --algo tb"),
    ("--algo dqn --m_l0 -1e1", "write a value that starts with - as --option=-1"),
    ("--backward_approach uniform --blr 0.1", "--blr has no effect with --backward_approach uniform: leave it out"),
    ("--backward_approach pessimistic --blrd 10", "--blrd has no effect with --backward_approach pessimistic"),
    ("--backward_approach uniform --rand_pb_init", "no effect with --backward_approach uniform"),
    ("--leaf_coeff 10", "no effect with --algo tb"),
    ("--algo db --q_target_decay 0.5", "--q_target_decay has no effect with --algo db: leave it out"),
    ("--algo dqn --q_target_decay 1", "input should be"),
    (
        "--backward_approach pessimistic --no_sampling_model --target_decay 0.5",
        "--target_decay has no effect with --no_sampling_model and --backward_approach pessimistic: leave it out",
    ),
    ("--algo subtb --not_dueling", "--not_dueling has no effect with --algo subtb"),
    ("--algo soft_dqn --m_alpha 0.2", "--m_alpha has no effect with --algo soft_dqn: leave it out"),
    ("--algo soft_dqn --m_l0=-3", "--m_l0 has no effect with --algo soft_dqn: leave it out"),
    ("--algo dqn --m_alpha 0 --m_l0=-3", "--m_l0 has no effect with --m_alpha 0: leave it out"),
    ("--rp 0 --ap exp", "--ap has no effect with --rp 0: leave it out"),
    ("--reward qed --reward_changed", "--reward_changed has no effect with --if_exists refuse: leave it out"),
]


@each("line,message", BAD)
def test_bad_values_and_combinations_get_one_sentence(line, message, tmp_path, monkeypatch, capsys):
    refused_at_once(shlex.split(line), message, tmp_path, monkeypatch, capsys)


@pytest.mark.parametrize("argv", [["--seed", "1" + 400 * "0"], ["two\nlines"]], ids=["a huge number", "two lines"])
def test_odd_text_gets_one_sentence_too(argv, tmp_path, monkeypatch, capsys):
    refused_at_once(argv, "", tmp_path, monkeypatch, capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_is_refused(tmp_path, monkeypatch, capsys):
    refused_at_once(["--device", "cuda"], "no usable GPU", tmp_path, monkeypatch, capsys)


@pytest.fixture
def no_data(tmp_path, monkeypatch):
    """A machine that has no data and no network; the cache's folder."""

    def unreachable(*_, **__):
        raise urllib.error.URLError("Network is unreachable")

    monkeypatch.setattr(urllib.request, "urlopen", unreachable)
    monkeypatch.delenv("GFLOWNET_TLM_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache = tmp_path / "cache" / "gflownet-tlm"
    cache.mkdir(parents=True)
    return cache


def put(folder, name, content):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)


def test_without_a_network_it_says_where_to_put_the_weights(no_data, tmp_path, capsys):
    argv = command("tb", tmp_path / "runs", "--proxy", "original")
    refused(argv, f" into {no_data} (", tmp_path, capsys)
    refused(argv, f"put {WEIGHTS_FILE} there, or into a folder that --data_dir names", tmp_path, capsys)


def test_a_data_folder_that_is_not_there(no_data, tmp_path, monkeypatch, capsys):
    missing = str(tmp_path / "none")
    argv = command("tb", tmp_path / "runs")
    refused([*argv, "--data_dir", missing], f"--data_dir is {missing!r}, which is not a folder", tmp_path, capsys)
    monkeypatch.setenv("GFLOWNET_TLM_DATA", missing)
    refused(argv, f"GFLOWNET_TLM_DATA is {missing!r}, which is not a folder", tmp_path, capsys)


def test_a_data_folder_without_the_weights(no_data, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    argv = command("tb", tmp_path / "runs", "--data_dir", str(tmp_path / "data"))
    refused(argv, f"{WEIGHTS_FILE} is not in {tmp_path / 'data'}: put it there", tmp_path, capsys)


@pytest.mark.parametrize("place", ["data", "cache/gflownet-tlm"])
def test_weights_of_another_hash(place, no_data, tmp_path, capsys):
    put(tmp_path / place, WEIGHTS_FILE, b"damaged")
    argv = command("tb", tmp_path / "runs", *(["--data_dir", str(tmp_path / "data")] if place == "data" else []))
    refused(argv, f"{WEIGHTS_FILE} is damaged or another file (its sha256 is ", tmp_path, capsys)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([np.zeros((3, 4))] * 22, "the weights of another network"),
        ([np.zeros((64, 71))], "the weights of another network"),
        (eval, "it names builtins.eval"),
        ({"weight": 1.0}, "not a list of finite arrays"),
    ],
    ids=["shapes", "number", "a program", "no arrays"],
)
def test_weights_of_another_network(weights, message, no_data, tmp_path, monkeypatch, capsys):
    content = gzip.compress(pickle.dumps(weights))
    published = files.FILES[WEIGHTS_FILE]
    table = {WEIGHTS_FILE: published._replace(sha256=hashlib.sha256(content).hexdigest())}
    monkeypatch.setattr(files, "FILES", table)
    put(tmp_path / "data", WEIGHTS_FILE, content)
    argv = command("tb", tmp_path / "runs", "--data_dir", str(tmp_path / "data"))
    refused(argv, message, tmp_path, capsys)


def test_a_test_set_that_is_not_there_or_another_one(no_data, tmp_path, monkeypatch, capsys):
    stand_in(monkeypatch)
    argv = command("tb", tmp_path / "runs", "--test_set", "original")
    refused(argv, f"{TEST_SET} is not in {no_data}: put it there, or use --test_set generated", tmp_path, capsys)
    put(no_data, TEST_SET, b"smiles\nCC\n")
    refused(argv, f"{TEST_SET} is damaged or another file (its sha256 is ", tmp_path, capsys)


@pytest.fixture
def test_set(monkeypatch):
    """``test_set(SMILES, ...)`` makes these the generated test set."""
    stand_in(monkeypatch)
    without_pictures(monkeypatch)

    def new(*smiles):
        monkeypatch.setattr("mols.molecules.reference_set.generated_test_set", lambda *_: list(smiles))

    return new


CUT, NOT_CUT = ["c1ccccc1-c1ccccc1", "c1ccncc1-c1ccccc1", "C1CCNCC1"], ["[Na+].[Cl-]", "no SMILES", "[Xe]"]


@pytest.mark.parametrize("smiles", [[], NOT_CUT, [*NOT_CUT, CUT[0]]], ids=["empty", "none", "one"])
def test_a_test_set_of_which_too_few_can_be_cut(smiles, test_set, tmp_path, capsys):
    test_set(*smiles)
    message = f"{len(smiles) // 4} molecules of the test set can be built: raise --corr_molecules or --max_fragments"
    refused(command("tb", tmp_path / "runs", "--corr_molecules", "0"), message, tmp_path, capsys)


def test_molecules_that_cannot_be_cut_are_left_out_and_counted(test_set, tmp_path, monkeypatch, capsys):
    test_set(NOT_CUT[0], CUT[0], NOT_CUT[1], *CUT[1:], NOT_CUT[2])
    seen = []
    monkeypatch.setattr("mols.common.algorithm.train", lambda agent, *_, **__: seen.append(agent.task.test_states))
    for number, (n_cut, n_all) in {"0": (3, 6), "4": (2, 4)}.items():
        assert seh_frag.main(command("tb", tmp_path / number, "--corr_molecules", number)) == 0
        assert f"test set: {n_cut} of {n_all} molecules can be built" in capsys.readouterr().out
        assert len(seen[-1].fragment) == n_cut


def test_nothing_is_said_of_a_test_set_that_can_be_cut(test_set, tmp_path, monkeypatch, capsys):
    test_set(*CUT)
    monkeypatch.setattr("mols.common.algorithm.train", lambda *_, **__: None)
    assert seh_frag.main(command("tb", tmp_path)) == 0
    assert "test set" not in capsys.readouterr().out


def test_single_fragments_are_too_few_for_a_generated_test_set(no_data, tmp_path, monkeypatch, capsys):
    """There are 72 of them: what is said has to be something that the user can do."""
    stand_in(monkeypatch)
    without_pictures(monkeypatch)
    refused(command("tb", tmp_path / "runs", "--max_fragments", "1"), "--max_fragments", tmp_path, capsys)


@needs(TEST_SET)
def test_the_published_test_set(tmp_path, monkeypatch):
    quicken(monkeypatch)
    without_pictures(monkeypatch)
    monkeypatch.setenv("GFLOWNET_TLM_DATA", str(SHARED))
    argv = command("tb", tmp_path, "--test_set", "original", "--max_fragments", "8", "--corr_molecules", "20")
    assert seh_frag.main([*argv, "--n", "1"]) == 0
    assert metrics_without_time(tmp_path)["reward_correlation"] != "[nan]"
