"""The record of `lowmem-rl prove`: its schema, its digest, how it is written and read.

A record may come from anybody, so it is hostile until it is read here: its size, its types and ranges, its digest, and
what it states twice. The digest is SHA-256 over its canonical JSON without the digest. It shows accidental changes and
careless ones; it does not show who wrote the record.
"""

import json
import os
import re
from collections.abc import Mapping
from datetime import date
from hashlib import sha256
from itertools import pairwise
from math import isclose
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lowmem_rl.errors import ConfigError
from lowmem_rl.memory.calibration import Footprint
from lowmem_rl.models.hardware import CARDS, Card, recognise
from lowmem_rl.stats import bootstrap_median
from lowmem_rl.storage.disk import write_file

SCHEMA: Literal[1] = 1
TOOL: Literal["lowmem-rl prove"] = "lowmem-rl prove"
LARGEST_BYTES = 1_000_000
SIMULATED = "simulated"
"""In the driver's version of a card that tests simulate."""
_LONGEST, _MOST = 4000, 1000
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
_HINT = "Ask its sender for the file as `lowmem-rl prove` wrote it."


def _readable(text: str) -> str:
    if _CONTROLS.search(text):
        raise ValueError("a control character")
    return text


Text = Annotated[str, Field(max_length=_LONGEST), AfterValidator(_readable)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[ -~]+$")]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}(-dirty)?$")]
Bytes = Annotated[int, Field(ge=0, le=2**50)]
Count = Annotated[int, Field(ge=1, le=2**24)]
Seconds = Annotated[float, Field(ge=0, le=1e6)]
Duration = Annotated[float, Field(gt=0, le=1e6)]
"""Seconds of something that took time."""
Scalar = Text | bool | int | float | None
Figure = Scalar | Annotated[list[Scalar], Field(max_length=_MOST)]


class Part(BaseModel):
    """A part of a record: no key too many, no type but its own, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, defer_build=True)


class MachineFacts(Part):
    """What machine.json of a run holds (`telemetry.environment`)."""

    gpu: Name
    driver: Name | None
    gpu_bytes: Bytes
    device: Literal["cuda"]
    dtype: Literal["bfloat16", "float16", "float32"]
    cores: Count
    ram_bytes: Bytes
    python: Name
    platform: Name
    versions: Annotated[dict[Name, Name | None], Field(max_length=50)]
    commit: Commit | None
    """None if lowmem-rl does not run from a checkout; with -dirty if that has changes."""

    @property
    def is_simulated(self) -> bool:
        """True for a card that tests simulate: its times and its memory are not a card's."""
        return SIMULATED in (self.driver or "")


class CardFacts(Part):
    """What the estimate knows of the card."""

    key: Name
    compute_capability: tuple[Annotated[int, Field(ge=3, le=99)], Annotated[int, Field(ge=0, le=99)]]
    offered_bytes: Bytes
    cuda: Name | None
    """CUDA's version in torch."""

    def to_card(self, name: str) -> Card:
        """Returns the card for the estimate."""
        return Card(self.key, name, self.offered_bytes, self.compute_capability, "a record")


class CheckResult(Part):
    """How a check ended."""

    name: Name
    status: Literal["ok", "failed", "left out"]
    seconds: Seconds
    result: Text
    """In a few words; why, if it failed or was left out."""
    figures: Annotated[dict[Name, Figure], Field(max_length=50)]


class Planned(Part):
    """What the planner chose for the card."""

    bits: Literal[4, 16]
    micro_batch: Count
    rollout_rows: Count
    checkpointing: Literal["unsloth", "plain", "none"]
    kept_states: Literal["off", "host", "card"]
    rollout_weights: Literal["quantized", "merged"]


class PhaseMemory(Part):
    """A phase of the measured step."""

    predicted: Footprint
    measured: Footprint


class MemoryPart(Part):
    """The longest step of the preset: what was met, and each phase."""

    step: Count
    prompt_tokens: Count
    completion_tokens: Count
    kept_share: Annotated[float, Field(ge=0, le=1)]
    expandable_segments: bool
    file_bytes: Bytes | None
    quantised: Literal["no", "plain", "dynamic"]
    phases: Annotated[dict[Name, PhaseMemory], Field(min_length=1, max_length=10)]

    @property
    def predicted_bytes(self) -> int:
        """The process's peak."""
        return max(phase.predicted.process_bytes for phase in self.phases.values())

    @property
    def measured_bytes(self) -> int:
        """The process's peak."""
        return max(phase.measured.process_bytes for phase in self.phases.values())


class ArmSeconds(Part):
    """Every timed step of an arm."""

    rounds: Annotated[list[Duration], Field(min_length=1, max_length=_MOST)]
    peak_bytes: Bytes
    engine: Name

    @property
    def median(self) -> float:
        return median(self.rounds)


class RatioPart(Part):
    """How many times as long Unsloth's defaults take: the median over rounds, and its 95 % bootstrap interval."""

    median: Duration
    low: Duration
    high: Duration
    rounds: Count


