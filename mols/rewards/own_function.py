"""A function that the user names, ``--reward package.module:function``, with the source that it comes from.

The module is imported as Python does it, from the current folder or from what is installed.
"""

import ast
import hashlib
import importlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from mols.common.terminal import ExperimentError
from mols.rewards.own_state import OwnState

BUILT_IN = {"qed": "mols.rewards.example:qed"}
INSTALLED = ("site-packages", "dist-packages")  # folders of packages
_STATES: WeakKeyDictionary[ModuleType, OwnState] = WeakKeyDictionary()


class OwnFunction(NamedTuple):
    """A function that the user named.

    Attributes:
        name: as it was named.
        call: the function.
        source: the first 12 hexadecimal digits of the sha256 of its module's source, and of the sources of what that
            imports from its own folder; empty where there is none.
        state: what the module has set for the whole process.
    """

    name: str
    call: Callable[[list[str]], Any]
    source: str
    state: OwnState


def load_function(name: str) -> OwnFunction:
    """The function that ``--reward`` names.

    Args:
        name: package.module:function, or a built-in one.

    Raises:
        ExperimentError: there is none, or it is no function.
    """
    module_name, colon, attribute = BUILT_IN.get(name, name).partition(":")
    if not (module_name and colon and attribute):
        built_in = ", ".join(BUILT_IN)
        raise ExperimentError(f"--reward is {name!r}: name a function as package.module:function, or {built_in}")
    state = OwnState()
    try:
        with state.applied():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ExperimentError(f"--reward {name}: {module_name} needs {error.name}: install it") from error
        raise ExperimentError(
            f"--reward {name}: there is no module {error.name}: start in the folder that has it, or install it"
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever the user's module does, sys.exit too
        raise ExperimentError(f"--reward {name}: importing {module_name} fails ({said(error)}): correct it") from error
    if not callable(call := getattr(module, attribute, None)):
        what = "is no function" if hasattr(module, attribute) else "is not there"
        raise ExperimentError(f"--reward {name}: {attribute} {what} in {module_name}: name a function of it")
    return OwnFunction(name, call, source_hash(module), _STATES.setdefault(module, state))


def said(error: BaseException) -> str:
    """Type and message of an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")[:300]


def source_hash(module: ModuleType) -> str:
    """What ``OwnFunction.source`` says."""
    path = Path(getattr(module, "__file__", None) or "")
    if path.suffix != ".py":  # compiled, or not from a file
        return ""
    root = path.parents[module.__name__.count(".") + (path.name == "__init__.py")]
    sources, waiting = {}, [(module.__name__, path)]
    while waiting:
        name, path = waiting.pop()
        if path in sources:
            continue
        sources[path] = _read(path)
        waiting += [
            found
            for other in _imports(sources[path], name if path.name == "__init__.py" else name.rpartition(".")[0])
            if _is_own(other, module.__name__, root)
            for found in _files(other, root)
        ]
    first, *others = sources.values()
    return hashlib.sha256(b"\0".join([first, *sorted(others)])).hexdigest()[:12] if first else ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # in an archive, or gone
        return b""


def _imports(source: bytes, package: str) -> Iterator[str]:
    """Dotted names of what a module's source imports, anywhere in it; of ``from a import b``, a and a.b."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nodes = ast.walk(ast.parse(source))
    except (SyntaxError, ValueError):  # its import says more
        return
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: package.count(".") + 2 - node.level] if node.level else []
            base = ".".join(filter(None, [*above, node.module]))
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _is_own(name: str, reward: str, root: Path) -> bool:
    """Whether a module that lies where the reward's does is the user's: not installed, nor of this program."""
    top = name.partition(".")[0]
    return top == reward.partition(".")[0] or not (root.name in INSTALLED or top in ("", __name__.partition(".")[0]))


def _files(name: str, root: Path) -> Iterator[tuple[str, Path]]:
    """Module and file of all that the import of a dotted name reads below a folder."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        place = root.joinpath(*parts[:end])
        for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if path.is_file():
                yield ".".join(parts[:end]), path
                break
