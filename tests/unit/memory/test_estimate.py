"""The estimate as a whole: what must hold for every run."""

from dataclasses import replace
from time import thread_time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory.estimate import UNVALIDATED, MemoryEstimate, estimate
from lowmem_rl.memory.workload import LINEAR_LAYERS, Workload, on_plain_trl, workload_of
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import CATALOGUE, ModelShape, load_shape
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl.units import GIB

CARD = CARDS["a6000"]
LARGE = load_shape("Qwen/Qwen2.5-7B-Instruct")


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    stack = draw(st.sampled_from(["unsloth", "trl"]))
    return Workload(
        loss=draw(st.sampled_from(["grpo", "sft"])),
        stack=stack,
        method=draw(st.sampled_from(["qlora", "lora", "full"])),
        lora_rank=draw(st.integers(1, 128)),
        lora_targets=draw(st.sampled_from([LINEAR_LAYERS, ("q_proj", "v_proj")])),
        micro_batch=draw(st.integers(1, 64)),
        prompt_tokens=draw(st.integers(1, 4096)),
        completion_tokens=draw(st.integers(1, 8192)),
        group_size=draw(st.integers(2, 64)),
        rollout_rows=draw(st.integers(1, 512)),
        eval_rows=draw(st.integers(0, 64)),
        accumulated=draw(st.booleans()),
        checkpointing=draw(st.sampled_from(["unsloth", "plain", "none"])),
        optimizer=draw(st.sampled_from(["adamw_8bit", "adamw_torch", "paged_adamw_8bit"])),
        rollout_engine=draw(st.sampled_from(["lowmem", "generate", "vllm"])),
        rollout_weights=draw(st.sampled_from(["quantized", "merged"])),
        filters_words=draw(st.booleans()),
        standby=draw(st.booleans()),
        reference_pass=draw(st.booleans()),
        old_logprob_pass=draw(st.booleans()),
        grouped_rows=draw(st.sampled_from([0, 8, 256])),
        trained_layers=draw(st.sampled_from([None, 1, 8])),
        vllm_utilisation=draw(st.sampled_from([None, 0.3, 0.9])),
        double_quantisation=draw(st.booleans()),
        upcast_remainder=draw(st.booleans()),
        residual_bytes=draw(st.sampled_from([None, 4])),
        weight_bytes=draw(st.sampled_from([None, 4])),
        wide_on_cpu=draw(st.booleans()),
        dynamic_checkpoint=draw(st.booleans()),
        compute_bytes=draw(st.sampled_from([2, 4])),
        lora_dropout=draw(st.sampled_from([0.0, 0.1])),
        attention=draw(st.sampled_from(["flash", "sdpa", "eager"])),
        layer=draw(st.sampled_from(["unsloth", "plain", "fused"])),
        logits=draw(st.sampled_from(["chunked", "in-place", "kept", "fused", "full", "shifted"])),
        expandable_segments=draw(st.booleans()),
    )


shapes = st.sampled_from(list(CATALOGUE.values()))
cards = st.sampled_from([None, *CARDS.values()])


def peaks(found: MemoryEstimate) -> tuple[int, int, int]:
    return found.expected_bytes, found.upper_bytes, found.allocated_bytes


@given(workloads(), shapes, cards, st.integers(1, 1000))
@pytest.mark.parametrize(
    "field",
    ["micro_batch", "prompt_tokens", "completion_tokens", "lora_rank", "rollout_rows", "eval_rows", "trained_layers"],
)
def test_more_of_anything_never_lowers_the_peak(
    field: str, workload: Workload, shape: ModelShape, card: Any, more: int
) -> None:
    larger = replace(workload, **{field: (getattr(workload, field) or 1) + more})
    workload = replace(workload, **{field: getattr(workload, field) or (1 if field == "trained_layers" else 0)})
    before, after = estimate(workload, shape, card), estimate(larger, shape, card)
    assert all(a >= b for a, b in zip(peaks(after), peaks(before), strict=True))


def test_no_bound_falls_when_the_layers_overtake_the_loss() -> None:
    shape = load_shape("Qwen/Qwen2.5-1.5B")
    run = replace(
        on_plain_trl(workload_of(config(memory={"micro_batch": 8, "rollout_rows": 1}), LARGE)),
        logits="full",
        attention="flash",
    )
    run = replace(run, checkpointing="unsloth", optimizer="adamw_torch", eval_rows=0, completion_tokens=64)
    uppers = [estimate(replace(run, prompt_tokens=p), shape, CARDS["h200"]).upper_bytes for p in range(500, 1500, 20)]
    assert uppers == sorted(uppers)


@pytest.mark.parametrize("dtype", ["auto", "float32"])
def test_a_longer_prompt_never_needs_less_of_our_sampler(dtype: str) -> None:
    shape, card = load_shape("meta-llama/Llama-2-7b-hf"), CARDS["h200"]  # its keys and values are wide
    run = replace(workload_of(config(model={"dtype": dtype}, memory={"rollout_rows": 4}), shape), eval_rows=8)
    for completion_tokens in (8, 64, 2048):
        found = [
            estimate(replace(run, completion_tokens=completion_tokens, prompt_tokens=tokens), shape, card)
            for tokens in range(16, 1600, 13)
        ]
        for figure in zip(*map(peaks, found), strict=True):
            assert list(figure) == sorted(figure)


