"""Loads an object from a file of the user's, named `FILE.py:NAME`.

Such a file runs as soon as it is loaded, with all rights of the user. It is loaded only when
the user named it: `check_allowed` refuses names that a config file brought along.
"""

import contextlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from lowmem_rl.errors import ConfigError, LowMemError, TaskError, near_names

COMMAND_LINE = ("--task", "--reward", "--set")
LONGEST_TOLD = 300
"""Characters of a foreign error."""


def is_user_code(name: str) -> bool:
    """True for `FILE.py:NAME`."""
    path, colon, attribute = name.rpartition(":")
    return bool(colon and attribute) and path.endswith(".py")


def refuse_bare_file(name: str, kind: str) -> None:
    """Raises `ConfigError` for `FILE.py` without the name of what is meant in it."""
    if name.endswith(".py"):
        raise ConfigError(f"{name} is a file: which {kind} of it is meant?", hint=f"Give it as {name}:NAME.")


def check_allowed(origins: Mapping[str, str], *, allow_code: bool) -> None:
    """Raises `ConfigError` for code that a file names, unless the user allowed it. `origins` are by name."""
    for name, origin in origins.items():
        if is_user_code(name) and origin not in COMMAND_LINE and not allow_code:
            raise ConfigError(
                f"{origin} names code to run: {name!r}.",
                hint="Read that file, then repeat the command with --allow-code.",
            )


def load_object(name: str, *, kind: str) -> Any:
    """Returns the object `FILE.py:NAME`. Raises `TaskError` where file or object are missing or importing fails."""
    path, _, attribute = name.rpartition(":")
    module = _load_module(Path(path), kind)
    if not hasattr(module, attribute):
        public = [n for n in vars(module) if not n.startswith("_")]
        raise TaskError(f"{path} has no {kind} named {attribute!r}.", hint=near_names(attribute, public))
    return getattr(module, attribute)


def _load_module(path: Path, kind: str) -> ModuleType:
    if not path.is_file():
        raise TaskError(f"There is no file {path}, named as a {kind}.", hint="Give it as FILE.py:NAME, from here.")
    spec = spec_from_file_location(f"lowmem_rl_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} is no Python module.", hint="Give it as FILE.py:NAME.")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up there
    try:
        with _neighbours_importable(path):
            spec.loader.exec_module(module)
    except LowMemError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit(0) there would end the command as if all were well
        raise TaskError(f"{path} does not import: {_where(error, path)}", hint="Run it by itself first.") from error
    return module


@contextlib.contextmanager
def _neighbours_importable(path: Path) -> Iterator[None]:
    """Puts the file's folder first on `sys.path` while it is loaded, as `python FILE.py` does, and last thereafter.

    Last, not away: a function may import a neighbour when it is called. Not first: a `random.py` there would hide ours.
    """
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the file may have taken it out itself
            sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _where(error: BaseException, path: Path) -> str:
    """Returns the error in one line, with the line of the user's file that it left from."""
    file = path.absolute()  # as the loader names it in frames
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    line = getattr(error, "lineno", None) or (frames[-1].lineno if frames else "?")
    return f"line {line}: {in_one_line(error)}"


def in_one_line(error: BaseException) -> str:
    """Returns what a user's code raised as a part of one line: errors of parsers and of pydantic hold whole texts."""
    told = " ".join(str(error).split())
    return f"{type(error).__name__}: {told if len(told) <= LONGEST_TOLD else f'{told[:LONGEST_TOLD]}...'}"
