"""A model's folder at a real architecture's shape, its weights sparse zeros that take no room on the disk.

For rehearsals without data (`card.phantom`), in which shapes, dtypes and bytes count alone. The numbers are those of
`lowmem_rl.catalogue`; the tokenizer is the embedded model's.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lowmem_rl.models import TINY_DIRECTORY
from lowmem_rl.shape import LLAMA, QWEN2, ModelShape

TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
MODEL_TYPES = {QWEN2: "qwen2", LLAMA: "llama"}
LLAMA3_POSITIONS = 131_072
ROPE = {"rope_theta": 1e6, "rope_type": "default"}
LLAMA3_ROPE = {
    "rope_theta": 5e5,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""config.json of Llama 3.1; Unsloth chooses the class of the rotary embedding by it."""


def write_model(shape: ModelShape, folder: Path, layers: int | None = None) -> Path:
    """Writes a folder that loads like the model, with as many layers as are asked for, and returns it."""
    shape = replace(shape, num_layers=layers or shape.num_layers)
    folder.mkdir(parents=True)
    for name in TOKENIZER:
        shutil.copy(TINY_DIRECTORY / name, folder)
    (folder / "config.json").write_text(json.dumps(config_of(shape), indent=1))
    _write_zeros(folder / "model.safetensors", dict(tensors_of(shape)))
    return folder


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Returns a config.json of that shape, with the ids of the embedded model's tokenizer."""
    is_llama3 = shape.architecture == LLAMA and shape.max_positions == LLAMA3_POSITIONS
    return {
        "architectures": [shape.architecture],
        "model_type": MODEL_TYPES[shape.architecture],
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tied_embeddings,
        "max_position_embeddings": shape.max_positions,
        "rope_parameters": LLAMA3_ROPE if is_llama3 else ROPE,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "dtype": "bfloat16",
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": None,
        "use_cache": True,
        "attention_dropout": 0.0,
        **({"use_sliding_window": False} if shape.architecture == QWEN2 else {"attention_bias": False}),
    }


def tensors_of(shape: ModelShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yields names and shapes of all weights."""
    words = (shape.vocab_size, shape.hidden_size)
    yield "model.embed_tokens.weight", words
    if not shape.tied_embeddings:
        yield "lm_head.weight", words
    yield "model.norm.weight", (shape.hidden_size,)
    for layer in range(shape.num_layers):
        at = f"model.layers.{layer}."
        for name, (inputs, outputs) in shape.linear_sizes.items():
            part = f"{at}{'mlp' if name in ('gate_proj', 'up_proj', 'down_proj') else 'self_attn'}.{name}"
            yield f"{part}.weight", (outputs, inputs)
            if shape.attention_bias and name in ("q_proj", "k_proj", "v_proj"):
                yield f"{part}.bias", (outputs,)
        yield f"{at}input_layernorm.weight", (shape.hidden_size,)
        yield f"{at}post_attention_layernorm.weight", (shape.hidden_size,)


def _write_zeros(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """Writes a safetensors file in bfloat16 that ends in a hole."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in tensors.items():
        start, end = end, end + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
