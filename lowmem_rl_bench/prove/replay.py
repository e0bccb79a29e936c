"""A record's prediction, computed again: from the preset's name and what was met, by the estimate of this version.

A record is refused if that is impossible: its preset is unknown or has changed since, a setting is not one any more, a
phase does not exist. If it was predicted by the files that are here, the bytes must be equal as well. A later version
predicts otherwise; what is shown is then its own prediction, never a stated one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path

from lowmem_rl.config.compose import flatten
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError, LowMemError
from lowmem_rl.memory.calibration import Footprint
from lowmem_rl.memory.estimate import MemoryEstimate, estimate
from lowmem_rl.memory.first_step import predicted_footprints
from lowmem_rl.memory.workload import workload_of
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.planning.heaviest_step import heaviest_step
from lowmem_rl_bench.prove.measured_preset import compose, planned_settings, shape_of
from lowmem_rl_bench.prove.record import CardFacts, MemoryPart, PresetPart, ProofRecord

_DECIDING = ("model", "adapter", "trainable", "grpo", "rollout", "optimizer", "memory", "start_from")
"""Sections that decide memory and time of a step, together with eval.batch. Others may change: a record stays one of
the preset."""
_PREDICTING = ("memory/*.py", "models/shape.py", "models/catalogue.py", "planning/heaviest_step.py", "trainable/*.py")
"""Files of the library that decide a prediction."""


@dataclass(frozen=True, slots=True)
class CheckedRecord:
    """A record that holds, with what this version predicts for its step."""

    record: ProofRecord
    predicted: dict[str, Footprint]
    """By phase; empty without a measured step."""

    @property
    def predicted_bytes(self) -> int:
        """The process's peak over the measured phases."""
        return max(found.process_bytes for found in self.predicted.values())


def check(record: ProofRecord, source: str) -> CheckedRecord:
    """Returns the record with its prediction. Raises `ConfigError`, naming `source`, if it cannot be replayed."""
    measured = record.measured
    if measured is None or (measured.memory is None and measured.step is None):
        return CheckedRecord(record, {})
    try:
        config = replayed_config(measured)
        if measured.memory is None:
            return CheckedRecord(record, {})
        shape = met_shape(measured, measured.memory)
        estimated = replayed_estimate(config, shape, measured.memory, record.card, record.machine.gpu)
    except LowMemError as error:
        raise _unreplayable(source, str(error).rstrip(".")) from error
    predicted = predicted_footprints(estimated)
    for fault in _memory_faults(measured.memory, predicted, is_ours=record.estimator == estimator_digest()):
        raise _unreplayable(source, fault)
    return CheckedRecord(record, {phase: predicted[phase] for phase in measured.memory.phases})


def replayed_config(measured: PresetPart) -> RunConfig:
    """Returns the measured run, composed again. Raises `ConfigError` if it is not the one in the record."""
    settings = planned_settings(measured.planned.model_dump())
    config = compose(measured.preset, measured.weights, settings).config
    if measured.model != config.model.name:
        raise ConfigError(f"{measured.preset} trains {config.model.name}, not {measured.model}")
    for difference in _differences(measured, config):
        raise ConfigError(f"{measured.preset} has changed since: {difference}")
    return config


def _differences(measured: PresetPart, config: RunConfig) -> Iterator[str]:
    here, stated = flatten(config.model_dump(mode="json")), flatten(measured.config)
    for key in sorted(stated.keys() | here.keys()):
        decides = key.partition(".")[0] in _DECIDING or key == "eval.batch"
        if decides and stated.get(key, here.get(key)) != here.get(key, ()):
            yield f"{key} is {str(here.get(key))[:80]}, and was {str(stated[key])[:80]}"


def met_shape(measured: PresetPart, memory: MemoryPart) -> ModelShape:
    """Returns the shape of the loaded model, whose files decide a part of its memory."""
    shape = shape_of(measured.preset, measured.weights)
    return replace(shape, file_bytes=memory.file_bytes, quantised=memory.quantised)


def replayed_estimate(
    config: RunConfig, shape: ModelShape, memory: MemoryPart, card: CardFacts, name: str
) -> MemoryEstimate:
    """Returns the estimate for the step that was met. Raises `ConfigError` for one that the run cannot have."""
    limits, (one_step, _, step) = config.grpo, heaviest_step(config, shape.num_layers)
    if memory.prompt_tokens > limits.max_prompt_tokens or memory.completion_tokens > limits.max_completion_tokens:
        raise ConfigError("its rows are longer than the preset's")
    if memory.step != step:
        raise ConfigError(f"the heaviest step of the preset is {step}, not {memory.step}")
    met = replace(
        workload_of(one_step, shape, step),
        prompt_tokens=memory.prompt_tokens,
        completion_tokens=memory.completion_tokens,
        kept_share=memory.kept_share,
        expandable_segments=memory.expandable_segments,
    )
    return estimate(met, shape, card.to_card(name))


def _memory_faults(memory: MemoryPart, predicted: dict[str, Footprint], *, is_ours: bool) -> Iterator[str]:
    for phase, found in memory.phases.items():
        if phase not in predicted:
            yield f"the estimate has no phase {phase!r}"
        elif is_ours and found.predicted != predicted[phase]:
            stated, here = found.predicted.process_bytes, predicted[phase].process_bytes
            yield f"for the phase {phase} it states {stated} predicted bytes, and {here} are predicted here"


@cache
def estimator_digest() -> str:
    """Returns the SHA-256 of the files that decide a prediction: equal files predict equal bytes."""
    library = Path(__file__).resolve().parents[2] / "lowmem_rl"
    files = sorted(file for pattern in _PREDICTING for file in library.glob(pattern))
    digest = sha256()
    for file in files:
        digest.update(f"{file.relative_to(library).as_posix()}\n{file.read_text(encoding='utf-8')}".encode())
    return digest.hexdigest()


def _unreplayable(source: str, why: str) -> ConfigError:
    hint = "Measure again with this version: `lowmem-rl prove`."
    return ConfigError(f"Record {source!r} cannot be replayed: {why}.", hint=hint)
