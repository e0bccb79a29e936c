"""What the planner counts for our engine, against the engine itself on the embedded model."""

import dataclasses
import weakref

import pytest
import torch

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine import continuous_batching, decoder_weights
from lowmem_rl.engine.decoder import KVCache, prefill
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy
from lowmem_rl.engine.sampling import GREEDY
from lowmem_rl.memory import lowmem_sampler
from lowmem_rl.memory.workload import Workload, workload_of
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.search import resolve_auto

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
    blocks = decoder_weights.merged(policy.model, 192).blocks
    joined = [linear for block in blocks for linear in (block.qkv, block.out, block.gate_up, block.down)]
    return sum(linear.keywords["weight"].nbytes for linear in joined)


def test_the_copy_has_the_counted_size(policy, workload):
    assert linear_bytes(policy) == lowmem_sampler.merged_copy(workload, TINY).expected_bytes


def test_the_cache_has_the_counted_size(policy, workload):
    decoder = decoder_weights.merged(policy.model, workload.row_tokens)
    cache = KVCache(decoder, 3, workload.row_tokens + lowmem_sampler.CHECK_EVERY)
    assert cache.buffer.nbytes == lowmem_sampler.cache(workload, TINY, 3).expected_bytes
    assert cache.buffer.dtype == torch.float32


def test_prompts_that_are_read_are_gone_before_the_next_are(policy, monkeypatch):
    decoder, read = decoder_weights.merged(policy.model, 16), []

    def watched(*args):
        assert [kept() for kept in read] == [None] * len(read)
        logits, kept = prefill(*args)
        read.append(weakref.ref(kept))
        return logits, kept

    monkeypatch.setattr(continuous_batching, "prefill", watched)
    monkeypatch.setattr(continuous_batching, "PREFILL_TOKENS", 4)  # one prompt in each forward
    limits = continuous_batching.StoppingCriteria(frozenset(), max_tokens=2, rows=3)
    continuous_batching.sample(decoder, [[5, 6, 7], [5, 6, 8], [5, 6, 9]], ["a", "b", "c"], GREEDY, limits)
    assert len(read) == 3
