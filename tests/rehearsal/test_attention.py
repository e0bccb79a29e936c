"""Our decoder's attention takes a fused kernel as it is: no mask is padded, and no card falls to the math kernel."""

from __future__ import annotations

import pytest

from tests.rehearsal.card.attention import PADDED
from tests.rehearsal.stage import Stage


def samples() -> dict[str, int]:
    """Returns how often each kernel of attention was taken while twelve rows in six slots were sampled."""
    from lowmem_rl.engine.choice import build
    from lowmem_rl.engine.rollout import Limits, sample
    from lowmem_rl.engine.sampling import GREEDY
    from tests.rehearsal.card.state import STATE
    from tests.rehearsal.policies import load

    _, policy = load()
    decoder = build(policy, "merged", 192)
    prompts = [policy.tokenize([{"role": "user", "content": f"What is {41 + 9**i} * 6?"}]) for i in range(12)]
    STATE.attention.clear()
    sample(decoder, prompts, [str(i) for i in range(12)], GREEDY, Limits(policy.stop_ids, 40, rows=6))
    return dict(STATE.attention)


@pytest.mark.parametrize("card", ["a6000", "t4"])
def test_sampling_takes_fused_kernels_alone(card: str, stages: dict[str, Stage]) -> None:
    found = stages[card].call(samples)
    assert sum(found.values()) > 100
    assert not [kind for kind in found if kind.startswith((PADDED, "math")) or "else math" in kind]
