"""Does a TRL reward function read messages or text.

TRL passes completions as lists of messages if the prompts are conversations, as all of ours are, and as text if not.
Functions are written for one of the two and do not say which. One that reads messages must look up their "content".
"""

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from inspect import Signature
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from lowmem_rl.rewards.signatures import callables_in, constants_of

_KEY = "content"
_TEXT = re.compile(r"(?:\w+\.)*(?:list|sequence|iterable|collection)\[str\]", re.IGNORECASE)


def reads_messages(function: Callable[..., Any], signature: Signature, folder: Path) -> bool:
    """Returns whether a TRL reward function is written for completions as lists of messages.

    An annotation of `completions` decides, else the key "content" in its code or in code of `folder` that it calls.
    """
    parameter = signature.parameters.get("completions")
    annotation = parameter.annotation if parameter else Signature.empty
    if annotation is not Signature.empty:
        written = annotation if isinstance(annotation, str) else str(annotation)
        if _TEXT.fullmatch(written.replace(" ", "")):
            return False
        if "dict" in written.casefold():
            return True
    return any(_KEY in constants_of(code) for code in _reached(function, folder))


def _reached(function: Any, folder: Path) -> Iterator[CodeType]:
    """Yields the code of a function and of what it calls; code outside of `folder` is not followed further."""
    todo, seen = [function], list[Any]()
    while todo:
        item = todo.pop()
        if any(item is one for one in seen):
            continue
        seen.append(item)
        todo += callables_in(item)
        if isinstance(item, FunctionType):
            yield item.__code__
            if item is function or _is_in(folder, item.__code__.co_filename):
                todo += _named_in(item.__code__, item.__globals__, folder)
        elif isinstance(item, MethodType):
            todo.append(item.__self__)
        elif isinstance(item, CodeType):
            yield item
        elif not isinstance(item, ModuleType) and _is_in(folder, _file_of(item)):
            todo += vars(item).values() if hasattr(item, "__dict__") else ()
            todo += item.__bases__ if isinstance(item, type) else [type(item)]


def _named_in(code: CodeType, names: dict[str, Any], folder: Path) -> Iterator[Any]:
    """Yields the functions, classes and objects that code refers to, also as members of a module.

    A neighbour that code imports only when it runs is read, not run.
    """
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _named_in(inner, names, folder)
    for value in [names[name] for name in code.co_names if name in names]:
        if isinstance(value, ModuleType):
            yield from (vars(value)[name] for name in code.co_names if name in vars(value))
        else:
            yield value
    for file in [folder / f"{name}.py" for name in code.co_names if name not in names]:
        if file.is_file():
            with contextlib.suppress(SyntaxError, ValueError, OSError):
                yield compile(file.read_bytes(), str(file), "exec")


def _file_of(item: Any) -> str:
    """Returns the file of an object's class, "" if it has none."""
    owner = item if isinstance(item, type) else type(item)
    return getattr(sys.modules.get(owner.__module__), "__file__", None) or ""


def _is_in(folder: Path, file: str) -> bool:
    path = Path(file)
    return bool(file) and path.resolve().is_relative_to(folder) and "site-packages" not in path.parts
