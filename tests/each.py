"""A property over a table is one test that goes over it: write ``each`` where ``pytest.mark.parametrize`` would be."""

import inspect
from collections.abc import Callable, Iterable
from functools import wraps

import pytest

from hypergrid.common.backward_loss import APPROACHES

OBJECTIVES = ("tb", "db", "subtb", "soft_dqn", "munchausen_dqn")
ALGOS = ("tb", "db", "subtb", "dqn", "soft_dqn")  # as mols calls them


def each(names: str, values: Iterable) -> Callable[[Callable], Callable]:
    """One test over all values, where a failure says of which; each has its own folder, patches and output."""
    names, values = names.replace(" ", "").split(","), list(values)
    assert values, "nothing to go over"

    def decorate(test: Callable) -> Callable:
        @wraps(test)
        def over_all(**fixtures):
            for number, value in enumerate(values):
                given = dict(zip(names, [value] if len(names) == 1 else value, strict=True))
                if "tmp_path" in fixtures:
                    given["tmp_path"] = fixtures["tmp_path"] / str(number)
                    given["tmp_path"].mkdir()
                if "capsys" in fixtures:
                    fixtures["capsys"].readouterr()
                with pytest.MonkeyPatch.context() as patch:
                    if "monkeypatch" in fixtures:
                        given["monkeypatch"] = patch
                    try:
                        test(**(fixtures | given))
                    except BaseException as error:
                        error.add_note("of " + ", ".join(f"{name} = {given[name]!r}" for name in names))
                        raise

        parameters = inspect.signature(test).parameters.values()
        over_all.__signature__ = inspect.Signature([p for p in parameters if p.name not in names])
        return over_all

    return decorate


each_objective, each_algo = each("objective", OBJECTIVES), each("algo", ALGOS)
each_approach = each("approach", APPROACHES)
