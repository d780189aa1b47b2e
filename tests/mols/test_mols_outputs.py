"""What is made of runs: the pictures and the list of modes."""

import csv
import json
import warnings

import pytest
from small_runs import command, quicken, stand_in
from suites import only_run

from mols import plots, settings
from mols.agents.table import columns
from mols.analysis.labels import COLOURS
from mols.common.run_folder import COMMON_COLUMNS, read_metrics
from mols.evaluation import MoleculeTracker, sorted_modes
from mols.tasks import seh_frag
from mols.tasks.seh_frag import THRESHOLDS

ABSENT = "not computed in this run"
PANELS = [
    {"modes_found_0.875": "r >= 0.875", "modes_found_0.9375": "r >= 0.9375", "modes_found_1": "r >= 1"},
    {"top_100_reward": "100 best so far", "mean_reward": "mean since the last row"},
    {"reward_correlation": "test set", "reward_correlation_generated": "molecules of the model"},
    {"loss": ""},
    {"pb_deviation": ""},
    {"top_100_diversity": ""},
]


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """``draw(rows, *batches, option=value, ...)``: the two figures of a run with these metrics and molecules.

    A batch is {SMILES: reward r}. A warning, as of the mean of nothing or of equal limits, is an error.
    """
    figures = []
    monkeypatch.setattr(plots.plt, "close", figures.append)

    def new(rows, *batches, **options):
        molecules = MoleculeTracker(THRESHOLDS)
        for step, batch in enumerate(batches, 1):
            molecules.push(list(batch), list(batch.values()), [0.0] * len(batch), step)
        argv = [f"--{name}={value}" for name, value in options.items()]
        config = settings.parse(argv, seh_frag.Settings)
        (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
        with (tmp_path / "metrics.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*COMMON_COLUMNS, *columns(THRESHOLDS)])
            writer.writeheader()
            writer.writerows(rows)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            plots.draw_run(tmp_path, molecules)
        for name in ("curves.png", "top_molecules.png"):
            assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
        return figures

    yield new
    monkeypatch.undo()
    plots.plt.close("all")


@pytest.fixture
def grid(monkeypatch):
    """What the picture of the best molecules shows: SMILES and legends, in this order."""
    shown, make = [], plots.Draw.MolsToGridImage

    def record(molecules, **options):
        shown.extend(zip(map(plots.Chem.MolToSmiles, molecules), options["legends"], strict=True))
        return make(molecules, **options)

    monkeypatch.setattr(plots.Draw, "MolsToGridImage", record)
    return shown


def row(step, **values):
    metrics = {name: 0.25 for panel in PANELS for name in panel if not name.startswith("reward_correlation")}
    return {"step": step, "trajectories": 256 * step, "wall_s": 1.0} | metrics | {"loss": 2.0 / step} | values


def test_the_curves_are_the_metrics(draw):
    names = [name for panel in PANELS for name in panel]
    rows = [row(step, **{name: 0.5 + 1 / (step + i) for i, name in enumerate(names)}) for step in (10, 20, 30)]
    del rows[1]["reward_correlation"], rows[1]["reward_correlation_generated"], rows[0]["reward_correlation"]
    figure = draw(rows, backward_approach="pessimistic", algo="dqn", lr=0.002, seed=4, proxy="surrogate")[0]
    for axis, panel in zip(figure.axes, PANELS, strict=True):
        assert len(axis.lines) == len(panel)
        assert len({line.get_linestyle() for line in axis.lines}) == len(panel)
        for line, (name, label) in zip(axis.lines, panel.items(), strict=True):
            known = [r for r in rows if name in r]
            assert [list(v) for v in line.get_data()] == [[r["step"] for r in known], [r[name] for r in known]]
            assert line.get_color() == COLOURS["pessimistic"] and (line.get_label() == label or not label)
        assert axis.get_xlabel() == "iterations" and axis.get_ylabel() and not axis.texts
        assert (axis.get_legend() is not None) == (len(panel) > 1)
        assert axis.get_yscale() == ("log" if "loss" in panel else "linear")
    for part in ("seh_frag, surrogate proxy", "dqn", "pessimistic", "0.002", "seed 4"):
        assert part in figure.get_suptitle()


def test_without_correlations_and_losses_they_are_said_to_be_absent(draw):
    rows = [{name: value for name, value in row(step).items() if name != "loss"} for step in (10, 20)]
    for axis, panel in zip(draw(rows)[0].axes, PANELS, strict=True):
        is_absent = panel.keys() <= {"loss", "reward_correlation", "reward_correlation_generated"}
        assert [text.get_text() for text in axis.texts] == [ABSENT] * is_absent


def test_a_loss_of_zero_is_drawn_too(draw):
    axis = draw([row(10, loss=0.0), row(20)])[0].axes[3]
    assert axis.get_yscale() == "linear" and list(axis.lines[0].get_ydata()) == [0.0, 0.1]


# Unlike one another but for the two alcohols, whose similarity is 0.85.
HEXANOL, HEPTANOL, INDOLE = "CCCCCCO", "CCCCCCCO", "c1ccc2[nH]ccc2c1"
FIRST = {HEXANOL: 0.9, "CCO": 0.5, None: 1e-4, "NCCCN": 0.88}
SECOND = {HEPTANOL: 1.125, INDOLE: 1.0, "O=S(=O)(O)O": 0.8749}


def test_the_modes_are_listed_as_found_and_drawn_best_first(draw, grid, tmp_path):
    figure = draw([row(10)], FIRST, SECOND)[1]
    lines = (tmp_path / "modes.csv").read_text().splitlines()
    assert lines == ["smiles,reward,step", f"{HEXANOL},0.9,1", "NCCCN,0.88,1", f"{INDOLE},1.0,2"]
    assert grid == [(HEPTANOL, "r = 1.125"), (INDOLE, "r = 1.000"), ("NCCCN", "r = 0.880")]
    assert figure.get_suptitle().endswith("best modes, Tanimoto similarity below 0.7")
    assert len(figure.axes[0].images) == 1


def test_twenty_modes_are_drawn(draw, grid):
    """Chains of different atoms, the worst first."""
    unlike = [f"{first}{second}" for first in "FNOSPBCI" for second in "NOSPBC" if first < second]
    rewards = {smiles: 0.875 + i / 100 for i, smiles in enumerate(unlike)}
    molecules = MoleculeTracker(THRESHOLDS)
    molecules.push(list(rewards), list(rewards.values()), [0.0] * len(rewards), 1)
    best = sorted_modes(list(molecules.candidates.values()), 0.875)
    assert len(best) > 20
    draw([row(10)], rewards)
    assert [legend for _, legend in grid] == [f"r = {mode.reward:.3f}" for mode in best[:20]]


def test_without_modes_the_best_molecules_are_drawn(draw, grid, tmp_path):
    figure = draw([row(10)], {"CCO": 0.25, HEXANOL: 0.75, None: 1e-4, HEPTANOL: 0.5})[1]
    assert grid == [(HEXANOL, "r = 0.750"), (HEPTANOL, "r = 0.500"), ("CCO", "r = 0.250")]
    assert figure.get_suptitle().endswith("best molecules (no modes yet)")
    assert (tmp_path / "modes.csv").read_text().splitlines() == ["smiles,reward,step"]


def test_a_run_without_a_valid_molecule_has_its_pictures_too(draw, grid):
    figure = draw([row(10)], {None: 1e-4})[1]
    assert grid == [] and len(figure.axes[0].images) == 0


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_list_of_modes_agrees_with_the_metrics(tmp_path, monkeypatch):
    quicken(monkeypatch)
    stand_in(monkeypatch)
    for picture in ("_draw_curves", "_draw_molecules"):
        monkeypatch.setattr(plots, picture, lambda *_: None)
    assert seh_frag.main(command("tb", tmp_path)) == 0
    modes, metrics = rows_of(only_run(tmp_path) / "modes.csv"), read_metrics(only_run(tmp_path))
    assert 0 < len(modes) == metrics["modes_found_0.875"][-1]
    assert sum(int(mode["step"]) <= 2 for mode in modes) == metrics["modes_found_0.875"][0]
    for threshold in ("0.875", "0.9375", "1"):
        assert metrics[f"modes_found_{threshold}"][-1] >= sum(
            float(mode["reward"]) >= float(threshold) for mode in modes
        )
