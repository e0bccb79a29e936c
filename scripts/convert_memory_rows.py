"""Converts a collection of published memory measurements into the schema of `profile --score`.

    python scripts/convert_memory_rows.py COLLECTION.json [benchmarks/records/memory_rows.json]

Takes measured rows of grade A and B. What a source's stack does but its rows leave out (fused kernels, whole
logits, a float32 residual stream) is added here, source by source.
"""

import json
import sys
from pathlib import Path
from typing import Any

from lowmem_rl.units import GB, GIB

Source = dict[str, Any]
OUT = Path("benchmarks/records/memory_rows.json")
STACK_OF_SOURCE = {"fms": "trl", "odyn": "trl", "issue": "trl", "grpo-scratch": "trl"}
CHECKPOINTING = {"unsloth offloaded": "unsloth", "none": "none"}

MODELS = {"unsloth/tinyllama-bnb-4bit": "TinyLlama/TinyLlama-1.1B-Chat-v1.0"}

LEFT_OUT = {
    "unsloth-nb-176": "the peak is that of vLLM, which made the data in the same process",
    "unsloth-nb-177": "trains embeddings and head as well as the adapter",
    "unsloth-nb-194": "Qwen3.5 mixes linear and full attention: no formulas for it",
    "unsloth-rl-414": "rank, true lengths and vLLM's share are not given",
    "unsloth-rl-415": "rank, true lengths and vLLM's share are not given",
    "odyn-461": "DPO, whose loss holds two sequences",
    "odyn-462": "DPO, whose loss holds two sequences",
    "odyn-463": "eight cards with ZeRO-2, whose buckets are not in the row",
    "grpo-scratch-465": "lengths are not given",
    "grpo-scratch-466": "lengths are not given",
    "grpo-scratch-467": "lengths are not given",
}


def main(collection: str, out: str = str(OUT)) -> None:
    rows = [convert(row) for row in json.loads(Path(collection).read_text())["rows"] if is_wanted(row)]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    print(f"{len(rows)} rows, {sum('left_out' in row for row in rows)} of them without a score")


def is_wanted(row: Source) -> bool:
    return row["kind"] == "measured" and row["completeness"] in "AB"


