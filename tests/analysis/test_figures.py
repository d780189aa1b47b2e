"""What is in the panels of figure 1: the curves by hand, the floor, empty panels, who is cited."""

from dataclasses import replace

import numpy as np
import pytest
from collected_csv import grid_run, write_csv
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from hypergrid.analysis import figures, labels, tables
from hypergrid.common import backward_loss
from hypergrid.suite import FIGURES

FIGURE1, _, RATES, VARIED = FIGURES
POINTS = (1600, 3200, 4800)


@pytest.fixture
def drawn(tmp_path):
    """``drawn(rows, figure)``: its axes by title, and the picture."""
    made = []

    def draw(rows, figure=FIGURE1, varied=(), field=""):
        path = write_csv(tmp_path / "some.csv", rows, varied=varied)
        shown = figures.select_rows(figure, tables.read_results([path]), 1, field)
        made.append(figures.draw_figure(figure, shown, figures.describe_figure(figure, shown, [path], 1)))
        return {axis.get_title(): axis for axis in made[-1].axes}, made[-1]

    yield draw
    for picture in made:
        plt.close(picture)


def curves(axis, approach):
    """The thick and the thin lines of an approach, in micro units."""
    own = [line for line in axis.lines if line.get_color() == labels.COLOURS[approach]]
    thick = [line.get_ydata() * 1e6 for line in own if line.get_linewidth() > 1]
    return thick, [line.get_ydata() * 1e6 for line in own if line.get_linewidth() <= 1]


def test_every_seed_is_thin_and_their_interquartile_mean_thick(drawn):
    rows = [row for seed, ratio in enumerate((9.0, 1.0, 2.0, 4.0), 1) for row in grid_run(ratio, POINTS, seed=seed)]
    axes, _ = drawn(rows + grid_run(7.0, POINTS, approach="naive"))
    axis = axes["standard, DB"]
    (thick,), thin = curves(axis, "tlm")
    assert thick == pytest.approx([3.0] * 3)  # of 2 and 4
    assert sorted(line[0] for line in thin) == pytest.approx([1.0, 2.0, 4.0, 9.0])
    (band,) = axis.collections
    assert to_hex(band.get_facecolor()) == labels.COLOURS["tlm"].lower()
    edges = band.get_paths()[0].vertices[:, 1] * 1e6
    assert (edges.min(), edges.max()) == pytest.approx((1.0, 9.0))
    assert axis.get_yscale() == "log" and axis.lines[-1].get_ydata() == pytest.approx([1e-6] * 3)  # the floor
    (thick,), thin = curves(axis, "naive")
    assert thick == pytest.approx([7.0] * 3) and thin == []


def test_a_mean_ends_where_the_shortest_seed_does(drawn):
    axes, _ = drawn(grid_run(2.0, POINTS, seed=1) + grid_run(4.0, POINTS[:2], seed=2))
    (thick,), thin = curves(axes["standard, DB"], "tlm")
    assert thick == pytest.approx([3.0, 3.0]) and sorted(map(len, thin)) == [2, 3]


def test_panels_without_runs_say_so(drawn):
    axes, _ = drawn(grid_run(2.0) + grid_run(2.0, objective="soft_dqn", environment="hard"))
    names = ("MunchausenDQN", "DB", "TB", "SubTB", "SoftDQN")
    assert list(axes) == [f"{environment}, {name}" for environment in ("standard", "hard") for name in names]
    empty = [title for title, axis in axes.items() if [text.get_text() for text in axis.texts] == ["no data"]]
    assert len(empty) == 8 and not {"standard, DB", "hard, SoftDQN"} & set(empty)


def test_environments_of_other_sizes_alone_have_no_empty_row(drawn):
    axes, _ = drawn(grid_run(2.0, environment="small"))
    assert {title.split(",")[0] for title in axes} == {"small"}


