"""The simulated allocator against PyTorch's rules, and training steps on it."""

import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.memory import pool_shares, simulated_pool
from lowmem_rl.memory.activations import kept_activations, layer, loss, spare_chunk
from lowmem_rl.memory.backward_moments import backward_moments
from lowmem_rl.memory.caching_allocator import Block, CachingAllocator
from lowmem_rl.memory.operations import Operation, Tape
from lowmem_rl.memory.pool_shares import KINDS, TABLE, Kind, kind_workload
from lowmem_rl.memory.segments import GROWING, VARIABLE, allocator_settings, segments_grow
from lowmem_rl.memory.workload import Checkpointing, Logits
from lowmem_rl.models.lookup import ModelShape, load_shape
from lowmem_rl.units import MIB
from scripts.simulate_pool import shares_of

SMALL, LARGE = load_shape("Qwen/Qwen2.5-1.5B-Instruct"), load_shape("Qwen/Qwen2.5-7B-Instruct")


def test_sizes_are_rounded_and_small_requests_share_a_segment() -> None:
    pool = CachingAllocator()
    assert [pool.allocate(size).size for size in (1, 512, 513)] == [512, 512, 1024]
    assert (pool.reserved, pool.allocated) == (2 * MIB, 2048)


@pytest.mark.parametrize(
    ("size", "segment"), [(MIB, 2), (MIB + 1, 20), (10 * MIB - 512, 20), (10 * MIB, 10), (11 * MIB + 1, 12)]
)
def test_segments_are_2_or_20_mib_or_the_requests_own(size: int, segment: int) -> None:
    pool = CachingAllocator()
    pool.allocate(size)
    assert pool.reserved == segment * MIB


def test_a_large_remainder_is_split_off_from_one_mib_on() -> None:
    pool = CachingAllocator()
    pool.free(pool.allocate(20 * MIB))
    assert pool.allocate(19 * MIB).size == 20 * MIB
    other = CachingAllocator()
    other.free(other.allocate(20 * MIB))
    assert (other.allocate(18 * MIB).size, other.allocate(2 * MIB).size, other.reserved) == (
        18 * MIB,
        2 * MIB,
        20 * MIB,
    )


def test_the_smallest_block_that_fits_is_taken() -> None:
    pool = CachingAllocator()
    blocks = [pool.allocate(size * MIB) for size in (40, 20, 30)]
    for block in blocks:
        pool.free(block)
    assert pool.allocate(25 * MIB).address == blocks[2].address


def test_whole_segments_are_given_back_before_memory_runs_out() -> None:
    pool = CachingAllocator(capacity=100 * MIB)
    pool.free(pool.allocate(60 * MIB))
    pool.allocate(80 * MIB)
    assert pool.reserved == 80 * MIB
    with pytest.raises(MemoryError):
        pool.allocate(30 * MIB)


def test_a_growing_segment_serves_what_fixed_ones_cannot() -> None:
    reserved = []
    for expandable in (False, True):
        pool = CachingAllocator(expandable=expandable)
        for size in (40, 50, 60):
            pool.free(pool.allocate(size * MIB))
        reserved.append(pool.reserved)
    assert reserved == [150 * MIB, 60 * MIB]


@given(st.lists(st.tuples(st.integers(1, 30 * MIB), st.integers(0, 9)), max_size=60), st.booleans())
def test_blocks_never_overlap_and_all_memory_returns(requests: list[tuple[int, int]], expandable: bool) -> None:
    pool, held = CachingAllocator(expandable=expandable), list[Block]()
    for size, order in requests:
        held.append(pool.allocate(size))
        if order < 5:
            pool.free(held.pop(order % len(held)))
        ends = sorted((block.address, block.address + block.size) for block in held)
        assert all(end <= start for (_, end), (start, _) in pairwise(ends))
        assert pool.allocated == sum(block.size for block in held) <= pool.reserved
    for block in held:
        pool.free(block)
    assert pool.allocated == 0
    assert sum(size for free in pool._free.values() for size, _, _ in free) == pool.reserved


def test_without_gradients_a_tensor_goes_after_its_last_use() -> None:
    steps = (Operation("a", "one", ("x",)), Operation("b", "one", ("a",)), Operation("c", "one", ("b",), ("b",)))
    for keep, left in ((False, {"x", "c"}), (True, {"x", "b", "c"})):
        tape = Tape(CachingAllocator(), {"one": MIB})
        tape.take("x", "one")
        tape.forward(steps, keep=keep)
        assert set(tape.held) == left


