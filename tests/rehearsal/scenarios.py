"""What each preset is rehearsed in: the embedded model with the preset's own settings, on the preset's own card.

A cell of the table is "ok", or what is wrong.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lowmem_rl.checkpointing.checkpoint_storage import newest
from lowmem_rl.config.compose import resolve
from lowmem_rl.config.presets import load_presets
from lowmem_rl.storage.run_dir import Row, RunDir, read_json, read_rows
from lowmem_rl_bench.prove.run_faults import group_faults, learning_faults, update_faults
from lowmem_rl_bench.verify_resume import differences
from tests.rehearsal.out_of_memory import Training, marks_of, middles, outcomes
from tests.rehearsal.stage import Died, Ended, RehearsalError, Stage

ROOM = 0.7
"""Share of what a step takes that a cramped run has."""
PHASES = (
    "load",
    "rollout",
    "log-probs",
    "update",
    "optimizer",
    "evaluation",
    "checkpoint",
    "resume",
    "out of memory",
    "export",
)
OK, UNSEEN = "ok", "-"
"""`UNSEEN` is what this rehearsal cannot show."""
STEPS, PROMPTS, KILLED_AFTER = 3, 2, 2
EMBEDDED = (
    "model.name=tiny",
    "task.name=arithmetic",
    "task.levels=[3]",
    "task.prompt=bare",
    "rewards={boxed_answer = 1.0, think_format = 0.2}",
    "rollout.engine=lowmem",  # auto takes the faster one, and nothing here is as fast as on a card
    f"grpo.prompts_per_step={PROMPTS}",
    "grpo.max_prompt_tokens=128",
    "grpo.max_completion_tokens=32",
    "eval.examples=8",
    "eval.quick_examples=4",
    "logging.checkpoint_every=1",
    "logging.samples_every=1",
)
"""The embedded model and short rows; everything else is the preset's own."""


def gpu_presets(*, after_papers: bool = False) -> list[str]:
    """Returns the presets that are made for a card.

    Those after papers come only if asked: `test_adapter_variants` and `test_learning_layers` rehearse their layers and
    adapters.
    """
    return [preset.name for preset in load_presets() if preset.card != "cpu" and (after_papers or not preset.paper)]


@dataclass(frozen=True)
class Planned:
    """What the planner chooses for a preset on its own card."""

    card: str
    micro_batch: int
    rollout_rows: int
    checkpointing: str
    rollout_weights: str


@cache
def planned(preset: str) -> Planned:
    """Asks `profile`, as a user would on a machine that has measured nothing yet."""
    command = [Path(sys.executable).with_name("lowmem-rl"), "profile", "--preset", preset, "--json"]
    with tempfile.TemporaryDirectory() as cache:
        env = os.environ | {"XDG_CACHE_HOME": cache}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=env)
    plan = json.loads(done.stdout)["plan"]
    names = ("micro_batch", "rollout_rows", "checkpointing", "rollout_weights")
    return Planned(resolve(preset=preset).card, *(plan[name] for name in names))


def settings_of(preset: str) -> tuple[str, ...]:
    """Returns the settings of a preset's rehearsal: the embedded model, trained as the preset trains its own."""
    plan, config = planned(preset), resolve(preset=preset).config
    rows = PROMPTS * config.grpo.group_size
    return (
        *EMBEDDED,
        f"memory.micro_batch={math.gcd(plan.micro_batch, rows)}",
        f"memory.rollout_rows={min(plan.rollout_rows, rows)}",
        f"memory.checkpointing={plan.checkpointing}",
        f"rollout.weights={plan.rollout_weights}",
    )


def training_of(preset: str, steps: int = STEPS) -> Training:
    """Returns the command that trains it."""
    words = (f"--set={setting}" for setting in settings_of(preset))
    group_size = resolve(preset=preset).config.grpo.group_size
    return Training(("train", f"--preset={preset}", f"--steps={steps}", *words, "--force"), steps, PROMPTS, group_size)


