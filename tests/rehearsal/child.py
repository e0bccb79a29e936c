"""One rehearsal, in a process forked from a server that has loaded the stack."""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.rehearsal.card.state import STATE, State
from tests.rehearsal.on_card import launcher
from tests.rehearsal.request import Answer, Request, Settings


def answer(request: Request) -> Answer:
    """Calls what is asked for, its output in a file unless it has the caller's."""
    _prepare(request)
    try:
        if request.settings.before:
            named(request.settings.before)()
        result = named(request.function)(*request.args)
        found = Answer(result, report=STATE.report())
    except SystemExit as ended:
        found = Answer(ended.code, report=STATE.report())
    except BaseException:  # noqa: BLE001  # the parent raises any error of the child
        found = Answer(error=traceback.format_exc(), report=STATE.report())
    sys.stdout.flush()
    sys.stderr.flush()
    return found


def _prepare(request: Request) -> None:
    """Gives this process its output, folder and environment."""
    if not request.files:
        _redirect(request.output)
    os.chdir(request.cwd)
    if STATE.is_installed:
        sys.executable = str(launcher(STATE.card.key, Path(request.output).parent))
    # What a run remembers of its memory must not correct this machine's estimates, nor another rehearsal's.
    os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(dir=Path(request.output).parent)
    if request.files:  # `ask` sends the whole environment
        os.environ.clear()
    os.environ.update(request.settings.env)
    if torch := sys.modules.get("torch"):
        # The fork left its thread pool to be made again; two threads of the autograd engine that do it at once abort.
        torch.set_num_threads(1)
        _reset(request.settings)


def lowmem(*arguments: str) -> int:
    """Runs the command line; returns its exit code."""
    from lowmem_rl_cli.app import main

    return int(main(arguments) or 0)


def named(name: str) -> Callable[..., Any]:
    """Returns a function by `module:name`."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _redirect(path: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(file, number)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr


def _reset(settings: Settings) -> None:
    """Forgets what the imports counted."""
    fresh = State()
    for name in ("waits", "bytes_to_host", "kernels", "attention", "failures"):
        setattr(STATE, name, getattr(fresh, name))
    STATE.allocations, STATE.peak_bytes = 0, STATE.allocated_bytes
    STATE.phantom_bytes = settings.phantom_bytes
    if settings.phantom_bytes is not None:
        from tests.rehearsal.card import libraries

        libraries.patch_losses()
    _begin_with_training(settings)


def _begin_with_training(settings: Settings) -> None:
    """Counts and fails from the first training step on."""
    from transformers.trainer_callback import CallbackHandler

    plain, begun = CallbackHandler.on_step_begin, []

    def on_step_begin(*args: Any, **kwargs: Any) -> Any:
        if not begun:
            begun.append(True)
            STATE.allocations, STATE.counts_waits = 0, settings.counts_waits
            STATE.held_bytes = STATE.peak_bytes = STATE.allocated_bytes
            STATE.limit_bytes, STATE.fail_at = settings.limit_bytes, frozenset(settings.fail_at)
        return plain(*args, **kwargs)

    CallbackHandler.on_step_begin = on_step_begin