def test_a_deeper_model_with_vllm_never_needs_less() -> None:
    run = replace(workload_of(config(rollout={"engine": "vllm"}), LARGE), standby=False, dynamic_checkpoint=True)
    found = [estimate(run, replace(LARGE, num_layers=layers), CARD) for layers in range(28, 200)]
    for figure in zip(*map(peaks, found), strict=True):
        assert list(figure) == sorted(figure)


@given(workloads(), shapes, cards, st.integers(1, 40))
def test_more_layers_never_lower_the_peak(workload: Workload, shape: ModelShape, card: Any, more: int) -> None:
    deeper = replace(shape, num_layers=shape.num_layers + more)
    before, after = estimate(workload, shape, card), estimate(workload, deeper, card)
    assert all(a >= b for a, b in zip(peaks(after), peaks(before), strict=True))


@given(workloads(), shapes, cards, st.integers(2, 4096))
def test_the_group_alone_costs_nothing(workload: Workload, shape: ModelShape, card: Any, more: int) -> None:
    grown = estimate(replace(workload, group_size=workload.group_size + more), shape, card)
    before = estimate(workload, shape, card)
    assert all(a <= b for a, b in zip(peaks(grown), peaks(before), strict=True))
    if workload.rollout_engine != "lowmem":  # ours reads fewer prompts for the same rows
        assert peaks(grown) == peaks(before)


@given(workloads(), shapes, cards)
def test_terms_add_up_to_their_phase_and_bounds_enclose(workload: Workload, shape: ModelShape, card: Any) -> None:
    found = estimate(workload, shape, card)
    for phase, parts in found.to_json_phases().items():
        assert sum(parts.values()) == found.phase_bytes(phase)
        assert len(parts) == len(found.phases[phase]), "two terms of one name"
    assert found.allocated_bytes <= found.reserved_bytes <= found.expected_bytes <= found.upper_bytes
    assert found.expected_bytes == found.phase_bytes(found.peak_phase) <= found.upper_bytes
    assert all(0 <= term.expected_bytes <= term.upper_bytes for parts in found.phases.values() for term in parts)


@given(workloads(), shapes, cards)
def test_plain_trl_never_needs_less_for_the_layers(workload: Workload, shape: ModelShape, card: Any) -> None:
    shared = {"loss": "grpo", "rollout_engine": "generate", "logits": "chunked", "lora_dropout": 0.0}
    unsloth = replace(workload, stack="unsloth", layer="unsloth", **shared)
    unsloth = replace(unsloth, method="lora", attention="flash", expandable_segments=True, checkpointing="plain")
    trl = replace(unsloth, layer="plain", expandable_segments=False)
    assert estimate(trl, shape, card).upper_bytes >= estimate(unsloth, shape, card).upper_bytes


def config(**sections: Any) -> RunConfig:
    """A run whose "auto" settings are chosen."""
    run = RunConfig.model_validate({"model": {"name": "Qwen/Qwen2.5-7B-Instruct"}, **sections})
    return with_overrides(
        run, {"memory.checkpointing": "unsloth", "rollout.weights": run.rollout.weights.replace("auto", "quantized")}
    )


def test_a_run_becomes_a_workload() -> None:
    run = config(grpo={"group_size": 16, "beta": 0.04}, memory={"micro_batch": 4, "rollout_rows": 32})
    workload = workload_of(run, LARGE)
    assert (workload.method, workload.micro_batch, workload.rollout_rows, workload.group_size) == ("qlora", 4, 32, 16)
    assert workload.reference_pass
    assert not workload.old_logprob_pass
    assert workload_of(config(grpo={"passes_per_rollout": 2}), LARGE).old_logprob_pass
    assert workload_of(config(model={"name": "tiny", "bits": 16}), LARGE).method == "lora"


def test_phases_are_those_that_the_run_has() -> None:
    plain = estimate(workload_of(config(), LARGE), LARGE, CARD)
    assert list(plain.phases) == ["load", "rollout", "backward", "optimizer", "evaluation", "save"]
    penalised = estimate(workload_of(config(grpo={"beta": 0.04}), LARGE), LARGE, CARD)
    assert "logprobs" in penalised.phases


def test_a_card_without_flash_attention_has_a_kernel_of_its_own_and_plain_layers_copy_keys() -> None:
    workload = workload_of(config(), LARGE)
    assert estimate(workload, LARGE, CARDS["t4"]).workload.attention == "efficient"
    assert estimate(on_plain_trl(workload), LARGE, CARDS["t4"]).workload.attention == "sdpa"
    assert estimate(workload, LARGE, None).workload.attention == "sdpa"
    assert estimate(workload, LARGE, CARD).workload.attention == "flash"


