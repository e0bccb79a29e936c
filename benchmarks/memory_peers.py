"""Our estimate and other estimators against the same measured rows, as far as each can be asked about them.

    pip install --target DIR --no-deps fitcheck-llm        # optional; without it that column is empty
    .venv/bin/python benchmarks/memory_peers.py --fitcheck DIR --out benchmarks/records/memory-peers.json

Asked are the rows that every tool has words for: supervised runs of one length whose pool or process was measured.
fitcheck-llm, Unsloth Studio's estimator and accelerate's `estimate_training_usage` (batch 1, no activations, no
adapters, nothing in 4 bit) run as they are installed. Each predicts
the process; for a row that has the pool alone, the tool's own allowance for the context is taken off.
"""

import argparse
import importlib
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

from lowmem_rl.memory.accuracy import ScoredRow, score
from lowmem_rl.memory.measured_rows import MeasuredRow, read_rows
from lowmem_rl.models.catalogue import find_shape
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.units import MIB

RECORDS = Path(__file__).parent / "records"
FILES = {"own rows": RECORDS / "memory_rows.json", "later rows": RECORDS / "memory_rows_2026-11-28.json"}
"""Rows that the formulas were made with, and rows that nobody had seen then."""
_FITCHECK_CONTEXT = 141 * MIB
"""Process less pool in fitcheck's own T4 runs."""

Predict = Callable[[MeasuredRow, ModelShape], int | None]
"""Returns bytes comparable with what the row measured, or None if the tool has no words for it."""


def fitcheck_estimator(folder: Path | None) -> Predict | None:
    """Returns fitcheck-llm's estimate, or None if it is not installed."""
    if folder:
        sys.path.insert(0, str(folder))
    if importlib.util.find_spec("fitcheck") is None:
        return None
    fitcheck = importlib.import_module("fitcheck.estimator")
    config = importlib.import_module("fitcheck.config_parser")
    cards = importlib.import_module("fitcheck.gpu_db")

    def predict(row: MeasuredRow, shape: ModelShape) -> int | None:
        model = config.ModelConfig(
            name=shape.key,
            num_params=shape.num_params,
            hidden_size=shape.hidden_size,
            num_layers=shape.num_layers,
            num_attention_heads=shape.num_heads,
            num_kv_heads=shape.num_kv_heads,
            intermediate_size=shape.intermediate_size,
            vocab_size=shape.vocab_size,
            head_dim=shape.head_dim,
            tie_word_embeddings=shape.tied_embeddings,
        )
        training = fitcheck.TrainingConfig(
            precision="fp16" if "T4" in (row.gpu or "") else "bf16",
            quantization="nf4" if row.method == "qlora" else "none",
            double_quant=row.method == "qlora" and bool(row.double_quantisation),
            batch_size=row.micro_batch,
            seq_len=row.prompt_tokens + row.completion_tokens,
            lora_rank=row.lora_rank if row.method != "full" else None,
            lora_targets=[name.removesuffix("_proj") + "_proj" for name in row.lora_targets or ()],
            grad_checkpoint=row.checkpointing != "none",
            flash_attn=row.attention != "eager",  # any fused kernel
        )
        try:
            found = fitcheck.estimate(model, training, cards.get_gpu("t4"))
        except ValueError:  # a model or a setting that it does not take
            return None
        return int(found.total_mib * MIB) - (0 if row.process_bytes else _FITCHECK_CONTEXT)

    return predict


def studio_estimator() -> Predict | None:
    """Returns the estimate of Unsloth Studio's backend, or None if it is not installed."""
    found = importlib.util.find_spec("studio")
    paths = list(found.submodule_search_locations or []) if found else []
    files = [Path(path, "backend/utils/hardware/vram_estimation.py") for path in paths]
    if not (file := next((file for file in files if file.is_file()), None)):
        return None
    studio = _module("unsloth_studio_vram", file)

    def predict(row: MeasuredRow, shape: ModelShape) -> int | None:
        arch = studio.ModelArchConfig(
            shape.hidden_size,
            shape.num_layers,
            shape.num_heads,
            shape.num_kv_heads,
            shape.intermediate_size,
            shape.vocab_size,
            shape.tied_embeddings,
            head_dim=shape.head_dim,
        )
        config = studio.TrainingVramConfig(
            training_method=row.method,
            batch_size=row.micro_batch,
            max_seq_length=row.prompt_tokens + row.completion_tokens,
            lora_rank=row.lora_rank or 0,
            target_modules=list(row.lora_targets or studio.DEFAULT_TARGET_MODULES),
            gradient_checkpointing={"plain": "true"}.get(row.checkpointing, row.checkpointing),
            optimizer=row.optimizer or "adamw_torch",
            load_in_4bit=row.method == "qlora",
            attention_implementation={"flash": "flash_attention_2"}.get(row.attention or "", row.attention or "sdpa"),
        )
        needed = studio.estimate_training_vram(arch, config)
        return int(needed.total) - (0 if row.process_bytes else int(needed.cuda_overhead))

    return predict