class StepPart(Part):
    """A step with the same tokens on both arms, in turns."""

    prompts: Count
    group_size: Count
    useful_tokens: Count
    longest_prompt_tokens: Count
    completion_tokens: Count
    """The longest."""
    ours: ArmSeconds
    unsloth: ArmSeconds
    ratio: RatioPart
    gradient_error: Annotated[float, Field(ge=0)] | None

    @model_validator(mode="after")
    def _ratio_is_of_the_rounds(self) -> Self:
        if len(self.ours.rounds) != len(self.unsloth.rounds):
            raise ValueError("the arms have unequal numbers of rounds")
        ratios = [theirs / mine for theirs, mine in zip(self.unsloth.rounds, self.ours.rounds, strict=True)]
        interval = bootstrap_median(ratios)
        stated = (self.ratio.median, self.ratio.low, self.ratio.high)
        if self.ratio.rounds != len(ratios) or not _close(stated, (median(ratios), interval.low, interval.high)):
            raise ValueError("the ratio is not that of the rounds")
        return self


def _close(stated: tuple[float, ...], found: tuple[float, ...]) -> bool:
    return all(isclose(one, other, rel_tol=1e-9) for one, other in zip(stated, found, strict=True))


class PresetPart(Part):
    """What was measured of a preset."""

    preset: Name
    model: Name
    weights: Literal["cached", "random", "embedded"]
    """The preset's own model, random numbers in its shape, or the embedded model in place of it."""
    planned: Planned
    config: Annotated[dict[Name, Any], Field(max_length=50)]
    config_sha256: Hex
    memory: MemoryPart | None
    step: StepPart | None

    @model_validator(mode="after")
    def _digest_is_of_the_config(self) -> Self:
        if self.config_sha256 != digest_of(self.config):
            raise ValueError("config_sha256 is not that of the config")
        return self


class ProofRecord(Part):
    """A whole record."""

    version: Literal[1]
    tool: Literal["lowmem-rl prove"]
    date: date
    command: Text
    quick: bool
    machine: MachineFacts
    card: CardFacts
    checks: Annotated[list[CheckResult], Field(max_length=50)]
    measured: PresetPart | None
    estimator: Hex
    """Of the files of the memory estimate (`replay.estimator_digest`)."""
    digest: Hex

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        known = recognise(self.machine.gpu, self.machine.gpu_bytes)
        if self.card.key != (known.key if known else self.machine.gpu.lower().replace(" ", "-")):
            raise ValueError(f"card {self.card.key} is not {self.machine.gpu}")
        if known and self.card.compute_capability != CARDS[known.key].compute_capability:
            raise ValueError(f"card {self.card.key} has another compute capability")
        if len({check.name for check in self.checks}) < len(self.checks):
            raise ValueError("a check is there twice")
        return self

    @property
    def card_label(self) -> str:
        """The card's key, marked if tests have simulated it."""
        return f"{self.card.key} ({SIMULATED})" if self.machine.is_simulated else self.card.key


def canonical(content: object) -> bytes:
    """Returns the canonical JSON of plain data: sorted keys, no spaces. Raises `ValueError` for NaN and infinity."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False).encode()


def digest_of(content: object) -> str:
    """Returns the SHA-256 of the canonical JSON."""
    return sha256(canonical(content)).hexdigest()


def sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the record with its digest."""
    content = {key: value for key, value in record.items() if key != "digest"}
    return {**content, "digest": digest_of(content)}


def write_record(record: Mapping[str, Any], path: Path) -> None:
    """Writes the record with its digest, whole or not at all. Raises `OSError`."""
    write_file(path, (json.dumps(sealed(record), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


def read_record(path: Path) -> ProofRecord:
    """Returns the record in a file. Raises `ConfigError` if it is none, or if it was changed."""
    found = _parsed(path)
    if found.get("tool") != TOOL or found.get("version") != SCHEMA:
        raise _refused(path, f"it is no record of `{TOOL}`, version {SCHEMA}")
    try:
        record = ProofRecord.model_validate_json(json.dumps(found))  # in the order of the file
    except ValidationError as error:
        raise _refused(path, _first_fault(error)) from None
    if sealed(found)["digest"] != record.digest:
        raise _refused(path, "its digest is not that of its content: it was changed after it was written")
    return record


def _parsed(path: Path) -> dict[str, Any]:
    try:
        if not os.path.isfile(path):  # a pipe would be waited for
            raise ValueError("it is no file")
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise _refused(path, f"it cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if len(content) > LARGEST_BYTES:
        raise _refused(path, f"it is larger than {LARGEST_BYTES // 1000} kB")
    try:
        found = json.loads(content.decode("utf-8"), parse_constant=_no_number, object_pairs_hook=_each_once)
        canonical(found)
    except (ValueError, RecursionError, OverflowError) as error:
        raise _refused(path, f"it is no JSON: {str(error)[:100]}") from None
    if not isinstance(found, dict):
        raise _refused(path, "it is no JSON object")
    return found


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = sorted(name for name, _ in pairs)
    if twice := next((name for name, after in pairwise(names) if name == after), None):
        raise ValueError(f"the key {twice[:40]!r} is there twice")
    return dict(pairs)


def _first_fault(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = ".".join(str(name)[:40] for name in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def _refused(path: Path, why: str) -> ConfigError:
    return ConfigError(f"Record {str(path)!r} is refused: {why}.", hint=_HINT)