def command(preset: str, out: Path) -> list[str]:
    """Returns it with the folder of its run."""
    return [*training_of(preset).command, "--out", str(out)]


def rehearse(stage: Stage, preset: str, folder: Path) -> dict[str, str]:
    """Returns the preset's row: what each phase came to."""
    whole = folder / "whole"
    ended = stage.lowmem(*command(preset, whole))
    (folder / "whole.log").write_text(ended.output)
    cells = dict.fromkeys(PHASES, UNSEEN)
    for phase, look in LOOKS.items():
        cells[phase] = cell_of(lambda look=look: look(RunDir(whole), ended))
    if ended.code:
        return cells
    cells["resume"] = cell_of(lambda: resumed(stage, preset, RunDir(whole), folder / "killed"))
    cells["out of memory"] = cell_of(
        lambda: itertools.chain(
            short_of_memory(stage, preset, folder),
            cramped(stage, preset, folder, ended.report.peak_bytes, ended.report.held_bytes),
        )
    )
    cells["export"] = cell_of(lambda: exported(stage, whole))
    return cells


def cell_of(check: Callable[[], Iterator[str]]) -> str:
    """Returns a cell: "ok", or the problems that `check` finds."""
    try:
        return "; ".join(check()) or OK
    except RehearsalError as error:
        return error.reason
    except Exception as error:  # noqa: BLE001  # a file of the run is missing or torn: this cell's fault, no other's
        return f"{type(error).__name__}: {error}"


def loaded(run: RunDir, ended: Ended) -> Iterator[str]:
    """What is wrong with loading: our engine is to sample with the planned weights."""
    if ended.code:
        yield f"train ended with {ended.code}: {ended.output.strip().splitlines()[-2:]}"
    sampling = read_json(run.engine)["sampling"]
    if sampling["engine"] != "lowmem":
        yield f"{sampling['engine']} samples: {sampling['reason']}"


def sampled(run: RunDir, ended: Ended) -> Iterator[str]:
    """What is wrong with the rollouts: whole groups, from the policy."""
    rows = list(read_rows(run.metrics))
    if len(rows) != STEPS:
        yield f"{len(rows)} rows of {STEPS}"
    if any("sampler_fell_back" in row for row in rows):
        yield "the sampler fell back"
    yield from group_faults(run, STEPS)


def scored(run: RunDir, ended: Ended) -> Iterator[str]:
    """What is wrong with log-probs: the sampler's are near the training weights', and a KL term starts at 0."""
    rows = _rows(run)
    for row in rows:
        if not (row["rollout_gap_nats"] is not None and row["rollout_gap_nats"] < 0.05):
            yield f"step {row['step']}: log-probs are off by {row['rollout_gap_nats']}"
    if resolve(preset=_preset(run)).config.grpo.beta and not abs(rows[0]["kl"]) < 1e-3:
        yield f"KL is {rows[0]['kl']} in the first step"


def updated(run: RunDir, ended: Ended) -> Iterator[str]:
    """What is wrong with forward and backward: a finite loss and gradient, by the card's kernels."""
    yield from update_faults(_rows(run))
    if not ended.report.kernels.get("_rms_layernorm_backward"):
        yield "no backward of Unsloth's kernels ran"


def stepped(run: RunDir, ended: Ended) -> Iterator[str]:
    """What is wrong with the optimizer: every adapter learns."""
    yield from learning_faults(run)


def evaluated(run: RunDir, ended: Ended) -> Iterator[str]:
    """What is wrong with the evaluations."""
    found = read_json(run.evaluations)
    for when in ("before", "after"):
        if found[when]["num_examples"] != 8:
            yield f"{found[when]['num_examples']} of 8 examples {when}"


def checkpointed(run: RunDir, ended: Ended) -> Iterator[str]:
    """What is wrong with the last checkpoint."""
    notes: list[str] = []
    found = newest(run, notes.append)
    if notes or found is None or found.step != STEPS:
        yield f"the newest is {found and found.step}: {notes}"


