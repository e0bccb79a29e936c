"""The weights that rollouts compute with: the model's own modules, or an expanded copy for the length of a rollout.

In 4 bit every linear layer expands its weight at every token. `merged` expands each one once: 2x fewer bytes a token
on a GPU, and most of a token's time on a CPU. In float32 the adapter is folded in; in 16 bit it is applied beside the
weight, whose rounding would swallow small updates. Either way it is the same product in another order: equal to
rounding, not to the bit.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm

from lowmem_rl.engine.decoder import Block, Decoder, Map
from lowmem_rl.engine.upload import upload
from lowmem_rl.models.shape import SAMPLED_BY_US

KNOWN_ROTARY = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary embeddings whose frequencies do not change with the length."""


class UnsupportedModel(Exception):
    """This model is none that `decoder` can compute; the text says why."""


def quantized(model: Any, places: int) -> Decoder:
    """Returns the decoder made of the model's own modules. Raises `UnsupportedModel`; `places` is the longest row."""
    return _decoder(model, places, _side_by_side, lambda norm: norm)


def merged(model: Any, places: int) -> Decoder:
    """Returns the decoder on a copy of the weights, expanded and joined where they read the same input.

    Raises `UnsupportedModel`. The copy lives as long as the decoder.
    """
    with torch.inference_mode():
        return _decoder(model, places, _joined, _norm)


def _decoder(model: Any, places: int, join: Any, norm_of: Any) -> Decoder:
    base = _base_of(model)
    _check_known(base.config, places)
    inverse, scale = _rotary(base.config)
    return Decoder(
        embed=base.model.embed_tokens,
        blocks=tuple(_block(block, join, norm_of) for block in base.model.layers),
        norm=norm_of(base.model.norm),
        head=base.lm_head,
        heads=base.config.num_attention_heads,
        kv_heads=base.config.num_key_value_heads,
        head_dim=_head_dim(base.config),
        inverse_frequencies=upload(inverse, base.lm_head.weight.device),
        rotary_scale=scale,
        dtype=_dtype(base),
    )


def _block(block: Any, join: Any, norm_of: Any) -> Block:
    q, k, v, out = _attention(block)
    gate, up, down = _mlp(block)
    attention = block.self_attn
    norms = (norm_of(attention.q_norm), norm_of(attention.k_norm)) if hasattr(attention, "q_norm") else None
    return Block(
        attention_norm=norm_of(block.input_layernorm),
        qkv=join((q, k, v)),
        qk_norm=norms and (lambda queries, keys: (norms[0](queries), norms[1](keys))),
        out=join((out,)),
        mlp_norm=norm_of(block.post_attention_layernorm),
        gate_up=join((gate, up)),
        down=join((down,)),
    )


def _attention(block: Any) -> tuple[Any, Any, Any, Any]:
    attention = block.self_attn
    return attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj


def _mlp(block: Any) -> tuple[Any, Any, Any]:
    return block.mlp.gate_proj, block.mlp.up_proj, block.mlp.down_proj


def _side_by_side(modules: Sequence[nn.Module]) -> Map:
    if len(modules) == 1:
        return modules[0]
    return lambda x: torch.cat([module(x) for module in modules], dim=-1)


def _norm(module: Any) -> Map:
    # One kernel for five; it computes in float32 inside, like transformers.
    return partial(rms_norm, normalized_shape=module.weight.shape, weight=module.weight, eps=module.variance_epsilon)


def _joined(modules: Sequence[Any]) -> Map:
    """Returns one map for linear layers that read the same input."""
    dtype = _compute_dtype(modules[0])
    weight = torch.cat([_expanded(module).to(dtype) for module in modules])
    bias = _joined_bias(modules, dtype)
    adapters = [_adapter(module) for module in modules]
    if not any(adapters):
        return partial(linear, weight=weight, bias=bias)
    if dtype == torch.float32:
        _fold(weight, modules, adapters)
        return partial(linear, weight=weight, bias=bias)
    down, up = _beside(modules, adapters, dtype)
    return lambda x: linear(x, weight, bias) + linear(linear(x, down), up)