def test_a_smaller_setting_is_called_small(drawn, monkeypatch):
    monkeypatch.setattr(figures, "SMALL", {"6x6": "standard"})
    axes, picture = drawn(grid_run(2.0, environment="6x6"))
    assert axes["standard, DB"].lines and picture.get_suptitle() == f"{FIGURE1.title}, small setting"
    axes, picture = drawn(grid_run(2.0, environment="6x6") + grid_run(2.0))
    assert axes["standard, small, DB"].lines and axes["standard, DB"].lines
    assert picture.get_suptitle() == FIGURE1.title


def test_runs_from_before_there_was_a_floor_are_drawn_without_one(drawn):
    axes, picture = drawn(grid_run(2.0), replace(FIGURE1, floor="new_floor"))
    assert len(axes["standard, DB"].lines) == 1
    assert "perfect sampler" not in [text.get_text() for text in picture.legends[0].get_texts()]


def test_the_legend_cites_every_approach_that_is_drawn(drawn):
    _, picture = drawn(grid_run(2.0) + grid_run(3.0, approach="maxent") + grid_run(3.0, approach="somebody"))
    (legend,) = picture.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == [
        "somebody",
        "maxent (Mohammadpour et al. 2024)",
        "tlm (Gritsaev et al. 2025)",
        "perfect sampler",
    ]
    caption = legend.get_title().get_text().replace("\n", " ")
    assert caption == "From some.csv; results version 1 (db); commit 0123456."
    assert [text.get_text() for text in picture.axes[1].texts] == ["1 seed"]


def test_the_legend_lies_below_all_panels(drawn):
    _, picture = drawn([row for approach in backward_loss.APPROACHES for row in grid_run(2.0, approach=approach)])
    picture.canvas.draw()
    top = picture.legends[0].get_window_extent().y1
    assert top <= min(axis.get_tightbbox().y0 for axis in picture.axes)


def test_the_chosen_learning_rate_is_shown_and_the_whole_grid_beside_it(drawn):
    rows = [
        row
        for rate, ratio in ((0.001, 4.0), (0.002, 2.0))
        for seed in (1, 2)
        for row in grid_run(ratio + seed, learning_rate=rate, seed=seed)
    ]
    axes, picture = drawn(rows)
    assert [line[0] for line in curves(axes["standard, DB"], "tlm")[0]] == pytest.approx([4.0])  # 0.002, seed 2
    caption = picture.legends[0].get_title().get_text().replace("\n", " ")
    assert "best mean log10 of l1_dist / floor on its 1 smallest seed" in caption
    axes, _ = drawn(rows, RATES)
    shown = {title: curves(axis, "tlm")[0][0][0] for title, axis in axes.items() if axis.lines}
    assert shown == pytest.approx({"standard, rate 0.001, DB": 5.5, "standard, rate 0.002, DB": 3.5})


def test_titles_of_neighbours_do_not_overlap(drawn):
    rows = [
        row
        for rate in (0.0005, 0.00025)
        for objective in ("munchausen_dqn", "db")
        for row in grid_run(2.0, objective=objective, learning_rate=rate)
    ]
    axes, picture = drawn(rows, RATES)
    picture.canvas.draw()
    assert "standard, rate 0.0005,\nMunchausenDQN" in axes
    left, right = (axes[f"standard, rate 0.0005,{name}"].title for name in ("\nMunchausenDQN", " DB"))
    assert left.get_window_extent().x1 < right.get_window_extent().x0


def test_one_learning_rate_needs_no_figure_of_all(tmp_path):
    table = tables.read_results([write_csv(tmp_path / "a.csv", grid_run(2.0))])
    assert figures.select_rows(RATES, table, 1).empty


def test_the_values_of_a_varied_field_have_lines_of_their_own(drawn):
    rows = grid_run(2.0, decay=0.999) + grid_run(4.0, decay=1.0)
    axes, picture = drawn(rows, VARIED, varied=["decay"], field="decay")
    styles = [(round(line.get_ydata()[0] * 1e6), line.get_linestyle()) for line in axes["standard, DB"].lines[:2]]
    assert styles == [(2, "-"), (4, "--")]
    labels = [text.get_text() for text in picture.legends[0].get_texts()]
    assert labels == ["tlm (Gritsaev et al. 2025)", "decay 0.999", "decay 1.0", "perfect sampler"]


