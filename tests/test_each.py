"""What stands for many cases stands for all of them."""

import pytest
from each import ALGOS, OBJECTIVES, each, each_approach, each_objective

import bitseq.settings
import mols.settings
from hypergrid.common.backward_loss import APPROACHES


def test_every_combination_is_visited_and_a_failure_says_which_it_is_of():
    seen = []

    @each_objective
    @each_approach
    def visit(objective, approach):
        seen.append((objective, approach))
        assert len(seen) < 25

    with pytest.raises(AssertionError) as failure:
        visit()
    assert (OBJECTIVES, ALGOS) == (bitseq.settings.OBJECTIVES, mols.settings.OBJECTIVES)
    assert seen == [(objective, approach) for objective in OBJECTIVES for approach in APPROACHES]
    assert failure.value.__notes__ == [f"of approach = {seen[-1][1]!r}", f"of objective = {seen[-1][0]!r}"]


def test_each_value_has_its_own_folder_patches_and_output(tmp_path, monkeypatch, capsys):
    @each("name, length", [("a", 1), ("b", 2)])
    def visit(name, length, tmp_path, monkeypatch, capsys):
        assert len(name * length) == length and not list(tmp_path.iterdir())
        (tmp_path / "file").touch()
        monkeypatch.setattr(pytest, "left_behind", name, raising=False)
        print(name)
        assert capsys.readouterr().out == f"{name}\n"
        print("not read")

    visit(tmp_path=tmp_path, monkeypatch=monkeypatch, capsys=capsys)
    assert not hasattr(pytest, "left_behind")


def test_a_failure_to_raise_counts_and_nothing_to_go_over_is_refused():
    @each("word", ["raises", "does not"])
    def visit(word):
        with pytest.raises(ValueError):
            float("1" if word == "does not" else word)

    with pytest.raises(pytest.fail.Exception) as failure:
        visit()
    assert failure.value.__notes__ == ["of word = 'does not'"]
    with pytest.raises(AssertionError):
        each("word", [])
