"""What becomes of a training if any one allocation of a step runs out of memory.

    python -m tests.rehearsal.out_of_memory --each 50 --out benchmarks/records/rehearsal-oom.json

One training of the embedded model is loaded on a simulated card. When its first step begins, it is forked for each
allocation that is to fail, counted from there on, and each fork continues to the run's end. The allocations are spread
over the parts of the step, of which most have few.
"""

import argparse
import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

SETTINGS = (
    "grpo.prompts_per_step=2",
    "memory.micro_batch=8",
    "grpo.max_completion_tokens=16",
    "grpo.beta=0.05",
    "eval.examples=4",
    "eval.quick_examples=4",
    "eval.every=0",
    "logging.samples_every=1",
    "optimizer.name=adamw_8bit",
    "optimizer.warmup_steps=0",
)
"""Two micro-batches of one group a step, with a pass for the reference's log-probs."""
HERE = "tests.rehearsal.out_of_memory"
"""This module, in which a server looks functions up."""


@dataclass(frozen=True)
class Training:
    """A command that trains, all but its --out, with every completion kept (logging.samples_every=1)."""

    command: tuple[str, ...]
    steps: int = 2
    prompts: int = 2
    group_size: int = 8
    is_whole: bool = True
    """False if a run ends when its last step has its row: what follows is any run's, and takes most of the time."""


def tiny(*settings: str, is_whole: bool = True) -> Training:
    """Returns the training of the embedded model that the sweep plays."""
    words = (f"--set={setting}" for setting in (*SETTINGS, *settings))
    return Training(("train", "--preset=tiny-cpu", "--steps=2", *words), is_whole=is_whole)


@dataclass(frozen=True)
class Outcome:
    """How a run ended in which one allocation failed."""

    allocation: int
    code: int
    place: str
    """The innermost line, and the innermost of ours, at which it failed; "" if there were fewer allocations."""
    phase: str
    """What the run wrote down in recoveries.jsonl, "" for nothing: then Unsloth or the sampler has helped itself."""
    steps: int
    is_whole: bool
    """Each step is there and has its groups, whole, once."""
    lines: str
    """The last lines that the user saw, if it ended early."""

    @property
    def is_sound(self) -> bool:
        """It was survived, or ended in the two lines that the user can act on."""
        return (self.code == 0 and self.is_whole) or (
            self.code == 5 and "hint:" in self.lines and "Traceback" not in self.lines
        )


def outcomes(training: Training, out: str, allocations: Sequence[int]) -> list[Outcome]:
    """Runs on the card, in a forked process. Returns an outcome for each allocation."""
    results = Path(f"{out}.jsonl")
    child = os.fork()
    if not child:
        try:
            _train(training, Path(out), allocations, results)
        except BaseException:  # noqa: BLE001  # a fork must not continue as the process that it was forked from
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(0)
    os.waitpid(child, 0)
    return [Outcome(**json.loads(line)) for line in results.read_text().splitlines()]


