"""The weights that rollouts compute with: the model's own modules, or an expanded copy for the length of a rollout.

In 4 bit every linear layer expands its weight at every token. `merged` expands each one once: 2x fewer bytes a token
on a GPU, and most of a token's time on a CPU. In float32 the adapter is folded in; in 16 bit it is applied next to the
weight, whose rounding would swallow small updates, and so is DoRA's gain to the outputs. Either way it is the same
product in another order: equal to rounding, not to the bit.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear, rms_norm

from lowmem_rl.engine.decoder import Block, Decoder, Map
from lowmem_rl.engine.dora import gain
from lowmem_rl.engine.kept_copies import KeptCopies
from lowmem_rl.engine.upload import upload
from lowmem_rl.models.shape import SAMPLED_BY_US

_KNOWN_ROTARY = frozenset({"default", "linear", "llama3", "yarn"})
"""Rotary embeddings whose frequencies do not change with the length."""

_Join = Callable[[Sequence[Any]], Map]
"""Linear layers that read the same input -> one map to their concatenated outputs."""


class UnsupportedModel(Exception):
    """This model is none that `decoder` can compute; the text says why."""


def quantized(model: Any, max_tokens: int) -> Decoder:
    """Returns the decoder made of the model's own modules, for rows of up to `max_tokens` tokens.

    Raises `UnsupportedModel` for layers that it does not know.
    """
    return _decoder(model, max_tokens, _concatenated, lambda norm: norm)


def merged(model: Any, max_tokens: int, kept: KeptCopies | None = None) -> Decoder:
    """Returns the decoder on a copy of the weights, expanded, and joined if they read the same input.

    Raises `UnsupportedModel` for layers that it does not know. The copy lives as long as the decoder, what `kept` keeps
    of it as long as that.
    """
    dtype = _compute_type(model)
    join = partial(_joined, dtype=dtype, kept=kept)
    with torch.inference_mode():
        joined = partial(kept.join, make=join) if kept else join
        return _decoder(model, max_tokens, joined, partial(_fused_norm, dtype=dtype))


def _base(model: Any) -> Any:
    """Returns the model without its adapter. Raises `UnsupportedModel` if it is no decoder."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not hasattr(base, "model") or not hasattr(base, "lm_head"):
        raise UnsupportedModel(f"{type(base).__name__} is not a decoder with a language head")
    return base


def _compute_type(model: Any) -> torch.dtype:
    """Returns the type of what is not quantised; weights that learn whole may be wider."""
    norm = _base(model).model.norm
    dtype: torch.dtype = getattr(norm, "original_module", norm).weight.dtype
    return dtype


def _decoder(model: Any, max_tokens: int, join: _Join, norm_of: Callable[[Any], Map]) -> Decoder:
    base = _base(model)
    config = base.config
    _check_known(config, max_tokens)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    inverse, scale = _rotary_frequencies(config, head_dim)
    return Decoder(
        embed=base.model.embed_tokens,
        blocks=tuple(_block(block, join, norm_of) for block in base.model.layers),
        norm=norm_of(base.model.norm),
        head=base.lm_head,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        inverse_frequencies=upload(inverse, base.lm_head.weight.device),
        rotary_scale=scale,
        dtype=_compute_type(base),
    )


def _check_known(config: Any, max_tokens: int) -> None:
    if config.model_type not in SAMPLED_BY_US:
        raise UnsupportedModel(f"model type {config.model_type!r} is none of {', '.join(SAMPLED_BY_US)}")
    if config.hidden_act != "silu":
        raise UnsupportedModel(f"its activation is {config.hidden_act}")
    rotary = config.rope_parameters["rope_type"]
    if rotary not in _KNOWN_ROTARY:
        raise UnsupportedModel(f"its rotary embedding {rotary!r} changes with the length")
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    if window and window < max_tokens and slides:
        raise UnsupportedModel(f"its attention slides over {window} tokens, and rows grow to {max_tokens}")


