"""A decoder-only model as sampling needs it: the prompt once, then a token at a time over preallocated buffers.

transformers' `generate` builds masks, cache objects and keyword arguments at each layer of each token, and pads every
prompt to the longest; for short steps that is most of the time. Here a row starts at position 0 of its slot, so
neither padding nor a position is ever recomputed. The arithmetic is that of Llama, Mistral, Qwen2 and Qwen3:
RMSNorm, rotary embedding (arXiv 2104.09864), grouped queries (arXiv 2305.13245), SwiGLU (arXiv 2002.05202).

Shapes: R rows, T tokens, L layers, S slots, P positions, K key-value heads, H = query heads, D the size of a head.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

Map = Callable[[Tensor], Tensor]
"""(..., in) -> (..., out)."""


@dataclass(frozen=True, slots=True)
class Block:
    """One layer; `qkv` and `gate_up` return their parts concatenated."""

    attention_norm: Map
    qkv: Map
    qk_norm: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
    """Norms of the heads of queries and keys, if the model has them (Qwen3)."""
    out: Map
    mlp_norm: Map
    gate_up: Map
    down: Map


@dataclass(frozen=True, slots=True)
class Decoder:
    """All layers of a model, its head counts, and its rotary frequencies (D / 2,)."""

    embed: Map
    blocks: tuple[Block, ...]
    norm: Map
    head: Map
    heads: int
    kv_heads: int
    head_dim: int
    inverse_frequencies: Tensor
    rotary_scale: float
    dtype: torch.dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.inverse_frequencies.device


class KVCache:
    """Keys and values of S rows of at most P tokens: (L, S, 2 K, P, D)."""

    def __init__(self, decoder: Decoder, slots: int, positions: int) -> None:
        shape = (len(decoder.blocks), slots, 2 * decoder.kv_heads, positions, decoder.head_dim)
        # Zeros, because masked values still count: zero times NaN is NaN.
        self.buffer = torch.zeros(shape, dtype=decoder.dtype, device=decoder.device)
        self.cos_sin = _cos_sin(decoder, torch.arange(positions, device=decoder.device))

    def put(self, slot: int, prompt: Tensor) -> None:
        """Copies a prompt's keys and values (L, 2 K, T, D) to the start of a slot."""
        self.buffer[:, slot, :, : prompt.shape[2]] = prompt

    def move(self, sources: Tensor, targets: Tensor, positions: int) -> None:
        """Copies the first `positions` tokens of the slots `sources` (n,) to the slots `targets` (n,)."""
        for layer in self.buffer:  # one at a time: the copy of half the slots in all layers would be half the cache
            layer[targets, :, :positions] = layer[sources, :, :positions]


