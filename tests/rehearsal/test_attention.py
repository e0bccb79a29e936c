"""Our decoder's attention takes a fused kernel as it is: no mask is copied, and no card falls to the math kernel."""

from __future__ import annotations

import pytest

from tests.rehearsal.card.attention import CONVERTED, CONVERTED_AND_PADDED, MATH, PADDED
from tests.rehearsal.stage import Stage

COPYING = (PADDED, CONVERTED, CONVERTED_AND_PADDED)
"""Kernels for which torch makes a new mask in each call."""


def samples() -> dict[str, int]:
    """Returns how often each kernel of attention was taken while twelve rows in six slots were sampled."""
    from lowmem_rl.engine.backend import build
    from lowmem_rl.engine.continuous_batching import StoppingCriteria, sample
    from lowmem_rl.engine.sampling import GREEDY
    from tests.rehearsal.card.state import STATE
    from tests.rehearsal.policies import load

    _, policy = load()
    decoder = build(policy, "merged", 192)
    prompts = [policy.tokenize([{"role": "user", "content": f"What is {41 + 9**i} * 6?"}]) for i in range(12)]
    STATE.attention.clear()
    sample(decoder, prompts, [str(i) for i in range(12)], GREEDY, StoppingCriteria(policy.stop_ids, 40, rows=6))
    return dict(STATE.attention)


@pytest.mark.parametrize("card", ["a6000", "t4"])
def test_sampling_takes_fused_kernels_alone(card: str, stages: dict[str, Stage]) -> None:
    found = stages[card].call(samples)
    assert sum(found.values()) > 100
    assert not [kind for kind in found if kind.startswith(COPYING) or MATH in kind]


def kinds() -> dict[str, list[str]]:
    """Returns the kernel that is taken for attention by what is passed."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attention

    from tests.rehearsal.card.state import STATE

    def ones(tokens: int, dtype: torch.dtype = torch.float16) -> torch.Tensor:
        return torch.ones(1, 2, tokens, 8, device="cuda", dtype=dtype)

    def mask(tokens: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.ones(tokens, tokens, dtype=dtype, device="cuda")

    def autocast() -> torch.Tensor:
        with torch.autocast("cuda", torch.float16):
            return attention(*[ones(8, torch.float32)] * 3)

    calls = {
        "plain": lambda: attention(*[ones(8)] * 3),
        "bfloat16": lambda: attention(*[ones(8, torch.bfloat16)] * 3),
        "strided": lambda: attention(ones(8).transpose(-1, -2), ones(8), ones(8)),
        "additive mask": lambda: attention(*[ones(8)] * 3, mask(8, torch.float16)),
        "additive mask, unaligned": lambda: attention(*[ones(4)] * 3, mask(4, torch.float16)),
        "boolean mask": lambda: attention(*[ones(8)] * 3, mask(8, torch.bool)),
        "boolean mask, unaligned": lambda: attention(*[ones(4)] * 3, mask(4, torch.bool)),
        "float32": lambda: attention(*[ones(8, torch.float32)] * 3),
        "float32, autocast": autocast,
    }
    found = {}
    for name, call in calls.items():
        STATE.attention.clear()
        dtype = str(call().dtype)[6:]
        found[name] = [dtype, *(kind.partition(f" {dtype}")[0] for kind in STATE.attention)]
    return found


@pytest.mark.parametrize(("card", "best", "for_bfloat16"), [("a6000", "flash", "flash"), ("t4", "efficient", MATH)])
def test_a_kernel_is_taken_by_torchs_rules(card: str, best: str, for_bfloat16: str, stages: dict[str, Stage]) -> None:
    assert stages[card].call(kinds) == {
        "plain": ["float16", best],
        "bfloat16": ["bfloat16", for_bfloat16],
        "strided": ["float16", MATH],
        "additive mask": ["float16", "efficient"],
        "additive mask, unaligned": ["float16", PADDED],
        "boolean mask": ["float16", CONVERTED],
        "boolean mask, unaligned": ["float16", CONVERTED_AND_PADDED],
        "float32": ["float32", "efficient"],
        "float32, autocast": ["float16", best],
    }


def attention_refusals() -> list[str]:
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attention

    from tests.rehearsal.test_strictness import errors_of

    card, host = torch.ones(1, 2, 8, 8, device="cuda"), torch.ones(1, 2, 8, 8)
    calls = {"key": lambda: attention(card, host, card), "value": lambda: attention(card, card, host)}
    return list(errors_of(calls).values())


def test_attention_takes_no_keys_or_values_of_the_host(a6000: Stage) -> None:
    assert all("query, key, and value to have the same device type" in text for text in a6000.call(attention_refusals))
