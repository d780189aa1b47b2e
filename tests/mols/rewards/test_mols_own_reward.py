"""A user's own reward: the function's call, what is wrong with one, the run that it stops, its source, its options."""

import csv
import importlib
import json
import math
import shlex
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
import torch
from each import each
from rdkit import Chem
from rdkit.Chem import QED
from same import assert_same
from small_runs import command, quicken, refused, without_pictures
from suites import checkpoint, metrics_without_time, only_run

from mols import plots, settings
from mols.agents.base import LearningAgent
from mols.common.run_folder import read_metrics
from mols.common.terminal import ExperimentError
from mols.rewards.own import OwnReward
from mols.rewards.own_function import OwnFunction, load_function
from mols.rewards.own_state import OwnState
from mols.tasks import qm9, sample, seh_frag

LENGTH = "def score(smiles):\n    return [len(text) / 50 for text in smiles]\n"
OWN = shlex.split("--proxy auto --reward mine:score")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    quicken(monkeypatch)
    without_pictures(monkeypatch)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """``module(text)``: a module ``mine`` of this text in the current folder, imported anew."""
    folder = tmp_path / "code"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # that of the text before may be taken for this one's

    def write(text):
        (folder / "mine.py").write_text(text)
        sys.modules.pop("mine", None)
        importlib.invalidate_caches()

    yield write
    sys.modules.pop("mine", None)


def molecules(*smiles):
    return [None if text is None else Chem.MolFromSmiles(text) for text in smiles]


def reward_of(function, exponent=10.0):
    return OwnReward(OwnFunction("mine:score", function, "", OwnState()), exponent=exponent)


# What the function gets and what becomes of its values


CONTAINERS = {
    "list": list,
    "tuple": tuple,
    "array": np.array,
    "tensor": torch.tensor,
    "float16": lambda v: np.array(v, np.float16),
    "longdouble": lambda v: np.array(v, np.longdouble),
    "bfloat16": lambda v: torch.tensor(v, dtype=torch.bfloat16),
    "a gradient": lambda v: torch.tensor(v, requires_grad=True),
    "tensors in a list": lambda v: [torch.tensor(x, dtype=torch.bfloat16, requires_grad=True) for x in v],
    "Decimal": lambda v: list(map(Decimal, v)),
    "Fraction": lambda v: list(map(Fraction, v)),
    "objects": lambda v: np.array(v, object),
    "objects of all kinds": lambda v: [f(x) for f, x in zip((Decimal, Fraction, np.float32), v, strict=False)],
    "nothing masked": np.ma.masked_invalid,
}


@each("container", CONTAINERS)
def test_the_reward_by_hand(container):
    values = {"CCO": 0.5, "N": 0.0, "C": 3.0}
    reward = reward_of(lambda smiles: CONTAINERS[container]([values[text] for text in smiles]))
    scores = reward(molecules("OCC", "N", None, "C"))
    assert scores.reward.tolist() == [0.5, 0.0, 0.0, 3.0]
    assert scores.log_reward.tolist() == pytest.approx([10 * math.log(0.5), -75, -75, 10 * math.log(3)])
    assert scores.smiles == ["CCO", "N", None, "C"]


def test_each_distinct_molecule_is_asked_for_once_and_many_in_a_call():
    calls = []
    reward = reward_of(lambda smiles: calls.append(smiles) or [1.0] * len(smiles))
    reward(molecules("OCC", "N", None, "CCO"))
    reward(molecules("C", "N"), training=False)
    reward(molecules("C", "CCO"))
    assert calls == [["CCO", "N"], ["C"]]
    assert reward.n_evaluated == 3


def test_the_function_may_change_its_list():
    assert (
        reward_of(lambda smiles: [1.0 for _ in range(len(smiles)) if smiles.pop()])(molecules("C", "N")).reward.sum()
        == 2
    )


def boom(smiles):
    if "N" in smiles:
        raise ValueError("no\nnitrogen")
    return [1.0] * len(smiles)


class Leaving(BaseException):
    """Which `except Exception` lets pass."""


def leave():
    raise Leaving("now")


