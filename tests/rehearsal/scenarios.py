"""What each preset is rehearsed in: the embedded model with the preset's own settings, on the preset's own card.

A cell of the table is "ok", or says what is wrong.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lowmem_rl.compose import resolve
from lowmem_rl.errors import RunDirError
from lowmem_rl.presets import load_presets
from lowmem_rl.runs import Row, RunDir, read_json, read_rows
from lowmem_rl.training.checkpoints import newest
from lowmem_rl.training.verify_resume import differences
from tests.rehearsal.stage import Died, Ended, RehearsalError, Stage

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
STEPS, KILLED_AFTER = 3, 2
FAILS_AT = (40, 700, 1500, 2500)
"""Allocations that run out of memory, counted from the first step's beginning: spread over rollout and update."""
EMBEDDED = (
    "model.name=tiny",
    "task.name=arithmetic",
    "task.levels=[3]",
    "task.prompt=bare",
    "rewards={boxed_answer = 1.0, think_format = 0.2}",
    "rollout.engine=lowmem",  # auto takes the faster one, and nothing here is as fast as on a card
    f"grpo.steps={STEPS}",
    "grpo.prompts_per_step=2",
    "grpo.max_prompt_tokens=128",
    "grpo.max_completion_tokens=32",
    "eval.examples=8",
    "eval.quick_examples=4",
    "logging.checkpoint_every=1",
)
"""The embedded model and short rows; everything else is the preset's own."""


def gpu_presets() -> list[str]:
    """Returns the presets that are made for a card."""
    return [preset.name for preset in load_presets() if preset.name != "tiny-cpu"]


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
    """Asks `profile`, as a user would."""
    command = [Path(sys.executable).with_name("lowmem-rl"), "profile", "--preset", preset, "--json"]
    plan = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["plan"]
    names = ("micro_batch", "rollout_rows", "checkpointing", "rollout_weights")
    return Planned(resolve(preset=preset).card, *(plan[name] for name in names))


def settings_of(preset: str) -> tuple[str, ...]:
    """Returns the settings of a preset's rehearsal: the embedded model, trained as the preset trains its own."""
    plan, config = planned(preset), resolve(preset=preset).config
    rows = 2 * config.grpo.group_size
    return (
        *EMBEDDED,
        f"memory.micro_batch={math.gcd(plan.micro_batch, rows)}",
        f"memory.rollout_rows={min(plan.rollout_rows, rows)}",
        f"memory.checkpointing={plan.checkpointing}",
        f"rollout.weights={plan.rollout_weights}",
    )


def command(preset: str, out: Path) -> list[str]:
    """Returns the command that trains it."""
    given = (argument for setting in settings_of(preset) for argument in ("--set", setting))
    return ["train", "--preset", preset, *given, "--force", "--out", str(out)]


def rehearse(stage: Stage, preset: str, folder: Path) -> dict[str, str]:
    """Returns the preset's row: what each phase came to."""
    whole = folder / "whole"
    ended = stage.lowmem(*command(preset, whole))
    (folder / "whole.log").write_text(ended.output)
    cells = dict.fromkeys(PHASES, UNSEEN)
    for phase, look in LOOKS.items():
        cells[phase] = said(lambda look=look: look(RunDir(whole), ended))
    if ended.code:
        return cells
    cells["resume"] = said(lambda: resumed(stage, preset, RunDir(whole), folder / "killed"))
    cells["out of memory"] = said(lambda: short_of_memory(stage, preset, folder / "short"))
    cells["export"] = said(lambda: exported(stage, whole))
    return cells


def said(look: Callable[[], Iterator[str]]) -> str:
    """Returns a cell: "ok", or what `look` finds wrong."""
    try:
        return "; ".join(look()) or OK
    except RehearsalError as error:
        return error.reason
    except (RunDirError, OSError, LookupError, TypeError) as error:  # a file of the run is missing or another
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
    groups = {len(drawn["right"]) for drawn in read_rows(run.order)}
    if groups != {2}:
        yield f"groups a step: {groups}"


def scored(run: RunDir, ended: Ended) -> Iterator[str]:
    """What is wrong with log-probs: the sampler's lie near the training weights', and a KL term starts at 0."""
    rows = _rows(run)
    for row in rows:
        if not (row["rollout_gap_nats"] is not None and row["rollout_gap_nats"] < 0.05):
            yield f"step {row['step']}: log-probs are off by {row['rollout_gap_nats']}"
    if resolve(preset=_preset(run)).config.grpo.beta and not abs(rows[0]["kl"]) < 1e-3:
        yield f"KL is {rows[0]['kl']} in the first step"


def updated(run: RunDir, ended: Ended) -> Iterator[str]:
    """What is wrong with forward and backward: a finite loss and gradient, by the card's kernels."""
    for row in _rows(run):
        if row["loss"] is None or (row["grad_norm"] is None and not row.get("optimizer_skipped")):
            yield f"step {row['step']}: loss {row['loss']}, gradient {row['grad_norm']}"
    if not ended.report.kernels.get("_rms_layernorm_backward"):
        yield "no backward of Unsloth's kernels ran"


def stepped(run: RunDir, ended: Ended) -> Iterator[str]:
    """What is wrong with the optimizer: an adapter begins with B = 0, and learns."""
    from safetensors.numpy import load_file

    weights = load_file(run.adapter / "adapter_model.safetensors")
    still = [name for name, weight in weights.items() if "lora_B" in name and not weight.any()]
    if still:
        yield f"{len(still)} of {len(weights) // 2} layers have not learned"


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
    """What differs in a run that is killed after a step and goes on."""
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


def short_of_memory(stage: Stage, preset: str, out: Path) -> Iterator[str]:
    """What is wrong with a run whose memory runs out now and then: it goes on, its groups whole."""
    ended = stage.lowmem(*command(preset, out), fail_at=FAILS_AT)
    (out.parent / "short.log").write_text(ended.output)
    if ended.code:
        yield f"ended with {ended.code}: {ended.output.strip().splitlines()[-2:]}"
        return
    if len(ended.report.failures) != len(FAILS_AT):
        yield f"played {len(ended.report.failures)} of {len(FAILS_AT)}"
    yield from sampled(RunDir(out), ended)
    yield from updated(RunDir(out), ended)


def exported(stage: Stage, run: Path) -> Iterator[str]:
    """What is wrong with handing the model on: each form answers like the trained model, or it is refused."""
    for form in ("adapter", "merged"):
        ended = stage.lowmem("export", str(run), "--to", form, "--examples", "8")
        if ended.code:
            yield f"--to {form} ended with {ended.code}: {ended.output.strip().splitlines()[-2:]}"


def _rows(run: RunDir) -> list[Row]:
    """Returns the rows of metrics.jsonl. Raises `LookupError` if there are none."""
    if not (rows := list(read_rows(run.metrics))):
        raise LookupError("no step was done")
    return rows


def _preset(run: RunDir) -> str:
    return str(read_json(run.config)["preset"])
