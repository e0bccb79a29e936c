"""A model's folder except for its weights: config.json of a real shape, a tokenizer, the tensors' sizes.

The shape is the catalogue's; tokenizer, chat template and the tokens' ids are the embedded model's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lowmem_rl.models.lookup import TINY_DIRECTORY
from lowmem_rl.models.shape import LLAMA, QWEN2, QWEN3, SAMPLED_BY_US, ModelShape

SPREAD = 0.02
"""Standard deviation of the weights, transformers' `initializer_range` of these models."""
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
LLAMA3_POSITIONS = 131_072
ROPE = {
    QWEN2: {"rope_theta": 1e6, "rope_type": "default"},
    QWEN3: {"rope_theta": 1e6, "rope_type": "default"},
    LLAMA: {"rope_theta": 5e5, "rope_type": "default"},
}
LLAMA3_ROPE = {
    "rope_theta": 5e5,
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""config.json of Llama 3.1; Unsloth uses it to choose the class of the rotary embedding."""
Sizes = dict[str, tuple[int, ...]]


def write_files(shape: ModelShape, folder: Path) -> None:
    """Writes config.json and the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER:
        shutil.copy(TINY_DIRECTORY / name, folder)
    (folder / "config.json").write_text(json.dumps(config_of(shape), indent=1), encoding="utf-8")


def config_of(shape: ModelShape) -> dict[str, Any]:
    """Returns the content of config.json."""
    model_type = next(name for name, architecture in SAMPLED_BY_US.items() if architecture == shape.architecture)
    return {
        "architectures": [shape.architecture],
        "model_type": model_type,
        "hidden_size": shape.hidden_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "intermediate_size": shape.intermediate_size,
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": shape.tied_embeddings,
        "max_position_embeddings": shape.max_positions,
        "rope_parameters": _rope(shape),
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "dtype": "bfloat16",
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "use_cache": True,
        **({} if shape.query_size == shape.hidden_size else {"head_dim": shape.head_dim}),
        "initializer_range": SPREAD,
        "attention_dropout": 0.0,
        **({"use_sliding_window": False} if shape.architecture in (QWEN2, QWEN3) else {"attention_bias": False}),
    }


def _rope(shape: ModelShape) -> dict[str, Any]:
    is_llama3 = shape.architecture == LLAMA and shape.max_positions == LLAMA3_POSITIONS
    return LLAMA3_ROPE if is_llama3 else ROPE[shape.architecture]


def parts_of(shape: ModelShape) -> Iterator[Sizes]:
    """Yields the tensors' sizes file by file: the embeddings, each layer, and the rest."""
    yield {"model.embed_tokens.weight": (shape.vocab_size, shape.hidden_size)}
    for layer in range(shape.num_layers):
        yield {f"model.layers.{layer}.{name}": size for name, size in _layer(shape)}
    head = {} if shape.tied_embeddings else {"lm_head.weight": (shape.vocab_size, shape.hidden_size)}
    yield {"model.norm.weight": (shape.hidden_size,), **head}


def _layer(shape: ModelShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    for norm in ("input_layernorm", "post_attention_layernorm"):
        yield f"{norm}.weight", (shape.hidden_size,)
    for norm in ("q_norm", "k_norm") if shape.qk_norm else ():
        yield f"self_attn.{norm}.weight", (shape.head_dim,)
    for name, (inputs, outputs) in shape.linear_sizes.items():
        room = "self_attn" if name in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
        yield f"{room}.{name}.weight", (outputs, inputs)
        if shape.attention_bias and name in ("q_proj", "k_proj", "v_proj"):
            yield f"{room}.{name}.bias", (outputs,)