LOOKS: dict[str, Callable[[RunDir, Ended], Iterator[str]]] = {
    "load": loaded,
    "rollout": sampled,
    "log-probs": scored,
    "update": updated,
    "optimizer": stepped,
    "evaluation": evaluated,
    "checkpoint": checkpointed,
}


def resumed(stage: Stage, preset: str, whole: RunDir, out: Path) -> Iterator[str]:
    """Yields the differences of a run that is killed after a step and resumed."""
    try:
        ended = stage.lowmem(*command(preset, out), before=dies_after_some_steps)
        yield f"not killed: ended with {ended.code}"
    except Died:
        pass
    ended = stage.lowmem("train", "--resume", "--out", str(out), "--force")
    if ended.code:
        yield f"--resume ended with {ended.code}: {ended.output.strip().splitlines()[-2:]}"
    else:
        yield from differences(whole, RunDir(out))


def dies_after_some_steps() -> None:
    """Lets the process kill itself in the step after `KILLED_AFTER`."""
    from transformers.trainer_callback import CallbackHandler

    plain = CallbackHandler.on_step_begin

    def on_step_begin(self: Any, args: Any, state: Any, control: Any) -> Any:
        if state.global_step == KILLED_AFTER:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(self, args, state, control)

    CallbackHandler.on_step_begin = on_step_begin


def short_of_memory(stage: Stage, preset: str, folder: Path) -> Iterator[str]:
    """Yields the problems of runs in which an allocation fails, one in each part of a step: they must continue."""
    training = training_of(preset, steps=2)
    marks = stage.call(marks_of, training, str(folder / "marks"))
    numbers = middles(marks)
    found = stage.call(outcomes, training, str(folder / "short"), numbers)
    if lost := set(numbers) - {one.allocation for one in found}:
        yield f"the runs in which allocation {sorted(lost)} fails came to no end"
    yield from (f"allocation {one.allocation} at {one.place}: {one.code} {one.lines}" for one in found if one.code)
    yield from (f"allocation {one.allocation}: groups are not whole" for one in found if not one.is_whole)
    if lacking := {"rollout", "optimizer"} - {one.phase for one in found}:
        yield f"nothing was recovered in {', '.join(sorted(lacking))}"


def cramped(stage: Stage, preset: str, folder: Path, peak: int, held: int) -> Iterator[str]:
    """Yields the problems of a run with less memory than its step takes: it must use fewer rows, or report it."""
    limit = held + int(ROOM * (peak - held))
    ended = stage.lowmem(*command(preset, folder / "cramped"), limit_bytes=limit)
    rows = list(read_rows(RunDir(folder / "cramped").recoveries))
    if ended.code not in (0, 5) or (ended.code == 5 and "hint: " not in ended.output):
        yield f"ended with {ended.code}: {ended.output.strip().splitlines()[-2:]}"
    if not rows:
        yield f"nothing ran out of {limit} bytes"
    if ended.code == 0:
        yield from sampled(RunDir(folder / "cramped"), ended)


def exported(stage: Stage, run: Path) -> Iterator[str]:
    """What is wrong with handing the model on: each form answers like the trained model, or it is refused."""
    for form in ("adapter", "merged"):
        ended = stage.lowmem("export", str(run), "--to", form, "--examples", "8")
        if ended.code:
            yield f"--to {form} ended with {ended.code}: {ended.output.strip().splitlines()[-2:]}"
        elif resolve(preset=_preset(RunDir(run))).config.model.bits == 4 or form == "adapter":
            tokens = read_json(run / "export" / form / "proof.json")["tokens"]
            if tokens["items"] != 8 or tokens["same"] + len(tokens["ties"]) != 8:
                yield f"--to {form}: {tokens['same']} of {tokens['items']} answers are the same"


def _rows(run: RunDir) -> list[Row]:
    """Returns the rows of metrics.jsonl. Raises `LookupError` if there are none."""
    if not (rows := list(read_rows(run.metrics))):
        raise LookupError("no step was done")
    return rows


def _preset(run: RunDir) -> str:
    return str(read_json(run.config)["preset"])