def test_small_cards_tile_their_logits() -> None:
    tiled = {key: estimate(workload_of(config(), LARGE), LARGE, CARDS[key]).workload.tiles_logits for key in CARDS}
    assert (tiled["t4"], tiled["3090"], tiled["a6000"], tiled["a100-80"]) == (True, True, False, False)


def test_what_no_run_has_confirmed_and_what_is_not_known_is_said() -> None:
    workload = workload_of(config(), LARGE)
    other = replace(LARGE, architecture="NovelForCausalLM")
    known, guessed = estimate(workload, LARGE, CARD), estimate(workload, other, CARD)
    assert known.notes == (UNVALIDATED,)
    assert "NovelForCausalLM" in guessed.notes[1]
    assert guessed.expected_bytes == known.expected_bytes
    assert guessed.upper_bytes > known.upper_bytes


def test_a_guessed_layer_is_tight_although_the_same_sizes_known_would_fit() -> None:
    workload, other = workload_of(config(), LARGE), replace(LARGE, architecture="NovelForCausalLM")
    known, guessed = estimate(workload, LARGE, CARD), estimate(workload, other, CARD)
    assert (known.verdict(known.upper_bytes), guessed.verdict(known.upper_bytes)) == ("fits", "tight")
    weights = guessed.phases["load"][0]
    assert weights.upper_bytes >= 1.5 * weights.expected_bytes


def test_a_cpu_computes_in_float32_and_neither_pages_nor_offloads() -> None:
    run = replace(workload_of(config(), LARGE), optimizer="paged_adamw_8bit")
    here = estimate(run, LARGE, None).workload
    assert (here.compute_bytes, here.optimizer, here.checkpointing) == (4, "adamw_8bit", "plain")
    assert estimate(run, LARGE, CARD).workload.optimizer == "paged_adamw_8bit"
    asked = workload_of(config(model={"name": "Qwen/Qwen2.5-7B-Instruct", "dtype": "bfloat16"}), LARGE)
    assert estimate(asked, LARGE, None).workload.compute_bytes == 2


def test_log_probs_run_by_the_micro_batch_and_the_pass_over_all_groups_is_noted() -> None:
    run = config(grpo={"group_size": 16, "beta": 0.04}, memory={"micro_batch": 4, "rollout_rows": 8})
    workload = workload_of(run, LARGE)
    assert workload.grouped_rows == run.rows_per_rollout
    found, halved = estimate(workload, LARGE, CARD), estimate(replace(workload, micro_batch=2), LARGE, CARD)
    assert found.phase_bytes("logprobs") > halved.phase_bytes("logprobs")
    assert "all groups at once" in found.notes[1]
    assert found.upper_bytes == estimate(replace(workload, grouped_rows=0), LARGE, CARD).upper_bytes


def test_vllm_alone_asks_for_no_log_probs() -> None:
    assert "logprobs" not in estimate(workload_of(config(rollout={"engine": "vllm"}), LARGE), LARGE, CARD).phases


def test_a_verdict_has_three_values() -> None:
    found = estimate(workload_of(config(), LARGE), LARGE, CARD)
    assert found.verdict(found.upper_bytes) == "fits"
    assert found.verdict(found.upper_bytes - 1) == "tight"
    assert found.verdict(found.expected_bytes) == "tight"
    assert found.verdict(found.expected_bytes - 1) == "does-not-fit"


def test_the_worst_phase_decides_and_long_answers_make_it_the_rollout() -> None:
    # 7B in GiB: weights 3.14 + 2.03, adapter with states 0.23, scratch 0.13; 32 rows x 8704 tokens x 56 KiB = 14.88
    # of KV cache, a 28th twice: 15.41; scores 28 x 32 x 28 heads x 8704 x 2 = 0.41; sampler 0.05.
    # A micro-batch of one row learns in 9.
    generate = {"engine": "generate"}
    run = config(grpo={"max_completion_tokens": 8192}, memory={"micro_batch": 1, "rollout_rows": 32}, rollout=generate)
    found = estimate(workload_of(run, LARGE), LARGE, CARD)
    assert found.peak_phase == "rollout"
    assert found.allocated_bytes / GIB == pytest.approx(21.39, abs=0.03)
    assert found.phase_bytes("backward") / GIB < 10


def test_plain_trl_needs_more_for_the_same_run() -> None:
    workload = workload_of(config(), LARGE)
    trl = on_plain_trl(workload)
    assert (trl.stack, trl.layer, trl.checkpointing) == ("trl", "plain", "plain")
    ours, theirs = estimate(workload, LARGE, CARD), estimate(trl, LARGE, CARD)
    assert theirs.phase_bytes("backward") > ours.phase_bytes("backward")
    assert theirs.upper_bytes > ours.upper_bytes


def test_an_estimate_takes_well_under_ten_milliseconds() -> None:
    workload = workload_of(config(), LARGE)
    started = thread_time()
    for _ in range(20):
        estimate(workload, LARGE, CARD)
    assert (thread_time() - started) / 20 < 0.005
