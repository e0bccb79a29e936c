"""The smallest supervised stage: an adapter learns gold completions of the task, and `train --from` starts from it.

For a base that never earns a reward, from which GRPO learns nothing. It learns to answer as the task's author would:
a few dozen steps are enough for the form of an answer, the rest is GRPO's.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import check_dtype, device_on
from lowmem_rl.engine.lineage import WARMUP, stages_before
from lowmem_rl.engine.logprobs import Encoded, encode_turn
from lowmem_rl.engine.oom import OutOfMemory, catch_oom
from lowmem_rl.engine.policy import Policy, prepare_process
from lowmem_rl.engine.reference import load_policy_at_start
from lowmem_rl.entrypoints.preflight import check_card, check_scoring, check_settings, check_weights, plan_here
from lowmem_rl.errors import ConfigError, DoesNotFit, TaskError, TrainingError
from lowmem_rl.example import Example
from lowmem_rl.models.fingerprint import fingerprint
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.planning.gate import gate
from lowmem_rl.storage.run_dir import RunDir, default_path, write_json
from lowmem_rl.tasks.select import draw_examples, gold_completion_of
from lowmem_rl.tasks.task import Selection, Task
from lowmem_rl.telemetry.events import Listener, Note, PhaseStarted
from lowmem_rl.telemetry.output_capture import capture_library_output
from lowmem_rl.trl_adapter.sft import SftSettings, sft_losses

LEARNING_RATE = 2e-4
"""Of SFT with adapters, for models up to 13B (QLoRA, arXiv 2305.14314); GRPO's rates are far lower."""
ROWS = 32
"""Gold completions of a step."""


@dataclass(frozen=True, slots=True)
class WarmupResult:
    """The adapter's folder, the loss of each step in nats a token, and how many examples were taught."""

    path: Path
    losses: tuple[float, ...]
    examples: int


def warm_up(
    composed: ResolvedConfig,
    steps: int,
    out: Path | None = None,
    *,
    learning_rate: float = LEARNING_RATE,
    listen: Listener = lambda event: None,
    force: bool = False,
) -> WarmupResult:
    """Teaches an adapter gold completions of the task for `steps` steps, and writes it into `out`.

    Raises, before the model is loaded, `ConfigError`, `TaskError`, `SetupError`, `DoesNotFit` or `RunDirError`; later
    `TrainingError`, after which nothing is left in `out`.
    """
    config, task, examples = _prepared(composed, steps, force=force)
    run_dir = RunDir.create(out) if out else RunDir.create_new(default_path(f"warmup-{composed.preset}"))
    settings = SftSettings(steps, learning_rate, ROWS)
    with _removed_on_failure(run_dir), capture_library_output(run_dir.log):
        device = device_on(this_machine(), config)
        listen(PhaseStarted(f"loading {config.model.name}"))
        prepare_process(config, device)
        policy = load_policy_at_start(config, device)
        encoded = _encoded(policy, config, task, examples, lambda text: listen(Note(text)))
        losses = _train(policy, config, settings, encoded, run_dir, listen)
        policy.save_adapter(run_dir.path)
        record = {"preset": composed.preset, "rows": ROWS, "learning_rate": learning_rate, "losses": losses}
        write_json(run_dir.path / WARMUP, _about(config, steps) | record)
    return WarmupResult(run_dir.path, tuple(losses), len(encoded))


def _prepared(composed: ResolvedConfig, steps: int, *, force: bool) -> tuple[RunConfig, Task, list[Example]]:
    """Checks what can be checked without the model, as `preflight.prepare` does for a run."""
    machine = this_machine()
    rewards, task = check_settings(composed.config)
    _check_adapter(composed.config)
    check_card(composed, machine)
    planned = plan_here(composed.config, machine)
    for refusal in gate(planned, force=True):  # whether groups carry signal does not matter here
        if isinstance(refusal, DoesNotFit) and not force:
            raise refusal
    config = planned.config
    check_dtype(config, device_on(machine, config))
    check_weights(config)
    most = min(config.task.limit or math.inf, steps * ROWS)
    examples = draw_examples(task, Selection("train", config.task.limit, config.task.levels, config.seed), int(most))
    check_scoring(config, rewards, task, examples)
    return config, task, examples


def _check_adapter(config: RunConfig) -> None:
    """Raises `ConfigError` unless one adapter learns in the same layers all the time."""
    trainable = config.trainable
    for key, usual in (("method", "lora"), ("select", "none"), ("schedule", "fixed")):
        if (value := getattr(trainable, key)) != usual:
            what = f"trainable.{key} = {value!r}: a warm-up teaches an adapter, in the same layers all the time."
            raise ConfigError(what, hint=f"Set trainable.{key}={usual}.")


def _encoded(
    policy: Policy, config: RunConfig, task: Task, examples: Sequence[Example], note: Callable[[str], None]
) -> list[Encoded]:
    """Returns the ids of prompts and gold completions that are within the run's lengths. Raises `TaskError`."""
    grpo = config.grpo
    rows = [encode_turn(policy, one.prompt, gold_completion_of(task, one), truncated=False) for one in examples]
    fits = [row for row in rows if len(row[0]) <= grpo.max_prompt_tokens and len(row[1]) <= grpo.max_completion_tokens]
    if not fits:
        raise TaskError(
            f"None of {len(rows)} gold completions of task {config.task.name!r} is within "
            f"{grpo.max_prompt_tokens} + {grpo.max_completion_tokens} tokens.",
            hint="Raise grpo.max_prompt_tokens or grpo.max_completion_tokens.",
        )
    if len(fits) < len(rows):
        note(f"{len(rows) - len(fits)} of {len(rows)} gold completions are too long for the run, and left out")
    return fits


def _train(
    policy: Policy,
    config: RunConfig,
    settings: SftSettings,
    encoded: Sequence[Encoded],
    run_dir: RunDir,
    listen: Listener,
) -> list[float]:
    every = max(1, settings.steps // 10)

    def report(step: int, loss: float) -> None:
        if step % every == 0 or step == 1:
            listen(PhaseStarted(f"warm-up: step {step} of {settings.steps}, loss {loss:.3f}"))

    found = catch_oom(lambda: sft_losses(policy, config, settings, encoded, run_dir.trackers, report))
    if isinstance(found, OutOfMemory):
        what = f"Memory ran out in the warm-up, with {config.micro_batch} rows in a micro-batch."
        raise TrainingError(what, hint=f"Set memory.micro_batch={max(1, config.micro_batch // 2)}.")
    if not all(map(math.isfinite, found)):
        raise TrainingError("The loss of the warm-up is not a number.", hint="Lower --learning-rate.")
    return found


def _about(config: RunConfig, steps: int) -> dict[str, Any]:
    return {
        "kind": "warmup",
        "model": config.model.name,
        "task": config.task.name,
        "steps": steps,
        "config": config.model_dump(mode="json"),
        "weights": fingerprint(config.model.name, config.model.revision),
        "lineage": stages_before(config),
    }


@contextlib.contextmanager
def _removed_on_failure(run_dir: RunDir) -> Iterator[None]:
    """Leaves no half of an adapter: what is written before the end is the log alone."""
    try:
        yield
    except BaseException:
        run_dir.undo()
        raise
