"""One real step, the longest the run can meet, with each phase's peak beside what was predicted for it.

Longest first: the run's longest prompts, each answered up to the limit. A run that fits here fits all the way.
"""

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.policy import Policy, import_unsloth, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import GREEDY
from lowmem_rl.entrypoints.longest_step import (
    LastTokens,
    sampler_up_to_the_limit,
    trainer_of,
)
from lowmem_rl.entrypoints.preflight import PreparedRun, prepare
from lowmem_rl.errors import DoesNotFit
from lowmem_rl.example import Example
from lowmem_rl.grpo.train_dataset import check_enough, prompts_needed, within_prompt_limit
from lowmem_rl.memory.calibration import CPU, Calibration, CalibrationRow, calibration_for, store
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl.planning.plan import Plan
from lowmem_rl.telemetry.events import Listener, Note, PhaseStarted
from lowmem_rl.telemetry.memory_profiler import MemoryProfiler, StepLengths, measures_phases_apart
from lowmem_rl.telemetry.output_capture import capture_library_output
from lowmem_rl.training.measured_phases import first_step_rows
from lowmem_rl.units import GIB


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured step: a row a phase, in the order in which they came."""

    rows: tuple[CalibrationRow, ...]
    lengths: StepLengths
    limits: StepLengths
    apart: bool
    """Each phase has its own peak; else a phase shows the highest so far."""
    calibration: Calibration | None
    """What later predictions take from this and earlier measurements; None where nothing could be stored."""

    @property
    def card(self) -> str:
        return self.rows[0].card

    @property
    def where(self) -> str:
        """The card for a person."""
        return "this CPU" if self.card == CPU else self.card

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return {
            "card": self.card,
            "prompt_tokens": self.lengths.prompt_tokens,
            "completion_tokens": self.lengths.completion_tokens,
            "phases": {
                row.phase: {"predicted": row.predicted.model_dump(), "measured": row.measured.model_dump()}
                for row in self.rows
            },
        }


def measure(
    composed: ResolvedConfig, listen: Listener = lambda event: None, *, repeats_nothing: bool = True
) -> Measurement:
    """Takes one step, stores what it took, and leaves nothing else behind.

    A run that is predicted not to fit is measured all the same: that is a prediction. What only repeats an allocation
    is done as well unless `repeats_nothing`: the same peaks, many times later.
    Raises what `training.run.run` raises before a run, and `DoesNotFit` where the memory runs out.
    """
    inputs = prepare(composed, force=True)
    inputs = replace(inputs, plan=replace(inputs.plan, config=single_step(inputs.plan.config)))
    with (
        tempfile.TemporaryDirectory(prefix="lowmem-rl-measure-") as out,
        capture_library_output(Path(out) / "libraries.log"),
    ):
        meter = _measured_step(inputs, Path(out), listen, repeats_nothing)
    rows = first_step_rows(meter, inputs.plan, source="measure")
    grpo, target = inputs.plan.config.grpo, inputs.plan.target
    store(rows, tell := lambda line: listen(Note(line)))
    return Measurement(
        rows=rows,
        lengths=meter.lengths,
        limits=StepLengths(grpo.max_prompt_tokens, grpo.max_completion_tokens),
        apart=measures_phases_apart(inputs.device),
        calibration=calibration_for(target.card, inputs.plan.estimate.workload.stack, tell),
    )


def single_step(config: RunConfig) -> RunConfig:
    """Returns the run cut to one step, without trackers."""
    return with_overrides(config, {"grpo.steps": 1, "logging.report_to": ()})


def longest(policy: Policy, examples: Sequence[Example]) -> list[Example]:
    """Returns the examples by the length of their prompts, the longest first."""
    return sorted(examples, key=lambda example: len(policy.tokenize(example.prompt)), reverse=True)


def out_of_memory(meter: MemoryProfiler, plan: Plan) -> DoesNotFit:
    """Returns the refusal that a card has given itself, in the first phase that is not measured."""
    phase = next((name for name in plan.estimate.phases if name not in meter.phases), "save")
    predicted = plan.estimate.phase_bytes(phase) / GIB
    cheapest = next((item.change for item in plan.advice if item.saves_bytes > 0), "a smaller model")
    return DoesNotFit(
        f"The memory ran out in the phase {phase}, for which {predicted:.1f} GiB were predicted.",
        hint=f"Cheapest change: {cheapest}. Other processes on the card count too.",
    )


def _measured_step(inputs: PreparedRun, out: Path, listen: Listener, repeats_nothing: bool) -> MemoryProfiler:
    config, device = inputs.plan.config, inputs.device
    prepare_process(config, device)
    import_unsloth()  # before torch, which the meter asks
    import torch

    meter = MemoryProfiler(device)
    try:
        _take_phases(meter, inputs, out, listen, repeats_nothing)
    except torch.OutOfMemoryError as error:
        raise out_of_memory(meter, inputs.plan) from error
    return meter


def _take_phases(
    meter: MemoryProfiler, inputs: PreparedRun, out: Path, listen: Listener, repeats_nothing: bool
) -> None:
    config = inputs.plan.config
    listen(PhaseStarted(f"loading {config.model.name}"))
    meter.begin()
    policy = load_policy(config, inputs.device)
    meter.end("load")
    usable = within_prompt_limit(policy, inputs.train, config.grpo.max_prompt_tokens)
    check_enough(usable, config, overlong=len(inputs.train) - len(usable))
    by_length = longest(policy, usable)
    examples = by_length[: prompts_needed(config)]
    listen(PhaseStarted("one step, the longest the run can meet"))
    sampler = sampler_up_to_the_limit(policy, config, LastTokens if repeats_nothing else Sampler)
    meter.is_on = True
    rewards = len(inputs.rewards.rewards)
    trainer_of(sampler, examples, rewards, out, meter, repeats_nothing=repeats_nothing).train()
    listen(PhaseStarted("evaluating"))
    _evaluate_once(meter, sampler, by_length)
    policy.save_adapter(out / "adapter")
    meter.end("save")


def _evaluate_once(meter: MemoryProfiler, sampler: Sampler, examples: Sequence[Example]) -> None:
    """Answers two waves with our engine, which reads prompts of the second while the first is at work; else one."""
    rows, limit = sampler.config.eval.batch, sampler.config.grpo.max_completion_tokens
    asked = itertools.islice(itertools.cycle(examples), 2 * rows if sampler.uses_lowmem_engine else rows)
    meter.begin()
    for _ in sampler.answers([example.prompt for example in asked], GREEDY, max_tokens=limit, batch=rows):
        pass
    meter.end("evaluation")