def test_the_command_writes_png_and_pdf_and_makes_them_anew(tmp_path, capsys):
    path = write_csv(tmp_path / "a.csv", grid_run(2.0) + grid_run(3.0, approach="uniform", exact_total_variation=0.5))
    (tmp_path / "figure1.png").write_text("old")
    assert figures.main([str(path)]) == 0
    files = ["figure1.png", "figure1.pdf", "appendix_exact.png", "appendix_exact.pdf"]
    assert capsys.readouterr().out.split() == [str(tmp_path / name) for name in files]
    starts = {".png": b"\x89PNG", ".pdf": b"%PDF"}
    assert all((tmp_path / name).read_bytes().startswith(starts[name[-4:]]) for name in files)
    assert b"CreationDate" not in (tmp_path / "figure1.pdf").read_bytes()  # the same CSV gives the same bytes


def test_only_the_approaches_that_are_named_are_drawn(tmp_path, capsys):
    rows = [row for name in ("uniform", "maxent", "tlm") for row in grid_run(2.0, approach=name)]
    path = write_csv(tmp_path / "a.csv", rows)
    table = tables.read_results([path])
    assert set(figures.select_approaches(table, ["tlm", "uniform"])["approach"]) == {"tlm", "uniform"}
    assert len(figures.select_approaches(table, None)) == len(table)
    assert figures.main([str(path), "--approaches", "tlm", "naive"]) == 2
    assert "these files have no run of naive: choose among maxent, tlm, uniform" in capsys.readouterr().err
    assert figures.main([str(path)]) == 0
    every = (tmp_path / "figure1.png").read_bytes()
    assert figures.main([str(path), "--approaches", "tlm", "uniform"]) == 0
    assert (tmp_path / "figure1.png").read_bytes() != every


def test_the_command_refuses_what_it_cannot_draw(tmp_path, capsys):
    reference = write_csv(tmp_path / "a.csv", grid_run(2.0, approach="", learning_rate=""))
    for argv in ([str(reference)], [str(tmp_path / "none.csv")], [str(reference), "--out", str(reference)]):
        assert figures.main(argv) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: ") and err.count("\n") == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


def test_every_approach_has_a_colour_and_a_marker_of_its_own():
    assert list(labels.COLOURS) == [*backward_loss.APPROACHES, None] == list(labels.MARKERS)
    assert len(set(labels.COLOURS.values())) == len(labels.COLOURS) == len(set(labels.MARKERS.values()))


TO_LMS = np.array([[17.8824, 43.5161, 4.11935], [3.45565, 27.1554, 3.86714], [0.0299566, 0.184309, 1.46709]])
LACKING = {
    "red": np.array([[0, 2.02344, -2.52581], [0, 1, 0], [0, 0, 1]]),
    "green": np.array([[1, 0, 0], [0.494207, 0, 1.24827], [0, 0, 1]]),
}


def smallest_distance(codes, cone):
    """Between any two colours, in RGB of 0 to 1, as seen without a kind of cones (Vienot et al. 1999)."""
    linear = np.array([[int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)] for code in codes]) ** 2.2
    seen = (linear @ TO_LMS.T @ LACKING[cone].T @ np.linalg.inv(TO_LMS).T).clip(0, 1) ** (1 / 2.2)
    return (np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(len(codes))).min()


@pytest.mark.parametrize("cone", LACKING)
def test_the_colours_differ_for_the_colour_blind(cone):
    assert smallest_distance(["#9467bd", "#1f77b4"], cone) < 0.1  # purple and blue, that look alike
    assert smallest_distance([labels.COLOURS[name] for name in backward_loss.APPROACHES], cone) > 0.12
