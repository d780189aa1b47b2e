"""Both environments are what ``Environment`` says, and know nothing of each other."""

import inspect
from pathlib import Path

import pytest

from mols.environments import base
from mols.environments.atoms import AtomEnvironment
from mols.environments.base import Environment
from mols.environments.fragments import FragmentEnvironment


@pytest.mark.parametrize("environment", [AtomEnvironment(max_atoms=2), FragmentEnvironment(max_fragments=2)])
def test_an_environment_has_all_that_the_protocol_names(environment):
    states = environment.initial_states(1)
    assert all(tensor.shape[0] == 1 for tensor in states) and states[0].shape[1] == environment.n_slots
    for name, wanted in inspect.getmembers(Environment, inspect.isfunction):
        if not name.startswith("_"):
            found = getattr(type(environment), name)
            assert list(inspect.signature(found).parameters) == list(inspect.signature(wanted).parameters), name
    assert [name for name in Environment.__annotations__ if not hasattr(environment, name)] == []


def test_neither_environment_reads_the_other():
    folder = Path(base.__file__).parent
    assert "fragments import" not in "".join(path.read_text() for path in folder.glob("atom*.py"))
    assert "import Atom" not in (folder / "fragments.py").read_text()
