"""Loads an object from a Python file of the user, named `FILE.py:NAME`.

The file runs as soon as it is loaded, with all rights of the user. It is loaded only if the user named it on the
command line: `check_allowed` refuses names from a config file.
"""

import contextlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from shlex import join
from types import ModuleType
from typing import TYPE_CHECKING, Any

from lowmem_rl.errors import ConfigError, LowMemError, TaskError, near_names

if TYPE_CHECKING:
    from lowmem_rl.config.run_config import RunConfig

_COMMAND_LINE = ("--task", "--reward", "--set")
_LONGEST_ERROR = 300
"""Characters of an error from the user's code."""


def is_user_code(name: str) -> bool:
    """Returns whether `name` is `FILE.py:NAME`."""
    path, colon, attribute = name.rpartition(":")
    return bool(colon and attribute) and path.endswith(".py")


def refuse_bare_file(name: str, kind: str) -> None:
    """Raises `ConfigError` for `FILE.py` without the name of an object in it."""
    if name.endswith(".py"):
        raise ConfigError(f"{name} is a file: which {kind} of it is meant?", hint=f"Give it as {name}:NAME.")


def check_allowed(origins: Mapping[str, str], *, allow_code: bool) -> None:
    """Raises `ConfigError` for code that a file names, unless the user allowed it. `origins` are by name."""
    for name, origin in origins.items():
        if is_user_code(name) and origin not in _COMMAND_LINE and not allow_code:
            raise ConfigError(
                f"{origin} names code to run: {name!r}.",
                hint="Read that file, then repeat the command with --allow-code.",
            )


def names_code(config: "RunConfig") -> bool:
    """Returns whether a task or a reward of a run is the user's code."""
    return any(map(is_user_code, (config.task.name, *config.eval.tasks, *config.rewards)))


def resume_command(run: Path, config: "RunConfig") -> str:
    """Returns the command that continues a run: its config.json is a file that may name code."""
    allowed = ["--allow-code"] if names_code(config) else []
    return join(["lowmem-rl", "train", "--resume", *allowed, "--out", str(run)])


def load_object(name: str, *, kind: str) -> Any:
    """Returns the object `FILE.py:NAME`, or its member `FILE.py:NAME.MEMBER`.

    Raises `TaskError` if file or object are missing, or if importing fails.
    """
    path, _, attribute = name.rpartition(":")
    found: Any = _load_module(Path(path), kind)
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [n for n in dir(found) if not n.startswith("_")]
            raise TaskError(f"{path} has no {kind} named {attribute!r}.", hint=near_names(part, public))
        found = getattr(found, part)
    return found


def _load_module(path: Path, kind: str) -> ModuleType:
    if not path.is_file():
        raise TaskError(f"There is no file {path}, named as a {kind}.", hint="Give it as FILE.py:NAME, from here.")
    spec = spec_from_file_location(f"lowmem_rl_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} is not a Python module.", hint="Give it as FILE.py:NAME.")
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look their module up there
    try:
        with _neighbours_importable(path):
            spec.loader.exec_module(module)
    except LowMemError:
        raise
    except (Exception, SystemExit) as error:  # sys.exit(0) there would end the command with success
        file = path.absolute()  # the loader's name for it in frames
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
        line = getattr(error, "lineno", None) or (frames[-1].lineno if frames else "?")
        what = f"{path} does not import: line {line}: {in_one_line(error)}"
        raise TaskError(what, hint="Run it by itself first.") from error
    return module


@contextlib.contextmanager
def _neighbours_importable(path: Path) -> Iterator[None]:
    """Puts the file's folder first on `sys.path` while it is loaded, as `python FILE.py` does, and last afterwards.

    It stays on the path because a function may import a neighbour when it is called, and last because a `random.py`
    there would hide the standard library's.
    """
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # the file may have removed it itself
            sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def in_one_line(error: BaseException) -> str:
    """Returns an error of the user's code as part of one line; parsers and pydantic put whole texts into theirs."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text if len(text) <= _LONGEST_ERROR else f'{text[:_LONGEST_ERROR]}...'}"