WRONG = {
    "raises": (boom, "raises ValueError: no nitrogen, for N: correct the function"),
    "drops": (lambda smiles: [1.0 for text in smiles if text != "N"], "one reward for each of 1, for N:"),
    "too few together": (lambda smiles: [1.0], "one reward for each of 3, for CCO:"),
    "NaN": (lambda smiles: [math.nan if text == "N" else 1.0 for text in smiles], "returns NaN, for N:"),
    "negative": (lambda smiles: [-(text == "N") for text in smiles], "returns a negative reward, for N:"),
    "infinite": (lambda smiles: [math.inf if text == "N" else 1 for text in smiles], "that is not finite, for N:"),
    "huge": (lambda smiles: [1e39 if text == "N" else 1.0 for text in smiles], "that is not finite, for N:"),
    "text": (lambda smiles: ["0.5"] * len(smiles), "returns no array of numbers, for CCO:"),
    "None": (lambda smiles: [None if text == "N" else 1.0 for text in smiles], "returns no array of numbers, for N:"),
    "nothing": (lambda smiles: None, "returns no array of numbers, for CCO:"),
    "ragged": (lambda smiles: [[1.0], [1.0, 2.0]], "returns no array of numbers, for CCO:"),
    "columns": (lambda smiles: np.ones((len(smiles), 1)), "of shape (1, 1)"),
    "complex": (lambda smiles: np.ones(len(smiles), complex), "returns no array of numbers"),
    "complex objects": (lambda smiles: np.array([1j] * len(smiles), object), "returns no array of numbers"),
    "text objects": (lambda smiles: np.array(["0.5"] * len(smiles), object), "returns no array of numbers"),
    "a generator": (lambda smiles: (1.0 for _ in smiles), "returns no array of numbers, for CCO:"),
    "masked": (lambda smiles: np.ma.masked_equal([len(s) for s in smiles], 3), "with masked entries, for CCO:"),
    "a large integer": (lambda smiles: [10**400 if s == "N" else 1 for s in smiles], "that is not finite, for N:"),
    "a small integer": (lambda smiles: [-(10**400) if s == "N" else 1 for s in smiles], "a negative reward, for N:"),
    "NaN of Decimal": (lambda smiles: [Decimal("NaN" if s == "N" else 1) for s in smiles], "returns NaN, for N:"),
    "an exit": (lambda smiles: sys.exit(), "raises SystemExit, for CCO: correct the function"),
    "an exit with 0": (lambda smiles: sys.exit(0), "raises SystemExit: 0, for CCO:"),
    "an exit of its own": (lambda smiles: leave(), "raises Leaving: now, for CCO:"),
    "its arguments": (lambda: [1.0], "raises TypeError:"),
}


@each("case", WRONG)
def test_what_is_no_reward_names_the_molecule(case):
    function, message = WRONG[case]
    with pytest.raises(ExperimentError) as error:
        reward_of(function)(molecules("CCO", "N", "C"))
    assert message in str(error.value) and "\n" not in str(error.value)
    assert str(error.value).startswith("--reward mine:score ")


@pytest.mark.parametrize("number", [2**63, 2**64, 10**30, Fraction(2**70)])
def test_large_integers(number):
    assert reward_of(lambda smiles: [number])(molecules("CCO")).reward.tolist() == [float(number)]


class Odd:
    """An object whose conversion fails."""

    def __array__(self, *arguments, **options):
        raise KeyError("odd")


def test_an_object_that_will_not_be_an_array():
    with pytest.raises(ExperimentError, match="returns no array of numbers"):
        reward_of(lambda smiles: Odd())(molecules("CCO"))


def test_an_interruption_is_one():
    def interrupted(smiles):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reward_of(interrupted)(molecules("CCO"))


# Decimal numbers


@each("dtype", [np.float64, np.float32, np.float16, torch.float64, torch.float32])
def test_a_decimal_number_is_met_from_exactly_its_value_on(dtype):
    """0.7 in float32 is 0.69999998807907104: neither it nor a larger threshold is met by another number."""
    values = {"CCO": 0.7, "N": math.nextafter(0.7, 0) if dtype in (np.float64, torch.float64) else 0.699}
    make = torch.tensor if isinstance(dtype, torch.dtype) else np.array
    scores = reward_of(lambda smiles: make([values[text] for text in smiles], dtype=dtype))(molecules("CCO", "N"))
    assert scores.reward.dtype == torch.float64 and scores.log_reward.dtype == torch.float32
    assert [r >= 0.7 for r in scores.reward.tolist()] == [True, False]
    assert scores.log_reward.tolist()[0] == pytest.approx(10 * math.log(0.7))


def test_qed_is_built_in():
    smiles = ["CCO", "c1ccccc1C(=O)O"]
    expected = [QED.qed(Chem.MolFromSmiles(text)) for text in smiles]
    assert OwnReward.load("qed")(molecules(*smiles)).reward.tolist() == pytest.approx(expected)
    assert load_function("qed").source


# Names