def convert(row: Source) -> Source:
    family = row["id"].rpartition("-")[0]
    tokens = row.get("seq_len") or row.get("max_seq_len") or 0
    grpo = row["task"] == "grpo"
    prompt = row.get("prompt_len", tokens // 2 if grpo else tokens)
    converted = {
        "id": row["id"],
        "source": row["source"],
        "gpu": row.get("gpu"),
        "stack": STACK_OF_SOURCE.get(family, "unsloth"),
        "loss": "grpo" if grpo else "sft",
        "method": row["method"].split()[0],
        "model": MODELS.get(row["model"], row["model"]),
        "lora_rank": row.get("lora_rank"),
        "lora_targets": row.get("lora_targets"),
        "micro_batch": row.get("micro_batch", 1),
        "prompt_tokens": prompt,
        "completion_tokens": row.get("completion_len", tokens - prompt),
        "group_size": row.get("group_size"),
        "rollout_rows": row.get("rollout_batch"),
        "checkpointing": CHECKPOINTING.get(row.get("gc", "none"), "plain"),
        "optimizer": row.get("optimizer", "adamw").split()[0],
        "rollout_engine": ("vllm" if "vLLM" in row.get("rollout_engine", "") else "generate") if grpo else None,
        **measured(row),
        **DETAILS[family](row),
    }
    reason = reason_left_out(row)
    return converted | ({"left_out": reason} if reason else {})


def reason_left_out(row: Source) -> str | None:
    model, quant = row["model"], row.get("quant", "")
    if "gptq" in quant:
        return "GPTQ, which this project does not load"
    if "Mixtral" in model or "gpt-oss" in model:
        return "a mixture of experts"
    if "santacoder" in model:
        return "GPT-BigCode: another layer, no formulas for it"
    return LEFT_OUT.get(row["id"])


def measured(row: Source) -> Source:
    names = {
        "peak_allocated_gib": "peak_allocated_bytes",
        "peak_reserved_gib": "peak_reserved_bytes",
        "nvidia_smi_gib": "process_bytes",
        "start_reserved_gib": "load_reserved_bytes",
    }
    found: Source = {ours: round(row[theirs] * GIB) for theirs, ours in names.items() if theirs in row}
    return found | ({"oom": True} if row.get("oom") else {})


def fms(row: Source) -> Source:
    fused = "fused_kernels" in row
    # The file lists baseline-peft-bnb before accelerated-peft-bnb; the former upcasts all that is not quantised,
    # which makes the residual stream float32 (its framework_config column).
    baseline = "fms-013" <= row["id"] <= "fms-020"
    whole = "fused" if fused else "shifted"
    return {
        "layer": "fused" if fused else "plain",
        "logits": "chunked" if row["chunked_logits"] else whole,
        "attention": "flash",
        "lora_dropout": row.get("lora_dropout", 0.0),
        "double_quantisation": True,
        "upcast_remainder": False,
        "accumulated": False,
        **({"residual_bytes": 4} if baseline else {}),
    }


def notebook(row: Source) -> Source:
    # Since 2025 Unsloth replaces a 16-bit name by its dynamic upload (models/mapper.py).
    mapped = row["software"].split()[1] >= "2025" and not row["model"].endswith("-bnb-4bit")
    dynamic = "-unsloth-bnb-4bit" in row["model"] or (mapped and row["method"] == "qlora")
    details: Source = {"dynamic_checkpoint": dynamic, "logits": "in-place"}
    if (version := row["software"].split()[1]) < "2025":
        # A table in each layer (models/llama.py): until July 2024 of all positions, then first of 4 x 8192; LongRope's
        # of 4096.
        first = 4096 if "Phi-3.5" in row["model"] else 4 * 8192
        details["rope_positions"] = 131_072 if version[:6] in ("2024.5", "2024.6") else first
    if row["method"] == "full" and "T4" in row["gpu"]:  # float16, which Unsloth trains in float32
        details["weight_bytes"] = 4
    return details | ({} if row.get("packing") else {"lengths_at_most": True})


def llamafactory(row: Source) -> Source:
    unsloth = "Unsloth" in row["software"]
    peak: Source = {"process_bytes": round(row["peak_gb"] * GB), "rounded_to_bytes": GB} if "peak_gb" in row else {}
    return peak | {
        "stack": "unsloth" if unsloth else "trl",
        "logits": "in-place" if unsloth else "shifted",
        "attention": "sdpa" if row["attn"] == "HF" else "flash",
        "double_quantisation": True,
        "upcast_remainder": False,
    }


def unsloth_rl(row: Source) -> Source:
    return {
        "standby": row["standby"],
        "vllm_utilisation": row.get("gpu_memory_utilization"),
        "expandable_segments": not row["standby"],
        # September 2025: chunks of logits were kept. The notebook's prompts are at most 201 tokens long.
        "logits": "kept",
        "optimizer": "adamw_8bit",  # the notebook's, too: the page names none
        "prompt_tokens": 202,
        "completion_tokens": row["max_seq_len"] - 202,
        **({"process_bytes": round(row["peak_gb"] * GIB)} if "peak_gb" in row else {}),
    }


def trl_issue(_: Source) -> Source:
    # TRL 0.17 loads a named model in float32 if no type is given, as in this issue.
    # It gives max_prompt_length and max_completion_length, and no lengths that were run.
    return {"logits": "divided", "weight_bytes": 4, "residual_bytes": 4, "lengths_at_most": True}


def nothing(_: Source) -> Source:
    return {}


DETAILS = {
    "fms": fms,
    "unsloth-nb": notebook,
    "llamafactory": llamafactory,
    "unsloth-rl": unsloth_rl,
    "issue": trl_issue,
    "odyn": nothing,
    "grpo-scratch": nothing,
}

if __name__ == "__main__":
    main(*sys.argv[1:])
