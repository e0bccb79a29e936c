"""A decoder-only model as sampling needs it: the prompt once, then a token at a time over preallocated buffers.

transformers' `generate` builds masks, cache objects and keyword arguments at each layer of each token, and pads every
prompt to the longest; for short steps that is most of the time. Here a row starts at place 0 of its slot, so
neither padding nor a position is ever recomputed. The arithmetic is that of Llama, Mistral, Qwen2 and Qwen3:
RMSNorm, rotary embedding (arXiv 2104.09864), grouped queries (arXiv 2305.13245), SwiGLU (arXiv 2002.05202).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, silu

Map = Callable[[Tensor], Tensor]
"""(..., in) -> (..., out)."""


@dataclass(frozen=True, slots=True)
class Block:
    """One layer's maps; `qkv` and `gate_up` give their parts side by side."""

    attention_norm: Map
    qkv: Map
    qk_norm: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
    """Norms of the heads of queries and keys, where the model has them (Qwen3)."""
    out: Map
    mlp_norm: Map
    gate_up: Map
    down: Map


@dataclass(frozen=True, slots=True)
class Decoder:
    """All maps of a model, its head counts, and its rotary frequencies (head_dim / 2)."""

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
    def group(self) -> int:
        """Queries that share a key."""
        return self.heads // self.kv_heads

    @property
    def device(self) -> torch.device:
        return self.inverse_frequencies.device


class KVCache:
    """Keys and values of `slots` rows of at most `places` tokens: (layers, slots, 2 kv_heads, places, head_dim)."""

    def __init__(self, decoder: Decoder, slots: int, places: int) -> None:
        shape = (len(decoder.blocks), slots, 2 * decoder.kv_heads, places, decoder.head_dim)
        # Zeros, for what the mask hides still counts: nothing times NaN is NaN.
        self.buffer = torch.zeros(shape, dtype=decoder.dtype, device=decoder.device)
        self.turns = _turns(decoder, torch.arange(places, device=decoder.device))

    def put(self, slot: int, prompt: Tensor) -> None:
        """Copies a prompt's keys and values (layers, 2 kv_heads, tokens, head_dim) to the start of a slot."""
        self.buffer[:, slot, :, : prompt.shape[2]] = prompt

    def move(self, sources: Tensor, targets: Tensor, places: int) -> None:
        """Copies the first `places` tokens of some slots to others."""
        for layer in self.buffer:  # one at a time: the copy of half a wave in all layers would be half the cache
            layer[targets, :, :places] = layer[sources, :, :places]