def _fold(weight: Tensor, modules: Sequence[Any], adapters: Sequence[Any]) -> None:
    """Adds each adapter's product to its rows of the joined weight, in place."""
    parts = weight.split([_base_layer(module).out_features for module in modules])
    for part, adapter in zip(parts, adapters, strict=True):
        if adapter is not None:
            down, up, scale = adapter
            part.addmm_(up.float(), down.float(), alpha=scale)


def _beside(modules: Sequence[Any], adapters: Sequence[Any], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Returns all adapters as one: their inner sides stacked (sum of ranks, in), their outer ones on a diagonal."""
    downs, ups = [], []
    for module, adapter in zip(modules, adapters, strict=True):
        base = _base_layer(module)
        down, up, scale = adapter or (base.weight.new_zeros(0, base.in_features), None, 1.0)
        downs.append(down.to(dtype))
        ups.append(torch.zeros(base.out_features, 0).to(downs[-1]) if up is None else (up * scale).to(dtype))
    return torch.cat(downs), torch.block_diag(*ups)


def _adapter(module: Any) -> tuple[Tensor, Tensor, float] | None:
    """Returns the active adapter's inner and outer matrix and its scale; none where the layer has none."""
    names = [name for name in getattr(module, "active_adapters", ()) if name in module.lora_A]
    if not names or module.disable_adapters:
        return None
    if len(names) > 1 or module.merged or getattr(module, "use_dora", {}).get(names[0]):
        raise UnsupportedModel("its adapter is no single plain LoRA")
    return module.lora_A[names[0]].weight, module.lora_B[names[0]].weight, module.scaling[names[0]]


def _expanded(module: Any) -> Tensor:
    from peft.utils.integrations import dequantize_module_weight

    return dequantize_module_weight(_base_layer(module)).detach()


def _joined_bias(modules: Sequence[Any], dtype: torch.dtype) -> Tensor | None:
    layers = [_base_layer(module) for module in modules]
    if all(layer.bias is None for layer in layers):
        return None
    rows = [
        torch.zeros(layer.out_features, device=layer.weight.device) if layer.bias is None else layer.bias
        for layer in layers
    ]
    return torch.cat([row.to(dtype) for row in rows]).detach()


def _base_layer(module: Any) -> Any:
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def _compute_dtype(module: Any) -> torch.dtype:
    layer = _base_layer(module)
    dtype = getattr(layer, "compute_dtype", None) or layer.weight.dtype
    return dtype if dtype.is_floating_point else torch.float32


def _base_of(model: Any) -> Any:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not hasattr(base, "model") or not hasattr(base, "lm_head"):
        raise UnsupportedModel(f"{type(base).__name__} is no decoder with a language head")
    return base


def _check_known(config: Any, places: int) -> None:
    if config.model_type not in SAMPLED_BY_US:
        raise UnsupportedModel(f"model type {config.model_type!r} is none of {', '.join(SAMPLED_BY_US)}")
    if config.hidden_act != "silu":
        raise UnsupportedModel(f"its activation is {config.hidden_act}")
    if _rotary_type(config) not in KNOWN_ROTARY:
        raise UnsupportedModel(f"its rotary embedding {_rotary_type(config)!r} changes with the length")
    window = getattr(config, "sliding_window", None)
    if (
        window
        and window < places
        and "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    ):
        raise UnsupportedModel(f"its attention slides over {window} tokens, and rows grow to {places}")


def _rotary_type(config: Any) -> str:
    return str(config.rope_parameters["rope_type"])


def _rotary(config: Any) -> tuple[Tensor, float]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    if _rotary_type(config) != "default":
        inverse, scale = ROPE_INIT_FUNCTIONS[_rotary_type(config)](config, torch.device("cpu"))
        return inverse, float(scale)
    exponents = torch.arange(0, _head_dim(config), 2, dtype=torch.float32) / _head_dim(config)
    return 1.0 / config.rope_parameters["rope_theta"] ** exponents, 1.0


def _head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _dtype(base: Any) -> torch.dtype:
    return base.model.norm.weight.dtype