def marks_of(training: Training, out: str) -> dict[str, int]:
    """Runs on the card. Returns the allocations of the first step up to the end of each of its parts."""
    from transformers.trainer_callback import CallbackHandler

    from lowmem_rl.training.recorder import Recorder
    from lowmem_rl.trl_adapter.update import UpdateMixin
    from tests.rehearsal.card.state import STATE
    from tests.rehearsal.child import lowmem

    marks: dict[str, int] = {}

    def marked(owner: Any, name: str, before: str = "", after: str = "") -> None:
        plain = getattr(owner, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            if before:
                marks.setdefault(before, STATE.allocations)
            found = plain(*args, **kwargs)
            if after:
                marks.setdefault(after, STATE.allocations)
            return found

        setattr(owner, name, run)

    marked(Recorder, "on_scored", "sampled and scored")
    marked(UpdateMixin, "_accumulate", "advantages")
    marked(UpdateMixin, "_clip_grad_norm", "gradient", "clipping")
    marked(CallbackHandler, "on_optimizer_step", "optimizer")
    marked(UpdateMixin, "write_step_row", after="row")
    assert lowmem(*training.command, "--out", out) == 0, "the undisturbed training fails"
    return marks


def spread(marks: dict[str, int], each: int) -> dict[str, list[int]]:
    """Returns allocations of each part, `each` of them where it has as many, its first and its last among them."""
    ends = [0, *marks.values()]
    parts = zip(marks, pairwise(ends), strict=True)
    return {
        part: sorted({start + 1 + (end - start - 1) * i // max(each - 1, 1) for i in range(each)})
        if end > start
        else []
        for part, (start, end) in parts
    }


def middles(marks: dict[str, int]) -> list[int]:
    """Returns an allocation in the middle of each part."""
    return [(start + end + 1) // 2 for start, end in pairwise([0, *marks.values()]) if end > start]


def _train(training: Training, out: Path, allocations: Sequence[int], results: Path) -> None:
    """Begins the training; its forks end it."""
    from transformers.trainer_callback import CallbackHandler

    from tests.rehearsal.child import lowmem

    plain, forks = CallbackHandler.on_step_begin, []

    def on_step_begin(*args: Any, **kwargs: Any) -> Any:
        control = plain(*args, **kwargs)
        if not forks:
            forks.append(True)
            _fork_for_each(out, allocations, results, forks)
        return control

    def write_down(code: int) -> None:
        sys.stderr.flush()
        found = _outcome(training, out, forks[-1], code)
        with results.open("a") as file:
            file.write(json.dumps(asdict(found)) + "\n")

    CallbackHandler.on_step_begin = on_step_begin
    if not training.is_whole:
        _end_with_the_last_row(training.steps, write_down)
    code = lowmem(*training.command, "--out", str(out))
    if len(forks) > 1:  # in one of the forks
        write_down(code)


def _end_with_the_last_row(steps: int, write_down: Callable[[int], None]) -> None:
    from lowmem_rl.trl_adapter.update import UpdateMixin

    plain = UpdateMixin.write_step_row

    def write_step_row(self: Any, write: Callable[[], None]) -> None:
        plain(self, write)
        if self.state.global_step == steps:
            write_down(0)
            os._exit(0)

    UpdateMixin.write_step_row = write_step_row  # type: ignore[method-assign]


def _fork_for_each(out: Path, allocations: Sequence[int], results: Path, forks: list[Any]) -> None:
    """Returns in the forks alone."""
    import torch

    from tests.rehearsal.card.state import STATE

    results.touch()
    before = out.with_name(f"{out.name}-before")
    shutil.copytree(out, before)
    for number in allocations:
        shutil.copytree(before, out, dirs_exist_ok=True)
        if not (child := os.fork()):
            _redirect(_log(out, number))
            forks.append(number)
            torch.set_num_threads(1)  # as in `child.answer`: this is a fork, too
            STATE.allocations, STATE.fail_at, STATE.failures = 0, frozenset([number]), []
            return
        os.waitpid(child, 0)
        _empty(out)
    os._exit(0)


def _empty(out: Path) -> None:
    """Removes all but the lock, which the next fork holds: another file of that name would be another run's."""
    from lowmem_rl.storage.run_dir import RunDir

    for path in out.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != RunDir(out).lock:
            path.unlink()


def _log(out: Path, number: int) -> Path:
    return out.with_name(f"{out.name}-{number}.log")


def _redirect(log: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for number in (1, 2):
        os.dup2(file, number)


def _outcome(training: Training, out: Path, number: int, code: int) -> Outcome:
    from lowmem_rl.storage.run_dir import RunDir, read_rows
    from tests.rehearsal.card.state import STATE

    run = RunDir(out)
    groups = Counter((row["step"], row["example_id"]) for row in read_rows(run.samples))
    phases = [row["phase"] for row in read_rows(run.recoveries)]
    steps = len(list(read_rows(run.metrics)))
    whole = set(groups.values()) == {training.group_size} and len(groups) == training.prompts * training.steps
    lines = _log(out, number).read_text(errors="replace").splitlines()
    return Outcome(
        allocation=number,
        code=code,
        place=_place(STATE.failures[0]) if STATE.failures else "",
        phase=", ".join(phases),
        steps=steps,
        is_whole=whole and steps == training.steps,
        lines="" if code == 0 else "\n".join(lines[-12:]),
    )


def _place(frames: Sequence[str]) -> str:
    short = [re.sub(r"^.*/(site-packages|lowmem_rl|compiled)/", "", frame) for frame in frames]
    ours = [name for name, frame in zip(short, frames, strict=True) if "/lowmem_rl/" in frame]
    return " < ".join(dict.fromkeys([*short[-1:], *ours[-1:]])) or "torch's engine, in a backward"


def summary(found: Sequence[Outcome]) -> dict[str, Any]:
    """Returns what the record is looked at for."""
    return {
        "allocations": len(found),
        "survived": sum(one.code == 0 and one.is_sound for one in found),
        "ended in two lines": sum(one.code == 5 and one.is_sound for one in found),
        "unsound": [one.allocation for one in found if not one.is_sound],
        "by phase": dict(Counter(one.phase or "not ours" for one in found)),
    }


def main() -> None:
    """Plays the allocations of one step, every so many, and writes the record."""
    from tests.rehearsal import out_of_memory  # by its name: a server knows no class of `__main__`
    from tests.rehearsal.stage import Stage

    parser = argparse.ArgumentParser()
    parser.add_argument("--card", default="a6000")
    parser.add_argument("--each", type=int, default=50, help="allocations of each part of a step")
    parser.add_argument("--whole", action="store_true", help="let each run evaluate and save, too")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    stage, training = Stage(options.card, limit_s=36_000), out_of_memory.tiny(*options.set, is_whole=options.whole)
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory() as folder:
            marks = stage.call(f"{HERE}:marks_of", training, str(Path(folder, "marks")))
            # The second step finds the optimizer's states, and Unsloth's notes, of the first.
            played = marks | {"the second step": 2 * marks["row"]}
            numbers = sorted({number for part in spread(played, options.each).values() for number in part})
            found = stage.call(f"{HERE}:outcomes", training, str(Path(folder, "run")), numbers)
    finally:
        stage.close()
    record = {
        "date": date.today().isoformat(),
        "command": " ".join(["python -m tests.rehearsal.out_of_memory", *sys.argv[1:]]),
        "card": f"{options.card}, simulated",
        "seconds": round(time.monotonic() - began),
        "allocations of the first step up to the end of": marks,
        "summary": summary(found),
        "rows": [asdict(one) for one in found],
    }
    options.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record["summary"], indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
