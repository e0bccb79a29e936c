"""Measured rows: what was run, on which card, and what it took. Their schema, and the workload of a row."""

import json
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from lowmem_rl.errors import ConfigError
from lowmem_rl.memory.terms import STATE_BYTES
from lowmem_rl.memory.workload import (
    LINEAR_LAYERS,
    Attention,
    Checkpointing,
    Layer,
    Logits,
    Loss,
    Method,
    Stack,
    Workload,
)
from lowmem_rl.models.hardware import CARDS, Card

LARGEST_FILE_BYTES = 64_000_000
Bytes = Annotated[int, Field(gt=0, le=2**50)]
Rows = Annotated[int, Field(ge=1, le=2**20)]
Tokens = Annotated[int, Field(ge=0, le=2**24)]
Share = Annotated[float, Field(gt=0, le=1)]
_VARYING = re.compile(r"\brows of \d+ to \w+ tokens\b|\blengths vary\b", re.IGNORECASE)
_OPTIMIZERS = (*STATE_BYTES, "adamw", "adamw_torch", "adamw_torch_fused")


def _full_names(value: object) -> object:
    """Takes q for q_proj, as published reports write it."""
    if not isinstance(value, list | tuple):
        return value
    return tuple(f"{name}_proj" if f"{name}_proj" in LINEAR_LAYERS else name for name in value)


def _known_optimizer(name: str) -> str:
    if name.partition(" ")[0] not in _OPTIMIZERS:
        raise ValueError(f"no formula for its states; known are {', '.join(_OPTIMIZERS)}")
    return name


class MeasuredRow(BaseModel):
    """One run. After `rollout_engine` everything is optional; unknown keys are kept."""

    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)

    id: Annotated[str, Field(min_length=1)]
    source: str
    gpu: str | None
    stack: Stack
    loss: Loss
    method: Method
    model: str
    lora_rank: Annotated[int, Field(ge=0, le=65_536)] | None
    lora_targets: Annotated[tuple[str, ...], BeforeValidator(_full_names)] | None
    micro_batch: Rows
    prompt_tokens: Tokens
    completion_tokens: Tokens
    group_size: Rows | None
    rollout_rows: Rows | None
    checkpointing: Checkpointing
    optimizer: Annotated[str, AfterValidator(_known_optimizer)] | None
    rollout_engine: Literal["lowmem", "generate", "vllm"] | None

    peak_allocated_bytes: Bytes | None = None
    peak_reserved_bytes: Bytes | None = None
    process_bytes: Bytes | None = None
    load_reserved_bytes: Bytes | None = None
    """The pool before the first step."""
    oom: bool = False
    rounded_to_bytes: Annotated[int, Field(ge=0, le=2**40)] = 0
    """The step to which the source rounds; a difference within half of it is no error."""
    lengths_at_most: bool = False
    """The lengths are limits, not what was run: the peak can only be bounded."""
    left_out: str | None = None
    """Why the row cannot be scored."""

    layer: Layer | None = None
    attention: Attention | None = None
    logits: Logits | None = None
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    compute_bytes: Literal[2, 4] = 2
    weight_bytes: Literal[2, 4] | None = None
    residual_bytes: Literal[2, 4] | None = None
    adapter_bytes: Literal[2, 4] | None = None
    rope_positions: Tokens = 0
    """Unsloth of 2024, whose layers each had a table of cosines and sines: its positions."""
    tied_head_in_files: bool = False
    """The model's files hold the head, too, though it is the embeddings."""
    keeps_4bit_inputs: bool = False
    """bitsandbytes before 0.44, which kept the input of every 4-bit layer."""
    double_quantisation: bool | None = None
    dynamic_checkpoint: bool = False
    upcast_remainder: bool | None = None
    accumulated: bool = True
    standby: bool = False
    vllm_utilisation: Share | None = None
    reference_pass: bool = False
    rollout_weights: Literal["quantized", "merged"] = "quantized"
    """What our engine, `lowmem`, samples with."""
    eval_rows: Annotated[int, Field(ge=0, le=2**20)] = 0
    """Rows answered together in an evaluation that the peak includes; 0 without one."""
    expandable_segments: bool = False
    lengths_vary: bool = False
    """Rows differ in length and the lengths here are the longest: they are scored separately."""
    note: str = ""
    """The source's conditions in words; "rows of 91 to 2048 tokens" says that lengths vary."""

    @property
    def is_varying(self) -> bool:
        """Rows differ in length, by their key or by their note."""
        return self.lengths_vary or _VARYING.search(self.note) is not None

    @model_validator(mode="after")
    def _has_tokens(self) -> Self:
        if not self.left_out and self.prompt_tokens + self.completion_tokens == 0:
            raise ValueError("prompt_tokens and completion_tokens are both 0")
        return self