@each(
    "name,text,message",
    [
        ("nonsense", "", "is 'nonsense': name a function as package.module:function, or qed"),
        (":score", "", "name a function as package.module:function"),
        ("mine:", "", "name a function as package.module:function"),
        ("nowhere:score", "", "there is no module nowhere: start in the folder that has it, or install it"),
        ("mine.sub:score", "", "there is no module mine.sub"),
        ("mine:other", LENGTH, "other is not there in mine: name a function of it"),
        ("mine:score", "score = 3", "score is no function in mine"),
        ("mine:score", "def score(:", "importing mine fails (SyntaxError: "),
        ("mine:score", "1 / 0", "importing mine fails (ZeroDivisionError: division by zero): correct it"),
        ("mine:score", "import sys; sys.exit()", "importing mine fails (SystemExit): correct it"),
        ("mine:score", "import sys; sys.exit(0)", "importing mine fails (SystemExit: 0): correct it"),
        ("mine:score", "raise GeneratorExit", "importing mine fails (GeneratorExit): correct it"),
        ("mine:score", "import no_such_thing.at_all", "mine needs no_such_thing: install it"),
    ],
)
@each("task", [seh_frag, qm9])
def test_a_function_that_is_not_to_be_had_is_said_before_anything_is_made(
    name, text, message, task, module, tmp_path, capsys
):
    module(text)
    argv = ["--reward", name, "--output_dir", str(tmp_path / "runs"), "--corr_every", "0"]
    refused(argv, message, tmp_path, capsys, task)


@each(
    "line,message",
    [
        ("--reward qed --proxy original", "--proxy has no effect with --reward qed: leave it out"),
        ("--reward qed --proxy surrogate", "--proxy has no effect with --reward qed"),
        ("--reward qed --workers 2", "--workers has no effect with --reward qed"),
        ("--reward_changed", "--reward_changed has no effect without --reward"),
        (
            "--mode_thresholds 1",
            "--mode_thresholds is '1': input should be",
        ),
        ("--mode_thresholds 1,2,2", "three rising numbers"),
        ("--mode_thresholds 0,1,2", "three rising numbers"),
        ("--mode_thresholds 1,2,inf", "three rising numbers"),
        ("--mode_thresholds 1,nan,3", "three rising numbers"),
        ("--mode_thresholds 1,2,3,4", "three rising numbers"),
        ("--mode_thresholds 1,1.0000001,3", "three rising numbers"),  # one name of two columns
        ("--mode_thresholds 0.1234567,1,3", "of at most six digits"),  # another number than its column's name
        ("--mode_thresholds a,b,c", "three rising numbers"),
    ],
)
def test_options_that_do_not_go_together(line, message, tmp_path, capsys):
    refused([*shlex.split(line), "--output_dir", str(tmp_path / "runs")], message, tmp_path, capsys)


def test_mxmnets_weights_mean_nothing_to_an_own_reward(tmp_path, capsys):
    argv = shlex.split("--reward qed --proxy_weights a.pt")
    refused(
        [*argv, "--output_dir", str(tmp_path)], "--proxy_weights has no effect with --reward", tmp_path, capsys, qm9
    )


@each("task", [seh_frag, qm9])
@each(
    "line,expected,folder",
    [
        ("", None, "tb-tlm"),
        ("--reward qed", "0.7,0.8,0.9", "tb-tlm-reward=qed"),
        ("--reward a.b:c --mode_thresholds 0.70,.8,0.9", "0.7,0.8,0.9", "tb-tlm-reward=a.b.c"),
        ("--reward qed --mode_thresholds 1,2,3", "1,2,3", "tb-tlm-reward=qed-mode_thresholds=1,2,3"),
        ("--mode_thresholds 0.7,0.8,0.9", "0.7,0.8,0.9", "tb-tlm-mode_thresholds=0.7,0.8,0.9"),
    ],
)
def test_configuration_and_folder(line, expected, folder, task):
    config = settings.parse(shlex.split(line), task.Settings)
    assert config.get("mode_thresholds") == expected
    assert ("reward" in config) == ("--reward" in line) == (config.proxy == "")
    assert settings.run_directory(config, task.Settings).parent.name == folder
    numbers = tuple(map(float, expected.split(","))) if expected else task.THRESHOLDS
    assert settings.thresholds(config, task.THRESHOLDS) == numbers


# Runs


def small(folder, *extra):
    return command("tb", folder, *OWN, *extra)


def test_a_run_with_an_own_reward(module, tmp_path):
    module(LENGTH)
    assert seh_frag.main(small(tmp_path, "--corr_every=0", "--mode_thresholds=0.1,0.2,0.3")) == 0
    run = only_run(tmp_path)
    config, metrics = json.loads((run / "config.json").read_text()), read_metrics(run)
    assert config.items() >= {"reward": "mine:score", "proxy": "", "mode_thresholds": "0.1,0.2,0.3"}.items()
    assert len(config["reward_source"]) == 12
    assert {"modes_found_0.1", "modes_sorted_0.3"} <= metrics.keys() and "modes_found_0.875" not in metrics
    state = checkpoint(tmp_path)["agent"]["reward"]
    lengths = [len(text) / 50 for text in state["smiles"].splitlines()]
    assert state["raw"].tolist() == lengths and len(lengths) == metrics["rewards_evaluated"][-1]