def prefill(decoder: Decoder, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Reads prompts `ids` (R, T), padded on the right, of `lengths` (R,): no causal row sees the padding.

    Returns the logits after each prompt's last token (R, vocabulary) in float32, and keys and values (L, R, 2 K, T, D).
    """
    rows, tokens = ids.shape
    rotary = _rotary(decoder, _cos_sin(decoder, torch.arange(tokens, device=ids.device)))
    x, kept = decoder.embed(ids), []
    for block in decoder.blocks:
        heads = _heads(decoder, block, x, rotary).transpose(1, 2)
        kept.append(heads[:, decoder.heads :].clone())  # a view would keep the queries
        mixed = _prompt_attention(decoder, heads)
        mixed = mixed.transpose(1, 2).reshape(rows, tokens, -1)
        if block is decoder.blocks[-1]:  # from here on, nothing reads the other tokens
            last = torch.arange(rows, device=ids.device), lengths - 1
            x, mixed = x[last], mixed[last]
        x = x + block.out(mixed)
        x = x + _mlp(block, x)
    return decoder.head(decoder.norm(x)).float(), torch.stack(kept)


def prefill_packed(decoder: Decoder, beginning: Sequence[int], own: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Reads N prompts that all have a `beginning` of B tokens, each with its `own` tokens after it, as one row.

    A row of T = B + all own tokens, without padding: a token sees the beginning, and of the prompts only its own.
    Returns the logits after each prompt (N, vocabulary) in float32, and keys and values of the row (L, 2 K, T, D).
    """
    lengths = [len(beginning), *map(len, own)]
    part = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    sees = ((part == part[:, None]) | (part == 0)).tril_().to(decoder.device)
    places = [*range(len(beginning)), *(len(beginning) + i for ids in own for i in range(len(ids)))]
    lasts = (torch.tensor(lengths).cumsum(0) - 1)[1:].to(decoder.device)
    rotary = _rotary(decoder, _cos_sin(decoder, torch.tensor(places, device=decoder.device)))
    x, kept = decoder.embed(torch.tensor([*beginning, *chain(*own)], device=decoder.device)), []
    for block in decoder.blocks:
        heads = _heads(decoder, block, x, rotary).transpose(0, 1)[None]  # (1, H + 2 K, T, D)
        kept.append(heads[0, decoder.heads :].clone())  # a view would keep the queries
        q, k, v = heads.split([decoder.heads, decoder.kv_heads, decoder.kv_heads], dim=1)
        mixed = scaled_dot_product_attention(q, k, v, attn_mask=sees, enable_gqa=True)
        mixed = mixed[0].transpose(0, 1).reshape(len(x), -1)
        if block is decoder.blocks[-1]:  # from here on, nothing reads the other tokens
            x, mixed = x[lasts], mixed[lasts]
        x = x + block.out(mixed)
        x = x + _mlp(block, x)
    return decoder.head(decoder.norm(x)).float(), torch.stack(kept)


def step(decoder: Decoder, tokens: Tensor, positions: Tensor, cache: KVCache, longest: int) -> Tensor:
    """Reads one token a row, `tokens` (R,) at `positions` (R,); returns the next logits (R, vocabulary) in float32.

    Row i is in slot i; `longest` is above every position and bounds what attention reads.
    """
    count = len(tokens)
    rows = torch.arange(count, device=tokens.device)
    rotary = _rotary(decoder, cache.cos_sin.index_select(0, positions))
    mask = _mask(decoder, positions, longest)
    x = decoder.embed(tokens)
    for block, layer in zip(decoder.blocks, cache.buffer, strict=True):
        heads = _heads(decoder, block, x, rotary)
        layer[rows, :, positions] = heads[:, decoder.heads :]
        keys, values = layer[:count, :, :longest].chunk(2, dim=1)
        # Queries that share a key take the dimension of a row's tokens: no key is repeated.
        q = heads[:, : decoder.heads].view(count, decoder.kv_heads, -1, decoder.head_dim)
        mixed = scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        x = x + block.out(mixed.reshape(count, -1))
        x = x + _mlp(block, x)
    return decoder.head(decoder.norm(x)).float()


def _prompt_attention(decoder: Decoder, heads: Tensor) -> Tensor:
    """Returns causal attention (R, H, T, D) over concatenated queries, keys and values (R, H + 2 K, T, D).

    Below compute capability 8.0 there is no flash kernel, and before torch 2.14 the efficient one takes no grouped
    queries: the math kernel would hold all scores, at half the speed (huggingface/transformers#48633). There the keys
    are repeated.
    """
    q, k, v = heads.split([decoder.heads, decoder.kv_heads, decoder.kv_heads], dim=1)
    if heads.is_cuda and torch.cuda.get_device_capability(heads.device) < (8, 0):
        queries = decoder.heads // decoder.kv_heads
        k, v = (part[:, :, None].expand(-1, -1, queries, -1, -1).flatten(1, 2) for part in (k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


RotaryTable = tuple[Tensor, Tensor]
"""Cosines and signed sines (..., H + 2 K, D) that rotate queries and keys, and leave values unchanged."""


def _heads(decoder: Decoder, block: Block, x: Tensor, rotary: RotaryTable) -> Tensor:
    """Returns rotated queries, rotated keys and values of `x` (..., hidden), concatenated (..., H + 2 K, D)."""
    parts = block.qkv(block.attention_norm(x)).unflatten(-1, (-1, decoder.head_dim))
    if block.qk_norm is not None:
        q, k, v = parts.split([decoder.heads, decoder.kv_heads, decoder.kv_heads], dim=-2)
        parts = torch.cat((*block.qk_norm(q, k), v), dim=-2)
    cos, sin = rotary
    return torch.addcmul(parts * cos, parts.roll(decoder.head_dim // 2, -1), sin)


def _mlp(block: Block, x: Tensor) -> Tensor:
    """(..., hidden) -> (..., hidden)."""
    gate, up = block.gate_up(block.mlp_norm(x)).chunk(2, dim=-1)
    return block.down(silu(gate) * up)


def _cos_sin(decoder: Decoder, positions: Tensor) -> Tensor:
    """Returns cosines and signed sines of `positions` (P,): (P, 2, 1, D).

    Computes angles in float32, as transformers does; the sine's sign is that of `rotate_half`.
    """
    angles = positions[:, None, None].float() * decoder.inverse_frequencies
    cos, sin = angles.cos() * decoder.rotary_scale, angles.sin() * decoder.rotary_scale
    return torch.stack((torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)), dim=1).to(decoder.dtype)


def _rotary(decoder: Decoder, cos_sin: Tensor) -> RotaryTable:
    """Returns the table of all heads for `cos_sin` (P, 2, 1, D): (P, H + 2 K, D) each."""
    turned = (-1, decoder.heads + decoder.kv_heads, -1)
    still = cos_sin.new_zeros(len(cos_sin), decoder.kv_heads, decoder.head_dim)
    cos, sin = cos_sin.unbind(1)
    return torch.cat((cos.expand(turned), still + 1), dim=1), torch.cat((sin.expand(turned), still), dim=1)


_ALIGNMENT = 8
"""Numbers to whose multiple a row of a mask must be wide in memory: from any other mask, torch's efficient attention
makes a padded copy, for each layer of each token (`preprocess_mask`, ATen/native/transformers/attention.cpp)."""


def _mask(decoder: Decoder, positions: Tensor, longest: int) -> Tensor:
    """Returns what is added to the scores (R, 1, 1, longest): 0 up to a row's position (R,), minus infinity after it.

    It is a part of an aligned tensor.
    """
    width = -(-longest // _ALIGNMENT) * _ALIGNMENT
    after = torch.arange(width, device=positions.device) > positions[:, None]
    mask = torch.zeros(after.shape, dtype=decoder.dtype, device=positions.device).masked_fill_(after, -torch.inf)
    return mask[:, None, None, :longest]