def _module(name: str, file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look for themselves there
    spec.loader.exec_module(module)
    return module


def accelerate_rule(row: MeasuredRow, shape: ModelShape) -> int | None:
    """Returns what `accelerate estimate-memory` calls training with Adam; None in 4 bit, of which it trains nothing."""
    from accelerate.commands.estimate import estimate_training_usage

    if row.method == "qlora":
        return None
    dtype, width = ("float32", 4) if row.weight_bytes == 4 else ("float16", 2)
    return int(max(estimate_training_usage(width * shape.num_params, dtype).values()))


def rows_of(file: Path) -> Iterator[tuple[ScoredRow, int]]:
    """Yields the rows that all tools can be asked about, with what was measured."""
    for one in score(read_rows(file)).scored:
        row, truth = one.row, one.row.process_bytes or one.row.peak_reserved_bytes
        if truth and row.loss == "sft" and not row.lengths_at_most and not row.is_varying:
            yield one, truth


def compare(tools: dict[str, Predict]) -> dict[str, Any]:
    """Returns the relative errors of every tool, by file and by stack."""
    rows: list[dict[str, Any]] = []
    for name, file in FILES.items():
        for one, truth in rows_of(file):
            row, shape = one.row, find_shape(one.row.model)
            if shape is None or one.predicted is None:
                continue
            found: dict[str, int | None] = {tool: predict(row, shape) for tool, predict in tools.items()}
            found["lowmem-rl"] = one.predicted["process" if row.process_bytes else "reserved"]
            errors = {tool: _error(size, truth, row) for tool, size in found.items() if size is not None}
            stack = f"{row.stack} {row.loss} {row.method}"
            rows.append({"file": name, "id": row.id, "stack": stack, "measured_bytes": truth, "errors": errors})
    return {"rows": rows, "summary": {name: _summary([x for x in rows if x["file"] == name]) for name in FILES}}


def _error(predicted: int, truth: int, row: MeasuredRow) -> float:
    """Returns the relative error beyond what the source rounds, as `profile --score` counts it."""
    beyond = max(abs(predicted - truth) - row.rounded_to_bytes / 2, 0) / truth
    return round(beyond if predicted > truth else -beyond, 4)


def _summary(rows: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """Returns, by stack and tool: rows, mean absolute and worst error."""
    stacks = [*sorted({row["stack"] for row in rows}), "all"]
    summary: dict[str, dict[str, dict[str, float]]] = {}
    for stack in stacks:
        chosen = [row["errors"] for row in rows if stack in (row["stack"], "all")]
        tools = sorted({tool for errors in chosen for tool in errors})
        summary[stack] = {tool: _figures([errors[tool] for errors in chosen if tool in errors]) for tool in tools}
    return summary


def _figures(errors: list[float]) -> dict[str, float]:
    return {"rows": len(errors), "mean": round(fmean(map(abs, errors)), 4), "worst": max(errors, key=abs)}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fitcheck", type=Path, help="folder into which fitcheck-llm was installed")
    parser.add_argument("--out", type=Path, default=RECORDS / "memory-peers.json")
    given = parser.parse_args(arguments)
    found = {"fitcheck-llm": fitcheck_estimator(given.fitcheck), "unsloth studio": studio_estimator()}
    tools = {name: predict for name, predict in found.items() if predict} | {"accelerate": accelerate_rule}
    record = {
        "command": "python benchmarks/memory_peers.py --fitcheck DIR",
        "date": date.today().isoformat(),
        "versions": {name: _version(name) for name in ("fitcheck-llm", "unsloth", "accelerate")},
        **compare(tools),
    }
    given.out.write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    print(json.dumps(record["summary"], indent=1))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main(sys.argv[1:])