def read_rows(path: Path) -> list[MeasuredRow]:
    """Reads a file of rows. Raises `ConfigError` naming the row's number, from 1, and the field."""
    content = _read_json(path)
    if not isinstance(content, list):
        raise ConfigError(f"{path} holds {type(content).__name__}, not a list of rows.", hint="Wrap the rows in [ ].")
    rows = [_read_row(row, f"{path.name}, row {number}") for number, row in enumerate(content, start=1)]
    first: dict[str, int] = {}
    for number, row in enumerate(rows, start=1):
        if first.setdefault(row.id, number) != number:
            what = f"{path.name}, row {number}: id is {row.id!r}, as in row {first[row.id]}."
            raise ConfigError(what, hint="Give each row an id of its own.")
    return rows


def _read_json(path: Path) -> object:
    """Reads a regular file: a pipe would never end."""
    try:
        if path.exists() and not path.is_file():
            raise ValueError("not a regular file")
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ValueError(f"larger than {LARGEST_FILE_BYTES // 10**6} MB")
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        what = f"{path} cannot be read as JSON: {getattr(error, 'strerror', None) or error}."
        raise ConfigError(what, hint="Give a file that holds a list of rows.") from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number of JSON")


def _read_row(content: object, where: str) -> MeasuredRow:
    try:
        return MeasuredRow.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field, rule = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        given = f"{field or 'the row'} is {repr(first['input'])[:60]}: {rule[:1].lower()}{rule[1:]}"
        missing, whole = first["type"] == "missing", first["type"] == "value_error" and not field
        what = f"{field} is missing" if missing else rule if whole else given
        hint = "`MeasuredRow` in lowmem_rl/memory/measured_rows.py lists the fields and what each may be."
        raise ConfigError(f"{where}: {what}.", hint=hint) from error


def card_of(gpu: str | None) -> Card | None:
    """Returns the card of a name as reports write it ("Tesla T4", "NVIDIA A100-SXM4-40GB"), or None."""
    text = (gpu or "").lower()
    for key, card in CARDS.items():
        family, _, size = key.partition("-")
        if re.search(rf"(?<![a-z0-9]){family}(?![0-9a-z])", text) and size in text:
            return card
    return None


def workload_of_row(row: MeasuredRow, **changes: Any) -> Workload:
    """Returns the workload of a row; what the row leaves open is its stack's default.

    A supervised run on plain transformers has whole logits, float32 norms and embeddings after
    `prepare_model_for_kbit_training`, and 4-bit constants that are not quantised again; GRPO on the same stack is TRL's
    own trainer, whose loss over whole logits has a kind of its own.
    """
    plain, card = row.stack == "trl", card_of(row.gpu)
    # All rows are older than torch 2.14: below Ampere no fused kernel took grouped queries, and keys were copied.
    copies_keys = plain or (card is not None and card.compute_capability < (8, 0))
    supervised = plain and row.loss == "sft"
    defaults: dict[str, Any] = {
        "layer": "plain" if plain else "unsloth",
        "attention": "sdpa" if copies_keys else "flash",
        "logits": "full" if supervised else "chunked",
        "double_quantisation": not supervised,
        "upcast_remainder": supervised and row.method == "qlora",
        "lora_rank": 0,
        "lora_targets": LINEAR_LAYERS if row.method != "full" else (),
        "group_size": 1,
        "rollout_rows": row.micro_batch,
        "rollout_engine": "generate",
    }
    optimizer = "adamw_torch" if row.optimizer in (None, "adamw") else row.optimizer.split()[0]
    shared = {field.name for field in fields(Workload)} & MeasuredRow.model_fields.keys()
    given = {name: value for name in shared if (value := getattr(row, name)) not in (None, ())}
    if plain and row.loss == "grpo" and row.logits == "full":
        given["logits"] = "selective"  # TRL's loss over whole logits
    decided = {
        "optimizer": optimizer,
        "old_logprob_pass": row.rollout_engine == "vllm",
        "lengths_vary": row.is_varying,
    }
    return Workload(**(defaults | given | decided | changes))


MEASURED: Sequence[str] = ("allocated", "reserved", "process", "load")
FIELDS = {
    "allocated": "peak_allocated_bytes",
    "reserved": "peak_reserved_bytes",
    "process": "process_bytes",
    "load": "load_reserved_bytes",
}
