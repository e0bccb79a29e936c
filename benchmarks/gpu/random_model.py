"""A model of a real shape with random weights, for a machine without network: memory and speed depend on shapes alone.

    python -m benchmarks.gpu.random_model ORDER.json ANSWER.json     (an order: {"model": NAME, "folder": FOLDER})

The shape is the catalogue's; tokenizer and chat template are the embedded model's. One layer is made at a time, so that
host memory holds one. No zeros: NF4 of a block of zeros divides by zero, and every logit would be no number.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.apart import serve
from lowmem_rl.models import TINY_DIRECTORY, load_shape
from lowmem_rl.shape import LLAMA, QWEN2, SAMPLED_BY_US, ModelShape
from lowmem_rl.weight_files import INDEX

SPREAD = 0.02
"""Standard deviation of the weights, transformers' `initializer_range` of these models."""
ROPE_THETA = {QWEN2: 1e6, LLAMA: 5e5}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")
BYTES = 2
"""Of a weight: bfloat16."""
Sizes = dict[str, tuple[int, ...]]


def make(order: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the model's folder; returns its bytes."""
    shape, folder = load_shape(order["model"]), Path(order["folder"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER:
        shutil.copy(TINY_DIRECTORY / name, folder)
    (folder / "config.json").write_text(json.dumps(config_of(shape), indent=1), encoding="utf-8")
    return {"bytes": _write_weights(shape, folder)}


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
        "rope_parameters": {"rope_theta": ROPE_THETA[shape.architecture], "rope_type": "default"},
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "dtype": "bfloat16",
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "use_cache": True,
        "initializer_range": SPREAD,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "sliding_window": None,
    }


def parts_of(shape: ModelShape) -> Iterator[Sizes]:
    """Yields the tensors' sizes file by file: the embeddings, each layer, and what is around them."""
    yield {"model.embed_tokens.weight": (shape.vocab_size, shape.hidden_size)}
    for layer in range(shape.num_layers):
        yield {f"model.layers.{layer}.{name}": size for name, size in _layer(shape)}
    head = {} if shape.tied_embeddings else {"lm_head.weight": (shape.vocab_size, shape.hidden_size)}
    yield {"model.norm.weight": (shape.hidden_size,), **head}


def _layer(shape: ModelShape) -> Iterator[tuple[str, tuple[int, ...]]]:
    for norm in ("input_layernorm", "post_attention_layernorm"):
        yield f"{norm}.weight", (shape.hidden_size,)
    for name, (inputs, outputs) in shape.linear_sizes.items():
        room = "self_attn" if name in ("q_proj", "k_proj", "v_proj", "o_proj") else "mlp"
        yield f"{room}.{name}.weight", (outputs, inputs)
        if shape.attention_bias and name in ("q_proj", "k_proj", "v_proj"):
            yield f"{room}.{name}.bias", (outputs,)


def _write_weights(shape: ModelShape, folder: Path) -> int:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    where: dict[str, str] = {}
    for number, sizes in enumerate(parts_of(shape)):
        file = f"model-{number:05d}.safetensors"
        save_file({name: _drawn(name, size) for name, size in sizes.items()}, folder / file, {"format": "pt"})
        where |= dict.fromkeys(sizes, file)
    total = BYTES * shape.num_params
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")
    return total


def _drawn(name: str, size: tuple[int, ...]) -> torch.Tensor:
    """Returns a host tensor, drawn on the card, where 7 billion numbers take a second."""
    if "norm" in name:
        return torch.ones(size, dtype=torch.bfloat16)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.empty(size, dtype=torch.bfloat16, device=device).normal_(0.0, SPREAD).cpu()


if __name__ == "__main__":
    serve(make)
