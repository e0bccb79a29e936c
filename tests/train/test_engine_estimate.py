"""What the planner counts of our engine, against the engine itself on the embedded model."""

import dataclasses
import weakref

import pytest
import torch

from lowmem_rl.compose import resolve
from lowmem_rl.engine import rollout, weights
from lowmem_rl.engine.decoder import KeyValues, prefill
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy
from lowmem_rl.engine.sampling import GREEDY
from lowmem_rl.memory import engine
from lowmem_rl.memory.workload import Workload, workload_of
from lowmem_rl.models import load_shape
from lowmem_rl.planning.choose import resolve_auto

TINY = load_shape("tiny")
RUN = resolve_auto(resolve(preset="tiny-cpu").config, TINY, 2**33, None)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load_policy(RUN, Device("cpu", "float32"))


@pytest.fixture
def workload() -> Workload:
    return dataclasses.replace(workload_of(RUN, TINY), compute_bytes=4)


def linear_bytes(policy: Policy) -> int:
    """The joined weights of a decoder in float32."""
    blocks = weights.merged(policy.model, 192).blocks
    joined = [linear for block in blocks for linear in (block.qkv, block.out, block.gate_up, block.down)]
    return sum(linear.keywords["weight"].nbytes for linear in joined)


def test_the_planner_knows_the_same_models_and_limits():
    assert (rollout.PREFILL_TOKENS, rollout.GPU_CHECK_EVERY) == (engine.PREFILL_TOKENS, engine.CHECK_EVERY)
    assert rollout.READ_AHEAD_TOKENS == engine.READ_AHEAD_TOKENS


def test_the_copy_has_the_counted_size(policy, workload):
    assert linear_bytes(policy) == engine.merged_copy(workload, TINY).expected_bytes


def test_the_cache_has_the_counted_size(policy, workload):
    decoder = weights.merged(policy.model, workload.row_tokens)
    cache = KeyValues(decoder, 3, workload.row_tokens + engine.CHECK_EVERY)
    assert cache.buffer.nbytes == engine.cache(workload, TINY, 3).expected_bytes
    assert cache.buffer.dtype == torch.float32


def test_prompts_that_are_read_are_gone_before_the_next_are(policy, monkeypatch):
    decoder, read = weights.merged(policy.model, 16), []

    def watched(*args):
        assert [kept() for kept in read] == [None] * len(read)
        logits, kept = prefill(*args)
        read.append(weakref.ref(kept))
        return logits, kept

    monkeypatch.setattr(rollout, "prefill", watched)
    monkeypatch.setattr(rollout, "PREFILL_TOKENS", 4)  # one prompt in each forward
    limits = rollout.Limits(frozenset(), max_tokens=2, rows=3)
    rollout.sample(decoder, [[5, 6, 7], [5, 6, 8], [5, 6, 9]], ["a", "b", "c"], GREEDY, limits)
    assert len(read) == 3