@pytest.mark.parametrize("checkpointing", ["unsloth", "plain", "none"])
@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["1.5b", "7b"])
def test_a_simulated_step_takes_what_the_formulas_count(shape: ModelShape, checkpointing: Checkpointing) -> None:
    work = kind_workload(Kind("unsloth", "in-place", checkpointing, True), 8, 512, 1024)
    pool = simulated_pool.simulate(work, shape, [work.row_tokens] * 2)
    formulas = (kept_activations, loss, spare_chunk)
    at_loss = sum(one(work, shape).expected_bytes for one in formulas)
    in_layer = sum(one(work, shape).expected_bytes for one in (kept_activations, layer))
    assert pool.peak_allocated == pytest.approx(max(at_loss, in_layer), rel=0.15)
    assert pool.allocated == 0


@pytest.mark.parametrize("logits", ["full", "held", "shifted", "divided", "selective", "liger"])
def test_a_simulated_loss_takes_what_the_formulas_count(logits: Logits) -> None:
    work = kind_workload(Kind("plain", logits, "plain", True), 8, 512, 1024)
    pool = simulated_pool.simulate(work, SMALL, [work.row_tokens])
    counted = max(sum(one.expected_bytes for one in moment) for moment in backward_moments(work, SMALL))
    assert pool.peak_allocated == pytest.approx(counted, rel=0.02)
    assert pool.allocated == 0


def test_a_backward_pass_has_room_of_its_own_that_the_forward_pass_does_not_take() -> None:
    steps = (Operation("y", "one", ("x",), ("x",), ("one",), backward_scratch=("one", "one")),)
    tape = Tape(CachingAllocator(), {"one": MIB})
    tape.take("x", "one")
    tape.forward(steps, keep=True)
    assert tape.allocator.peak_allocated == 2 * MIB  # the input, and the scratch or the result
    tape.held["d y"] = tape.held.pop("y")
    tape.backward(steps, {"x": "one"})
    assert tape.allocator.peak_allocated == 5 * MIB  # the input, the gradient that comes in, and three of scratch


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [Kind("unsloth", "chunked", "unsloth", True), Kind("unsloth", "chunked", "none", True)]
)
def test_the_tables_entries_are_derived_again(kind: Kind) -> None:
    assert shares_of(kind) == TABLE[kind]


@pytest.mark.long
def test_the_whole_table_is_derived_again() -> None:
    assert {kind: shares_of(kind) for kind in KINDS} == TABLE


def test_growing_segments_make_lengths_equal_and_fixed_ones_do_not() -> None:
    growing = kind_workload(Kind("unsloth", "chunked", "unsloth", True), 8, 512, 1024)
    fixed = replace(growing, expandable_segments=False)
    for work, most in ((growing, 1.0), (fixed, 0.5)):
        one, varying = (pool_shares.share(replace(work, lengths_vary=vary), learning=True)[0] for vary in (False, True))
        assert (varying - one < 0.02) == (most == 1.0)
        # a rollout's cache is as long as the longest row
        assert pool_shares.share(replace(work, lengths_vary=True), learning=False)[0] == one


def test_a_users_settings_win_and_vllm_needs_fixed_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    own = {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128"}
    assert allocator_settings({}, uses_vllm=False) == GROWING
    assert allocator_settings({}, uses_vllm=True) == ""
    assert allocator_settings({VARIABLE: "backend:native", **own}, uses_vllm=False) == "max_split_size_mb:128"
    monkeypatch.setenv(VARIABLE, "max_split_size_mb:64, Expandable_Segments: True")
    monkeypatch.delenv("PYTORCH_CUDA_ALLOC_CONF", raising=False)
    assert segments_grow(uses_vllm=False)
    assert not segments_grow(uses_vllm=True)
    monkeypatch.setenv(VARIABLE, "max_split_size_mb:64")
    assert not segments_grow(uses_vllm=False)


@pytest.mark.parametrize(("given_", "expected"), [(None, GROWING), ("max_split_size_mb:64", "max_split_size_mb:64")])
def test_segments_grow_from_before_torch_is_loaded(given_: str | None, expected: str) -> None:
    code = (
        "import os, sys\n"
        "from lowmem_rl.config.compose import resolve\n"
        "from lowmem_rl.engine.device import Device\n"
        "from lowmem_rl.engine.policy import prepare_process\n"
        "prepare_process(resolve(preset='qwen7b-a6000').config, Device('cuda', 'bfloat16'))\n"
        "assert 'torch' not in sys.modules\n"
        "print(os.environ['PYTORCH_ALLOC_CONF'])\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTORCH_")}
    environment |= {VARIABLE: given_} if given_ else {}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == (expected, 0), done.stderr
