"""Trackers next to the run directory: checked before the run, offline unless the user says otherwise.

One run is one run of theirs, also if it is resumed or its directory is renamed: the first process writes down its name.
They get what TRL logs, what metrics.jsonl has in addition, and every evaluation, under the step it belongs to.
"""

import contextlib
import copy
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from lowmem_rl.errors import RunDirError, SetupError
from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.storage.run_dir import Row, read_json, write_json
from lowmem_rl.telemetry.events import EvalEnded, Event, StepEnded
from lowmem_rl.telemetry.metrics import NAMES

OFFLINE = {"wandb": {"WANDB_MODE": "offline"}, "trackio": {}, "tensorboard": {}}
"""Keeps a tracker from the network; trackio and TensorBoard write to this disk anyway."""

FOLDER = {"wandb": "WANDB_DIR", "trackio": "TRACKIO_DIR", "tensorboard": "TENSORBOARD_LOGGING_DIR"}
"""The variable that says where each one writes."""

IDENTITY = "run.json"
"""In the folder of the trackers: id and name of the run."""
_LOGGED_BY_TRL = {"step", *NAMES.values()}
_EVALUATED = ("pass_at_1", "strict_pass_at_1", "num_examples", "completion_tokens", "truncated_share", "kl_nats")


def check_trackers(names: Sequence[str]) -> None:
    """Raises `SetupError` for a tracker that is not installed: transformers would say so after loading the model."""
    for name in names:
        if find_spec(name) is None:
            raise SetupError(
                f"logging.report_to names {name!r}, which is not installed.",
                hint=f"Install it (uv pip install {name}), or leave it out.",
            )