def _rotary_frequencies(config: Any, head_dim: int) -> tuple[Tensor, float]:
    """Returns the inverse frequencies (head_dim / 2,) and the scale of cosines and sines."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = config.rope_parameters["rope_type"]
    if kind != "default":
        inverse, scale = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"))
        return inverse, float(scale)
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    return 1.0 / config.rope_parameters["rope_theta"] ** exponents, 1.0


def _block(block: Any, join: _Join, norm_of: Callable[[Any], Map]) -> Block:
    attention, mlp = block.self_attn, block.mlp
    norms = (norm_of(attention.q_norm), norm_of(attention.k_norm)) if hasattr(attention, "q_norm") else None
    return Block(
        attention_norm=norm_of(block.input_layernorm),
        qkv=join((attention.q_proj, attention.k_proj, attention.v_proj)),
        qk_norm=norms and (lambda queries, keys: (norms[0](queries), norms[1](keys))),
        out=join((attention.o_proj,)),
        mlp_norm=norm_of(block.post_attention_layernorm),
        gate_up=join((mlp.gate_proj, mlp.up_proj)),
        down=join((mlp.down_proj,)),
    )


def _concatenated(modules: Sequence[nn.Module]) -> Map:
    if len(modules) == 1:
        return modules[0]
    return lambda x: torch.cat([module(x) for module in modules], dim=-1)


def _fused_norm(module: Any, dtype: torch.dtype) -> Map:
    # One kernel for five; it computes in float32 inside, like transformers.
    weight = module.weight.to(dtype)
    return partial(rms_norm, normalized_shape=weight.shape, weight=weight, eps=module.variance_epsilon)


def _joined(modules: Sequence[Any], dtype: torch.dtype, kept: KeptCopies | None = None) -> Map:
    """Returns one map, which computes in `dtype`, for linear layers that read the same input."""
    layers = [_frozen_or_whole(module) for module in modules]
    shape = sum(layer.out_features for layer in layers), layers[0].in_features
    memory = kept.memory(modules, shape, layers[0].weight, dtype) if kept else None
    weight = _expanded(layers, dtype) if memory is None else _expanded_into(memory, layers)
    bias = _joined_bias(layers, dtype)
    adapters = [_adapter(module) for module in modules]
    if not any(adapters):
        return partial(linear, weight=weight, bias=bias)
    gains = _joined_gain(weight.split([layer.out_features for layer in layers]), adapters)
    if dtype == torch.float32:
        for part, adapter in zip(weight.split([layer.out_features for layer in layers]), adapters, strict=True):
            if adapter is not None:
                part.addmm_(adapter.outer.float(), adapter.inner.float(), alpha=adapter.scale)
        return partial(linear, weight=weight if gains is None else weight.mul_(gains[:, None]), bias=bias)
    inner, outer = _joined_adapter(layers, adapters, dtype)
    if gains is None:
        return lambda x: linear(x, weight, bias) + linear(linear(x, inner), outer)
    shift = weight.new_zeros(()) if bias is None else bias
    return lambda x: torch.addcmul(shift, linear(x, weight) + linear(linear(x, inner), outer), gains).to(dtype)


def _expanded(layers: Sequence[Any], dtype: torch.dtype) -> Tensor:
    """Returns the layers' weights one below the other, a copy in any case: it is added to."""
    from peft.utils.integrations import dequantize_module_weight

    expanded = [dequantize_module_weight(layer).detach().to(dtype) for layer in layers]
    is_own = len(layers) == 1 and expanded[0].data_ptr() != layers[0].weight.data_ptr()
    return expanded[0] if is_own else torch.cat(expanded)


def _expanded_into(memory: Tensor, layers: Sequence[Any]) -> Tensor:
    from peft.utils.integrations import dequantize_module_weight

    for part, layer in zip(memory.split([layer.out_features for layer in layers]), layers, strict=True):
        part.copy_(dequantize_module_weight(layer))  # bitsandbytes has no kernel that writes there itself
    return memory


def _frozen_or_whole(module: Any) -> Any:
    """Returns a linear layer without its adapter, or the one of a whole layer that computes now."""
    if hasattr(type(module), "active_module"):
        return module.active_module
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


class _Adapter(NamedTuple):
    """What an adapter adds to a weight: `scale` x outer (out, rank) x inner (rank, in)."""

    inner: Tensor
    outer: Tensor
    scale: float
    magnitude: Tensor | None
    """Of DoRA: the length of each row of the sum (out,)."""


def _adapter(module: Any) -> _Adapter | None:
    """Returns the active adapter of a layer, None if it has none."""
    known: Any = getattr(module, "lora_A", None) or getattr(module, "tinylora_A", ())
    names = [name for name in getattr(module, "active_adapters", ()) if name in known]
    if not names or module.disable_adapters:
        return None
    if len(names) > 1 or module.merged:
        raise UnsupportedModel("its adapter is not a single one")
    name = names[0]
    if hasattr(module, "tinylora_A"):
        from lowmem_rl.engine.tinylora import factors_of

        return _Adapter(*factors_of(module, name), 1.0, None)
    is_dora = name in module.lora_magnitude_vector
    if name in module.lora_variant and not is_dora:
        raise UnsupportedModel("its adapter is a kind of LoRA that only PEFT computes")
    magnitude = module.lora_magnitude_vector[name].weight if is_dora else None
    return _Adapter(module.lora_A[name].weight, module.lora_B[name].weight, module.scaling[name], magnitude)


def _joined_gain(weights: Sequence[Tensor], adapters: Sequence[_Adapter | None]) -> Tensor | None:
    """Returns what multiplies the outputs of all layers (sum of outs,) in float32; None if no layer has DoRA.

    The weights (out, in) are those without adapters.
    """
    if all(adapter is None or adapter.magnitude is None for adapter in adapters):
        return None
    gains = [
        torch.ones(len(weight), device=weight.device)
        if adapter is None or adapter.magnitude is None
        else gain(adapter.magnitude, weight, adapter.outer * adapter.scale, adapter.inner)
        for weight, adapter in zip(weights, adapters, strict=True)
    ]
    return torch.cat(gains)


def _joined_adapter(
    layers: Sequence[Any], adapters: Sequence[_Adapter | None], dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Returns all adapters as one: inner matrices stacked (sum of ranks, in), outer ones on a diagonal."""
    inner, outer = [], []
    for layer, adapter in zip(layers, adapters, strict=True):
        if adapter is None:
            inner.append(torch.zeros(0, layer.in_features, dtype=dtype, device=layer.weight.device))
            outer.append(torch.zeros(layer.out_features, 0).to(inner[-1]))
        else:
            inner.append(adapter.inner.to(dtype))
            outer.append((adapter.outer * adapter.scale).to(dtype))
    return torch.cat(inner), torch.block_diag(*outer)


def _joined_bias(layers: Sequence[Any], dtype: torch.dtype) -> Tensor | None:
    """Returns the biases of all layers (sum of outs,), zeros for a layer without one; None if no layer has one."""
    if all(layer.bias is None for layer in layers):
        return None
    rows = [
        torch.zeros(layer.out_features, device=layer.weight.device) if layer.bias is None else layer.bias
        for layer in layers
    ]
    return torch.cat([row.to(dtype) for row in rows]).detach()
