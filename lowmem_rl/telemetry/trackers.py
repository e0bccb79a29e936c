"""Trackers next to the run directory: checked before the run, offline unless the user says otherwise."""

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lowmem_rl.errors import SetupError

OFFLINE = {"wandb": {"WANDB_MODE": "offline"}, "trackio": {}, "tensorboard": {}}
"""Keeps a tracker from the network; trackio and TensorBoard write to this disk anyway."""

FOLDER = {"wandb": "WANDB_DIR", "trackio": "TRACKIO_DIR", "tensorboard": "TENSORBOARD_LOGGING_DIR"}
"""The variable that says where each one writes."""


def check_trackers(names: Sequence[str]) -> None:
    """Raises `SetupError` for a tracker that is not installed: transformers would say so after loading the model."""
    for name in names:
        if find_spec(name) is None:
            raise SetupError(
                f"logging.report_to names {name!r}, which is not installed.",
                hint=f"Install it (uv pip install {name}), or leave it out.",
            )


@contextlib.contextmanager
def trackers_in(folder: Path, names: Sequence[str]) -> Iterator[None]:
    """Points each tracker into `folder` and keeps it offline for as long as one run lasts; what the user has set stays.

    They read it from the environment, which the next run of this process, such as a control, must find as it was.
    """
    wanted: dict[str, str] = {}
    for name in names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        wanted |= OFFLINE[name] | {FOLDER[name]: str((folder / name).resolve())}
    ours = [variable for variable in wanted if variable not in os.environ]
    os.environ.update({variable: wanted[variable] for variable in ours})
    try:
        yield
    finally:
        for variable in ours:
            os.environ.pop(variable, None)


def attach_trackers(trainer: Any, names: Sequence[str], report: Callable[[str], None]) -> None:
    """Gives a trainer its trackers; one that fails, even when it is made, is reported and left out."""
    from transformers.integrations import get_reporting_integration_callbacks

    for kind in get_reporting_integration_callbacks(list(names)):
        try:
            tracker = kind()
        except Exception as error:  # noqa: BLE001  # a tracker may fail in any way
            report(_left_out(kind, error))
            continue
        _guard(tracker, report)
        trainer.add_callback(tracker)
        tracker.on_init_end(trainer.args, trainer.state, trainer.control)


def _guard(callback: Any, report: Callable[[str], None]) -> None:
    is_broken = False

    def guarded(event: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal is_broken
            if is_broken:
                return None
            try:
                return event(*args, **kwargs)
            except Exception as error:  # noqa: BLE001  # a tracker may fail in any way
                is_broken = True
                report(_left_out(type(callback), error))
                return None

        return call

    for name in dir(callback):
        if name.startswith("on_"):
            setattr(callback, name, guarded(getattr(callback, name)))


def _left_out(kind: type, error: Exception) -> str:
    name = kind.__name__.removesuffix("Callback")
    return f"{name} failed and is left out from now on: {type(error).__name__}: {error}"