class Trackers:
    """The trackers of one run in one process. What is logged before they begin waits for that."""

    def __init__(self, names: Sequence[str], report: Callable[[str], None]) -> None:
        self.names, self.report = names, report
        self.run_name = ""
        self.trainer: Any = None
        """Set when training, and so each tracker, begins."""
        self.running: list[Any] = []
        self.ends: list[Callable[..., None]] = []
        """What closes each one: after the last evaluation, not after the last step."""
        self.waiting: list[tuple[int, Row]] = []

    def on_event(self, event: Event) -> None:
        """Logs evaluations, and of a step's row what TRL has not logged."""
        if isinstance(event, EvalEnded):
            self.log(event.result.step, evaluation_values(event.result))
        elif isinstance(event, StepEnded):
            own = {k: v for k, v in event.row.items() if k not in _LOGGED_BY_TRL and not k.startswith("scores/")}
            self.log(event.row["step"], own)

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Logs numbers under a step."""
        if self.names:
            self.waiting.append(
                (step, {name: value for name, value in values.items() if isinstance(value, int | float)})
            )
        if self.trainer:
            self._send()

    def attach(self, trainer: Any, resumed_after: int) -> None:
        """Gives a trainer its trackers; one that fails, even when it is made, is reported and left out."""
        from transformers import TrainerCallback

        for kind in _kinds(self.names):
            try:
                tracker = kind(**_writer(kind, resumed_after))
            except Exception as error:  # noqa: BLE001  # a tracker may fail in any way
                self.report(_left_out(kind, error))
                continue
            _guard(tracker, self.report)
            self.ends.append(tracker.on_train_end)
            tracker.on_train_end = lambda *args, **kwargs: None
            self.running.append(tracker)
            trainer.add_callback(tracker)
            tracker.on_init_end(trainer.args, trainer.state, trainer.control)

        class Begun(TrainerCallback):
            def on_train_begin(_, *args: Any, **kwargs: Any) -> None:
                self.trainer = trainer
                self._send()

        if self.running:
            trainer.args.run_name = self.run_name
            trainer.add_callback(Begun())

    def begin_without_trainer(self, folder: Path, step: int) -> None:
        """Begins for a run that has only its last evaluation to do."""
        from transformers import TrainerControl, TrainerState, TrainingArguments

        if self.names:
            args = TrainingArguments(str(folder), report_to="none", use_cpu=True)
            known = {"args": args, "state": TrainerState(), "control": TrainerControl(), "model": None}
            callbacks: list[Any] = []
            self.attach(SimpleNamespace(**known, processing_class=None, add_callback=callbacks.append), step)
            for callback in callbacks:
                callback.on_train_begin(args, known["state"], known["control"], model=None)

    def close(self) -> None:
        """Closes them; each keeps what it has got, however the run ends."""
        if not self.trainer:
            return
        of = self.trainer
        for end in self.ends:
            end(of.args, of.state, of.control, model=of.model, processing_class=of.processing_class)
        if "wandb" in self.names and (wandb := sys.modules.get("wandb")):
            with contextlib.suppress(Exception):
                wandb.finish()  # the next run of this process, such as a control, is another one

    def _send(self) -> None:
        for step, values in self.waiting:
            state = copy.copy(self.trainer.state)
            state.global_step = step
            for tracker in self.running:
                tracker.on_log(
                    self.trainer.args, state, self.trainer.control, logs=dict(values), model=self.trainer.model
                )
        self.waiting = []


@contextlib.contextmanager
def trackers_in(folder: Path, trackers: Trackers) -> Iterator[None]:
    """Points each tracker into `folder` and keeps it offline for as long as one run lasts; what the user has set stays.

    They read it from the environment, which the next run of this process, such as a control, must find as it was.
    """
    wanted: dict[str, str] = {}
    for name in trackers.names:
        (folder / name).mkdir(parents=True, exist_ok=True)
        wanted |= OFFLINE[name] | {FOLDER[name]: str((folder / name).resolve())}
    if trackers.names:
        run_id, trackers.run_name = _identity(folder)
        wanted |= {"WANDB_RUN_ID": run_id, "WANDB_RESUME": "allow"} if "wandb" in trackers.names else {}
    ours = [variable for variable in wanted if variable not in os.environ]
    os.environ.update({variable: wanted[variable] for variable in ours})
    try:
        yield
    finally:
        trackers.close()
        for variable in ours:
            os.environ.pop(variable, None)


def evaluation_values(result: EvalResult) -> Row:
    """Returns the figures of an evaluation as transformers names them: it shows eval_x as eval/x."""
    prefix = f"eval_{result.task}/" if result.in_domain is False else "eval_"
    values: Row = {name: getattr(result, name) for name in _EVALUATED}
    values |= {f"scores/{name}": score for name, score in result.scores.items()}
    if result.samples > 1:
        values |= {f"{name}@{k}": v for name in ("pass", "maj") for k, v in getattr(result, f"{name}_at_k").items()}
    return {f"{prefix}{name}": value for name, value in values.items()}


def _identity(folder: Path) -> tuple[str, str]:
    """Returns the id and the name of a run among its trackers' runs: those that its first process has chosen."""
    path = folder / IDENTITY
    with contextlib.suppress(RunDirError, LookupError, TypeError):
        found = read_json(path)
        return str(found["id"]), str(found["name"])
    chosen = {"id": uuid4().hex[:8], "name": folder.resolve().parent.name}
    write_json(path, chosen)
    return chosen["id"], chosen["name"]


def _kinds(names: Sequence[str]) -> list[Any]:
    from transformers.integrations import get_reporting_integration_callbacks

    return [*get_reporting_integration_callbacks(list(names))]


def _writer(kind: type, resumed_after: int) -> Row:
    """Returns what TensorBoard is made with after a resume: it hides the steps that are trained again."""
    if kind.__name__ != "TensorBoardCallback" or not resumed_after:
        return {}
    from torch.utils.tensorboard import SummaryWriter

    return {"tb_writer": SummaryWriter(os.environ[FOLDER["tensorboard"]], purge_step=resumed_after + 1)}


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