def test_thresholds_are_met_from_exactly_their_value_on(module, tmp_path):
    """In the order of discovery, in the sorted count, among the samples; the number below 0.7 meets none."""
    counts = {}
    for r in (0.7, math.nextafter(0.7, 0)):
        module(f"def score(smiles):\n    return [{r}] * len(smiles)\n")
        folder = tmp_path / str(r)
        assert seh_frag.main(small(folder, "--corr_every=0")) == 0
        metrics = read_metrics(only_run(folder))
        counts[r] = [metrics[f"modes_{kind}_0.7"][-1] for kind in ("found", "sorted")]
        argv = [str(only_run(folder)), "--n", "3", "--rounds", "0", "--out", str(folder / "m.csv")]
        assert sample.main(argv) == 0
        with (folder / "m.csv").open(newline="") as file:
            assert [float(row["reward"]) for row in csv.DictReader(file)] == [r] * 3
    (found, ordered), none = counts.values()
    assert found == ordered > 0 and none == [0, 0]


def test_a_run_of_atoms_with_an_own_reward(tmp_path):
    line = "--width 16 --n_layers 1 --n_heads 1 --batch_size 4 --n 2 --max_atoms 3 --corr_every 0 --device cpu"
    assert qm9.main([*shlex.split(line), "--reward", "qed", "--output_dir", str(tmp_path)]) == 0
    state = checkpoint(tmp_path)["agent"]["reward"]
    for smiles, raw in zip(state["smiles"].splitlines(), state["raw"].tolist(), strict=True):
        assert raw == pytest.approx(QED.qed(Chem.MolFromSmiles(smiles)))


def test_the_pictures_name_the_reward():
    assert plots.reward_name({"proxy": "", "reward": "mine:score"}) == "reward mine:score"
    assert plots.reward_name({"proxy": "surrogate"}) == "surrogate proxy"


def test_a_killed_run_goes_on_as_if_it_had_not_been(module, tmp_path, monkeypatch):
    module(LENGTH)
    length = ["--n=4", "--checkpoint_every=2", "--corr_every=1", "--validate_every=1"]
    assert seh_frag.main(small(tmp_path / "whole", *length)) == 0
    sample, steps = LearningAgent.sample, iter(range(3))

    def killed(agent):
        if next(steps, None) is None:
            raise SystemExit
        return sample(agent)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(LearningAgent, "sample", killed)
        seh_frag.main(small(tmp_path / "killed", *length))
    assert seh_frag.main(small(tmp_path / "killed", *length, "--if_exists=resume")) == 0
    assert metrics_without_time(tmp_path / "whole") == metrics_without_time(tmp_path / "killed")
    assert_same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "killed"))


FAILS = """
CALLS = []

def score(smiles):
    CALLS.append(smiles)
    assert len(CALLS) < 4, "broken"
    return [1.0] * len(smiles)
"""


def test_a_function_that_fails_stops_the_run_and_keeps_its_checkpoint(module, tmp_path, capsys):
    """Then it goes on with a corrected function, if one says so."""
    module(FAILS)
    argv = small(tmp_path, "--n=6", "--checkpoint_every=2", "--corr_every=0")
    assert seh_frag.main(argv) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: --reward mine:score raises AssertionError: broken, for ")
    assert error.endswith("goes on from its last checkpoint by --if_exists resume --reward_changed")
    assert checkpoint(tmp_path)["step"] == 2 and not (only_run(tmp_path) / "DONE").exists()
    assert json.loads((only_run(tmp_path) / "meta.json").read_text())["status"].startswith(
        "failed: --reward mine:score"
    )
    module(LENGTH)
    message = f"the source of --reward mine:score has changed since {only_run(tmp_path)} began: add --reward_changed"
    refused([*argv, "--if_exists=resume"], message, tmp_path, capsys)
    assert seh_frag.main([*argv, "--if_exists=resume", "--reward_changed"]) == 0
    assert (only_run(tmp_path) / "DONE").exists()
    assert seh_frag.main([*argv, "--if_exists=resume"]) == 0  # the new source is the run's


def test_another_source_is_no_matter_to_a_run_that_starts_again(module, tmp_path, capsys):
    module(LENGTH)
    assert seh_frag.main(small(tmp_path)) == 0
    module(LENGTH.replace("50", "40"))
    capsys.readouterr()
    refused(small(tmp_path), "exists: add --if_exists=resume", tmp_path, capsys)
    assert seh_frag.main(small(tmp_path, "--if_exists=overwrite")) == 0
