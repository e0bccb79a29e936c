"""What a rollout of transformers' `generate` leaves in the pool, and what a loss over whole logits finds there."""

from dataclasses import replace

import pytest

from lowmem_rl.memory import driver_overhead, pool_shares
from lowmem_rl.memory.caching_allocator import CachingAllocator
from lowmem_rl.memory.estimate import estimate
from lowmem_rl.memory.generate_pool import generate, share_of_cache
from lowmem_rl.memory.pool_shares import Kind, kind_workload
from lowmem_rl.memory.simulated_pool import simulate
from lowmem_rl.memory.terms import rollout_cache_bytes
from lowmem_rl.memory.workload import Logits, Workload
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape
from scripts.simulate_pool import cache_shares

SHAPE = replace(load_shape("Qwen/Qwen3-8B"), num_layers=12)


def rollout(logits: Logits = "full") -> Workload:
    """Four micro-batches of 8 short rows, sampled together."""
    work = kind_workload(Kind("plain", logits, "plain", False), 8, 12, 96)
    return replace(work, rollout_rows=32)


def after_rollout(work: Workload, *, first: int = 0) -> CachingAllocator:
    """The pool after a rollout that finds one free block of `first` bytes, or none."""
    pool = CachingAllocator()
    if first:
        pool.free(pool.allocate(first))
    generate(pool, work, SHAPE)
    return pool


def test_a_rollout_gives_back_all_that_it_takes_and_leaves_more_blocks_than_its_cache_has() -> None:
    pool = after_rollout(rollout())
    assert pool.allocated == 0
    assert pool.peak_allocated >= rollout_cache_bytes(rollout(), SHAPE)
    assert 1.3 <= pool.reserved / rollout_cache_bytes(rollout(), SHAPE) <= pool_shares.CACHE_SHARE_MOST


def test_growing_segments_leave_little() -> None:
    grown = share_of_cache(replace(rollout(), expandable_segments=True), SHAPE)
    assert grown < share_of_cache(rollout(), SHAPE) - 0.1


def test_heads_that_share_keys_need_copies_of_them() -> None:
    peaks, work = [], replace(rollout(), method="lora")  # no matrix is dequantised
    for heads in (SHAPE.num_kv_heads, SHAPE.num_heads):
        generate(pool := CachingAllocator(), work, replace(SHAPE, num_heads=heads, vocab_size=1000))
        peaks.append(pool.peak_allocated)
    copied = 2 * 2 * 32 * 107 * SHAPE.query_size  # keys and values of the last step, in 16 bit
    assert 0.85 * copied < peaks[1] - peaks[0] <= copied  # without them a cache that grows is the peak


@pytest.mark.parametrize(("logits", "each"), [("full", 14), ("divided", 14), ("selective", 18)])
def test_whole_logits_find_no_room_in_what_a_rollout_leaves_and_all_else_does(logits: Logits, each: int) -> None:
    work = rollout(logits)
    pool = after_rollout(work)
    left = pool.reserved
    simulate(work, SHAPE, [work.row_tokens] * 2, pool)
    assert pool.peak_reserved == pytest.approx(left + each * work.scored_tokens * SHAPE.vocab_size, rel=0.02)


def test_a_head_that_the_files_hold_twice_leaves_room_for_logits() -> None:
    work, head = rollout(), 2 * SHAPE.vocab_size * SHAPE.hidden_size
    with_head, without = after_rollout(work, first=head), after_rollout(work)
    for pool in (with_head, without):
        simulate(work, SHAPE, [work.row_tokens] * 2, pool)
    assert without.peak_reserved < with_head.peak_reserved < without.peak_reserved + head / 2


def test_the_estimate_of_plain_trl_holds_the_rollouts_blocks_and_the_logits() -> None:
    work = rollout("divided")
    found = estimate(work, SHAPE, CARDS["h100"])
    pool = after_rollout(work)
    simulate(work, SHAPE, [work.row_tokens] * 2, pool)
    slack = next(one for one in found.phases["backward"] if one.name == driver_overhead.SLACK)
    assert slack.expected_bytes == pytest.approx(pool.peak_reserved - pool.peak_allocated, rel=0.25)
    grown = estimate(replace(work, expandable_segments=True), SHAPE, CARDS["h100"])
    assert grown.reserved_bytes < found.reserved_bytes


@pytest.mark.slow
def test_what_a_rollout_leaves_is_derived_again() -> None:
    assert cache_shares() == (pool_shares.CACHE_SHARE, pool_shares.CACHE_SHARE_MOST)
