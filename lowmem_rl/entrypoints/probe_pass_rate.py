"""Samples training examples with the base model, counts correct ones, and predicts the signal of groups."""

from dataclasses import dataclass
from pathlib import Path

from lowmem_rl.config.compose import ResolvedConfig
from lowmem_rl.engine.device import check_dtype, device_on
from lowmem_rl.engine.policy import prepare_process
from lowmem_rl.engine.reference import load_policy_at_start
from lowmem_rl.engine.row_length import asking
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.entrypoints.preflight import check_card, check_settings, check_weights
from lowmem_rl.evaluation.grader import grader_of
from lowmem_rl.evaluation.pass_rate_probe import PassRateProbe, probe
from lowmem_rl.evaluation.prompt_limit import examples_with_room
from lowmem_rl.memory.calibration import calibration_for
from lowmem_rl.models.hardware import this_machine
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.search import resolve_auto
from lowmem_rl.signal.pass_rate import measured
from lowmem_rl.signal.signal_report import SignalReport, signal_of
from lowmem_rl.storage.run_dir import write_json
from lowmem_rl.tasks.select import draw_examples
from lowmem_rl.tasks.task import Selection
from lowmem_rl.telemetry.events import EvalProgressed, Listener, Note, PhaseStarted
from lowmem_rl.telemetry.output_capture import capture_library_output


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """The counts, the predicted signal for the run's group size, and the file of the counts."""

    probe: PassRateProbe
    signal: SignalReport
    path: Path


def run_probe(
    composed: ResolvedConfig, *, num_examples: int, samples: int, path: Path, listen: Listener = lambda event: None
) -> ProbeResult:
    """Samples each of `num_examples` training examples `samples` times and writes the counts to `path`.

    A new adapter changes nothing: this samples the base model, or the adapter of `start_from`.
    Raises `ConfigError`, `TaskError` or `SetupError` before the model is loaded.
    """
    machine = this_machine()
    _, task = check_settings(composed.config)
    grader = grader_of(task)
    check_card(composed, machine)
    shape = load_shape(composed.config.model.name, composed.config.model.revision)
    known = calibration_for(machine.card, "unsloth")
    config = resolve_auto(composed.config, shape, machine.usable_bytes, machine.card, known)
    device = device_on(machine, config)
    check_dtype(config, device)
    check_weights(config)
    examples = draw_examples(task, Selection("train", num_examples, config.task.levels, config.seed), num_examples)
    listen(PhaseStarted(f"loading {config.model.name}"))
    with capture_library_output(path.with_suffix(".log")):
        prepare_process(config, device)
        prompts, limit = [example.prompt for example in examples], config.grpo.max_completion_tokens
        policy = load_policy_at_start(config, device, [asking("the probe", prompts, limit)])
        examples = examples_with_room(policy, examples, limit, lambda text: listen(Note(text)))
        listen(PhaseStarted("sampling"))
        total = len(examples) * samples
        counted = probe(
            Sampler(policy, config),
            config,
            examples,
            grader,
            samples=samples,
            on_progress=lambda done: listen(EvalProgressed("probe", done, total)),
        )
    write_json(path, counted.to_json())
    return ProbeResult(counted, signal_of(config, measured(counted.counts)), path)
