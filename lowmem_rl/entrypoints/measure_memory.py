"""One real step, the longest possible one of a run, with the predicted and the measured peak of each phase.

Longest first: the run's longest prompts, each completed up to the limit; under `trainable.schedule` the step in which
most layers learn. If that step fits, the whole run fits.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.config.layer_choice import text_of
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.kept_copies import KeptCopies
from lowmem_rl.engine.logprobs import kl_from_base
from lowmem_rl.engine.policy import import_unsloth, prepare_process
from lowmem_rl.engine.reference import load_policy_at_start
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import GREEDY
from lowmem_rl.entrypoints.longest_step import (
    LastTokens,
    sampler_up_to_the_limit,
    trainer_of,
)
from lowmem_rl.entrypoints.preflight import PreparedRun, prepare
from lowmem_rl.errors import DoesNotFit
from lowmem_rl.example import Message
from lowmem_rl.grpo.train_dataset import check_enough, prompts_needed, within_prompt_limit
from lowmem_rl.memory.base_comparison import KL_COMPLETIONS
from lowmem_rl.memory.calibration import CPU, Calibration, CalibrationRow, calibration_for, store
from lowmem_rl.planning.explain import advice_of
from lowmem_rl.planning.heaviest_step import heaviest_step
from lowmem_rl.planning.plan import Plan
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.telemetry.events import Listener, Note, PhaseStarted
from lowmem_rl.telemetry.memory_profiler import MemoryProfiler, StepLengths, measures_each_phase
from lowmem_rl.telemetry.output_capture import capture_library_output
from lowmem_rl.training.measured_phases import first_step_rows
from lowmem_rl.training.schedule_hook import hook_of_step
from lowmem_rl.training.step import Hooks
from lowmem_rl.units import GIB


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measured step: one row per phase, in the order of time."""

    rows: tuple[CalibrationRow, ...]
    lengths: StepLengths
    limits: StepLengths
    schedule: str
    """`trainable.schedule` of the run."""
    step: int
    """The step of the run whose layers learned."""
    layers: str
    """These layers, as `trainable.layers` names them."""
    has_phase_peaks: bool
    """True if each phase has its own peak; else a phase shows the highest so far."""
    calibration: Calibration | None
    """What later predictions use of this and earlier measurements; None if nothing could be stored."""

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
            "step": self.step,
            "layers": self.layers,
            "phases": {
                row.phase: {"predicted": row.predicted.model_dump(), "measured": row.measured.model_dump()}
                for row in self.rows
            },
        }


def measure(
    composed: ResolvedConfig, listen: Listener = lambda event: None, *, repeats_nothing: bool = True
) -> Measurement:
    """Takes one step, stores its peaks, and leaves no other trace.

    A run that is predicted not to fit is measured, too: that is only a prediction. With `repeats_nothing` off, work
    that only repeats an allocation is done as well: it gives the same peaks and takes much longer.
    Raises what `entrypoints.train.run` raises before a run, and `DoesNotFit` if memory runs out.
    """
    prepared = prepare(composed, force=True)
    config, schedule, step = heaviest_step(prepared.plan.config, prepared.plan.target.shape.num_layers)
    prepared = replace(prepared, plan=replace(prepared.plan, config=config))
    with (
        tempfile.TemporaryDirectory(prefix="lowmem-rl-measure-") as out,
        capture_library_output(Path(out) / "libraries.log"),
    ):
        profiler = _profiled_step(prepared, step, Path(out), listen, repeats_nothing)
    plan = prepared.plan
    rows = first_step_rows(profiler, plan, step=step, source="measure")
    store(rows, note := lambda line: listen(Note(line)))
    return Measurement(
        rows=rows,
        lengths=profiler.lengths,
        limits=StepLengths(config.grpo.max_prompt_tokens, config.grpo.max_completion_tokens),
        schedule=config.trainable.schedule,
        step=step,
        layers=text_of(schedule.at(step)),
        has_phase_peaks=measures_each_phase(prepared.device),
        calibration=calibration_for(plan.target.card, plan.estimate.workload.stack, note),
    )


def out_of_memory(profiler: MemoryProfiler, plan: Plan) -> DoesNotFit:
    """Returns the error to raise after a real OOM in the first phase that is not measured."""
    phase = next((name for name in plan.estimate.phases if name not in profiler.phases), "save")
    predicted = plan.estimate.phase_bytes(phase) / GIB
    cheapest = next((item.change for item in advice_of(plan) if item.saves_bytes > 0), "a smaller model")
    return DoesNotFit(
        f"Memory ran out in the phase {phase}, for which {predicted:.1f} GiB were predicted.",
        hint=f"Cheapest change: {cheapest}. Other processes on the card count too.",
    )


def _profiled_step(
    prepared: PreparedRun, step: int, out: Path, listen: Listener, repeats_nothing: bool
) -> MemoryProfiler:
    prepare_process(prepared.plan.config, prepared.device)
    import_unsloth()  # before torch, which the profiler imports
    import torch

    profiler = MemoryProfiler(prepared.device)
    try:
        _run_phases(profiler, prepared, step, out, listen, repeats_nothing)
    except torch.OutOfMemoryError as error:
        raise out_of_memory(profiler, prepared.plan) from error
    return profiler


def _run_phases(
    profiler: MemoryProfiler, prepared: PreparedRun, step: int, out: Path, listen: Listener, repeats_nothing: bool
) -> None:
    config = prepared.plan.config
    listen(PhaseStarted(f"loading {config.model.name}"))
    profiler.begin()
    policy = load_policy_at_start(config, prepared.device)
    profiler.end("load")
    usable = within_prompt_limit(policy, prepared.train, config.grpo.max_prompt_tokens)
    check_enough(usable, config, overlong=len(prepared.train) - len(usable))
    longest_first = sorted(usable, key=lambda example: len(policy.tokenize(example.prompt)), reverse=True)
    listen(PhaseStarted("one step, the longest possible one"))
    sampler = sampler_up_to_the_limit(policy, config, LastTokens if repeats_nothing else Sampler)
    sampler.kept = KeptCopies(keeps_memory=not policy.device.is_gpu) if prepared.plan.keeps_copies else None
    profiler.is_on = True
    examples, rewards = longest_first[: prompts_needed(config)], len(prepared.rewards.rewards)
    hooks = Hooks((profiler, *hook_of_step(config, RunDir(out), policy.model, step)))
    trainer_of(sampler, examples, rewards, out, hooks, repeats_nothing=repeats_nothing).train()
    listen(PhaseStarted("evaluating"))
    profiler.begin()
    _evaluate(sampler, config, [one.prompt for one in longest_first])
    profiler.end("evaluation")
    policy.save_adapter(out / "adapter")
    profiler.end("save")


def _evaluate(sampler: Sampler, config: RunConfig, longest_first: Sequence[Sequence[Message]]) -> None:
    """Answers prompts, and takes the KL of completions as long as they may be."""
    # Two waves with our engine, which reads prompts of the second while the first is running; else one.
    rows, limit = config.eval.batch, config.grpo.max_completion_tokens
    asked = list(islice(cycle(longest_first), 2 * rows if sampler.uses_lowmem_engine else rows))
    for _ in sampler.answers(asked, GREEDY, max_tokens=limit, batch=rows):
        pass
    contexts = [sampler.policy.tokenize(prompt) for prompt in islice(cycle(longest_first), KL_COMPLETIONS)]
    kl_from_base(sampler.policy, [(ids, [*ids[:1]] * limit) for ids in contexts], batch=config.micro_batch)