def prefill(decoder: Decoder, ids: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Reads prompts (rows, tokens), padded on the right: no causal row sees the padding behind it.

    Returns the logits behind each prompt's last token (rows, vocabulary) in float32, and keys and values
    (layers, rows, 2 kv_heads, tokens, head_dim).
    """
    rows, tokens = ids.shape
    turn = _turn(decoder, _turns(decoder, torch.arange(tokens, device=ids.device)))
    x, kept = decoder.embed(ids), []
    for block in decoder.blocks:
        heads = _heads(decoder, block, x, turn).transpose(1, 2)
        kept.append(heads[:, decoder.heads :].clone())  # a view would keep the queries
        mixed = _attention_of_prompts(decoder, heads)
        mixed = mixed.transpose(1, 2).reshape(rows, tokens, -1)
        if block is decoder.blocks[-1]:  # from here on, nothing reads the other tokens
            last = torch.arange(rows, device=ids.device), lengths - 1
            x, mixed = x[last], mixed[last]
        x = x + block.out(mixed)
        x = x + _mlp(block, x)
    return decoder.head(decoder.norm(x)).float(), torch.stack(kept)


def step(decoder: Decoder, tokens: Tensor, places: Tensor, cache: KVCache, longest: int) -> Tensor:
    """Reads one token a row at its place and returns the logits behind it (rows, vocabulary) in float32.

    Row i stands in slot i; `longest` is above every place and bounds what attention reads.
    """
    count = len(tokens)
    rows = torch.arange(count, device=tokens.device)
    turn = _turn(decoder, cache.turns.index_select(0, places))
    mask = _mask(decoder, places, longest)
    x = decoder.embed(tokens)
    for block, layer in zip(decoder.blocks, cache.buffer, strict=True):
        heads = _heads(decoder, block, x, turn)
        layer[rows, :, places] = heads[:, decoder.heads :]
        keys, values = layer[:count, :, :longest].chunk(2, dim=1)
        # The queries that share a key stand where several tokens of one row would: no key is repeated.
        q = heads[:, : decoder.heads].view(count, decoder.kv_heads, -1, decoder.head_dim)
        mixed = scaled_dot_product_attention(q, keys, values, attn_mask=mask)
        x = x + block.out(mixed.reshape(count, -1))
        x = x + _mlp(block, x)
    return decoder.head(decoder.norm(x)).float()


def _attention_of_prompts(decoder: Decoder, heads: Tensor) -> Tensor:
    """Returns causal attention (rows, heads, tokens, head_dim) over queries, keys and values side by side.

    Below compute capability 8.0 there is no flash kernel, and before torch 2.14 the efficient one takes no grouped
    queries: the math kernel would hold all scores, at half the speed (huggingface/transformers#48633). There the keys
    are repeated.
    """
    q, k, v = heads.split([decoder.heads, decoder.kv_heads, decoder.kv_heads], dim=1)
    if heads.is_cuda and torch.cuda.get_device_capability(heads.device) < (8, 0):
        k, v = (part[:, :, None].expand(-1, -1, decoder.group, -1, -1).flatten(1, 2) for part in (k, v))
    return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


Turn = tuple[Tensor, Tensor]
"""What rotates queries and keys, and leaves values as they are: cosines and signed sines (..., heads, head_dim)."""


def _heads(decoder: Decoder, block: Block, x: Tensor, turn: Turn) -> Tensor:
    """Returns rotated queries, rotated keys and values side by side (..., heads + 2 kv_heads, head_dim)."""
    parts = block.qkv(block.attention_norm(x)).unflatten(-1, (-1, decoder.head_dim))
    if block.qk_norm is not None:
        q, k, v = parts.split([decoder.heads, decoder.kv_heads, decoder.kv_heads], dim=-2)
        parts = torch.cat((*block.qk_norm(q, k), v), dim=-2)
    cos, sin = turn
    return torch.addcmul(parts * cos, parts.roll(decoder.head_dim // 2, -1), sin)


def _mlp(block: Block, x: Tensor) -> Tensor:
    gate, up = block.gate_up(block.mlp_norm(x)).chunk(2, dim=-1)
    return block.down(silu(gate) * up)


def _turns(decoder: Decoder, places: Tensor) -> Tensor:
    """Returns cosines and signed sines of some places (places, 2, 1, head_dim).

    Computes angles in float32, as transformers does; the sine's sign is that of `rotate_half`.
    """
    angles = places[:, None, None].float() * decoder.inverse_frequencies
    cos, sin = angles.cos() * decoder.rotary_scale, angles.sin() * decoder.rotary_scale
    return torch.stack((torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)), dim=1).to(decoder.dtype)


def _turn(decoder: Decoder, turns: Tensor) -> Turn:
    """Returns what rotates the heads of queries and keys (places, heads, head_dim); values stay as they are."""
    turned = (-1, decoder.heads + decoder.kv_heads, -1)
    still = turns.new_zeros(len(turns), decoder.kv_heads, decoder.head_dim)
    cos, sin = turns.unbind(1)
    return torch.cat((cos.expand(turned), still + 1), dim=1), torch.cat((sin.expand(turned), still), dim=1)


ALIGNMENT = 8
"""Numbers to whose multiple a row of a mask must be wide in memory: from any other mask, torch's efficient attention
makes a padded copy, for each layer of each token (`preprocess_mask`, ATen/native/transformers/attention.cpp)."""


def _mask(decoder: Decoder, places: Tensor, longest: int) -> Tensor:
    """Returns what is added to the scores (rows, 1, 1, longest): nothing up to a row's place, minus infinity after it.

    It is a part of an aligned tensor.
    """
    width = -(-longest // ALIGNMENT) * ALIGNMENT
    after = torch.arange(width, device=places.device) > places[:, None]
    mask = torch.zeros(after.shape, dtype=decoder.dtype, device=places.device).masked_fill_(after, -torch.inf)
    return mask[:, None, None, :longest]
