"""Each term of the memory estimate against a number worked out by hand."""

from dataclasses import replace
from typing import Any

import pytest

from lowmem_rl.errors import ConfigError
from lowmem_rl.memory import activations, driver_overhead, generate_sampler, lowmem_sampler, terms
from lowmem_rl.memory.backward_moments import backward_moments
from lowmem_rl.memory.driver_overhead import disk_bytes
from lowmem_rl.memory.estimate import estimate
from lowmem_rl.memory.workload import Workload
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.units import GIB

SMALL = load_shape("Qwen/Qwen2.5-1.5B-Instruct")  # L 28, H 1536, I 8960, q 1536, k 256, V 151936, tied
LARGE = load_shape("Qwen/Qwen2.5-7B-Instruct")  # L 28, H 3584, I 18944, q 3584, k 512, V 152064
LLAMA2 = load_shape("meta-llama/Llama-2-7b-hf")  # L 32, H 4096, I 11008, q = k 4096, V 32000


def work(**changes: Any) -> Workload:
    """The worked example of a 7B: 8 rows of 512 + 1024 tokens, an adapter of rank 16 everywhere."""
    settings: dict[str, Any] = {
        "loss": "grpo",
        "stack": "unsloth",
        "method": "qlora",
        "lora_rank": 16,
        "micro_batch": 8,
        "prompt_tokens": 512,
        "completion_tokens": 1024,
        "group_size": 8,
        "rollout_rows": 8,
        "checkpointing": "unsloth",
        "optimizer": "adamw_8bit",
        "rollout_engine": "generate",
        "standby": False,
        "reference_pass": False,
        "old_logprob_pass": False,
        "dynamic_checkpoint": False,
        "compute_bytes": 2,
        "expandable_segments": True,
    }
    return Workload(**settings | changes)


PLAIN = work(stack="trl", layer="plain", attention="sdpa", checkpointing="plain", expandable_segments=False)


def test_4_bit_weights_carry_their_constants() -> None:
    # a layer: 2 H q + 2 H k + 3 H I = 4 718 592 + 786 432 + 41 287 680 = 46 792 704; 28 layers: 1 310 195 712
    # half a byte each, 1/64 and 4/16384 for constants: x 0.515869140625 = 675 889 536
    assert terms.linear_weights(work(), SMALL).expected_bytes == 675_889_536
    # constants in float32: 4/64 instead: x 0.5625 = 736 985 088
    assert terms.linear_weights(work(double_quantisation=False), SMALL).expected_bytes == 736_985_088
    assert terms.linear_weights(work(method="lora"), SMALL).expected_bytes == 2 * 1_310_195_712


def test_what_is_not_quantised_stays_in_16_bit() -> None:
    # V H = 233 373 696 once (tied), norms 57 x 1536 = 87 552, biases 28 x (1536 + 512) = 57 344: 233 518 592
    assert terms.other_weights(work(), SMALL).expected_bytes == 2 * 233_518_592
    assert terms.other_weights(work(upcast_remainder=True), SMALL).expected_bytes == 4 * 233_518_592


def test_the_4_bit_files_on_the_hub_have_these_sizes() -> None:
    # unsloth/Qwen2.5-1.5B-Instruct-bnb-4bit: 1.14 GB; Qwen2.5-7B-unsloth-bnb-4bit (dynamic): 7.54 GB
    plain = terms.linear_weights(work(), SMALL).expected_bytes + terms.other_weights(work(), SMALL).expected_bytes
    assert plain / 1e9 == pytest.approx(1.14, abs=0.01)
    dynamic = work(dynamic_checkpoint=True)
    whole = terms.linear_weights(dynamic, LARGE).expected_bytes + terms.other_weights(dynamic, LARGE).expected_bytes
    assert whole / 1e9 == pytest.approx(7.54, abs=0.01)


@pytest.mark.parametrize(
    ("model", "rank", "printed"),  # "Trainable parameters" in the logs of published notebooks
    [
        ("Qwen/Qwen2.5-7B", 16, 40_370_176),
        ("Qwen/Qwen2.5-14B", 16, 68_812_800),
        ("Qwen/Qwen3-14B", 16, 64_225_280),
        ("Qwen/Qwen3-32B", 32, 268_435_456),
        ("Qwen/Qwen3-4B", 16, 33_030_144),
        ("meta-llama/Llama-3.1-8B", 16, 41_943_040),
        ("meta-llama/Llama-3.2-1B", 16, 11_272_192),
        ("meta-llama/Llama-3.2-3B", 16, 24_313_856),
        ("meta-llama/Llama-3.3-70B-Instruct", 16, 207_093_760),
        ("mistralai/Mistral-7B-v0.3", 16, 41_943_040),
        ("mistralai/Mistral-Nemo-Base-2407", 16, 57_016_320),
        ("mistralai/Mistral-Small-Instruct-2409", 16, 95_420_416),
        ("mistralai/Magistral-Small-2509", 32, 184_811_520),
        ("microsoft/Phi-3.5-mini-instruct", 16, 29_884_416),
        ("microsoft/Phi-3-medium-4k-instruct", 16, 65_536_000),
        ("microsoft/phi-4", 16, 65_536_000),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", 32, 25_231_360),
    ],
)
def test_an_adapter_has_as_many_weights_as_training_logs_print(model: str, rank: int, printed: int) -> None:
    assert terms.trained_params(work(lora_rank=rank), load_shape(model)) == printed


def test_an_adapter_its_gradients_and_its_states_cost_what_their_widths_say() -> None:
    # 40 370 176 weights: float32 4 bytes each, gradients too; 8-bit Adam 2 x (1 + 4/256) = 2.03125
    assert terms.adapter(work(), LARGE).expected_bytes == 161_480_704
    assert terms.gradients(work(), LARGE).expected_bytes == 161_480_704
    assert terms.optimizer_states(work(), LARGE).expected_bytes == 82_001_920
    assert terms.optimizer_states(work(optimizer="adamw_torch"), LARGE).expected_bytes == 2 * 161_480_704
    assert terms.optimizer_states(work(optimizer="sgd"), LARGE).expected_bytes == 0
    assert terms.optimizer_scratch(work(optimizer="sgd"), LARGE).expected_bytes == 0
    # TRL turns adapters on 4-bit weights to 16 bit
    assert terms.adapter(PLAIN, LARGE).expected_bytes == 2 * 40_370_176


def test_states_of_small_factors_are_not_paged_and_neither_is_their_copy() -> None:
    # Of 28 layers, the three factors of 16 x 18,944 have 100,000 numbers and more: 25,460,736 weights.
    paged = work(optimizer="paged_adamw_8bit", loss="grpo", stack="unsloth")
    moved, left = terms.paged_states(paged, LARGE), terms.optimizer_states(paged, LARGE)
    assert (moved.expected_bytes, moved.elastic) == (51_717_120, True)
    assert (left.expected_bytes, left.elastic) == (30_284_800, False)
    assert terms.undo_copy(paged, LARGE).expected_bytes == 161_480_704 + 30_284_800
    assert terms.paged_states(work(), LARGE).expected_bytes == 0


def test_fewer_trained_layers_have_fewer_weights_that_learn() -> None:
    assert terms.trained_params(work(trained_layers=7), LARGE) == 40_370_176 // 4


def test_full_training_with_adamw_peaks_at_five_copies() -> None:
    # Mistral-7B in bf16 on an A100: resident 40.48 GiB = 3 copies, peak 67.46 = 5 (fms-acceleration)
    full, shape = work(method="full", optimizer="adamw_torch"), load_shape("mistralai/Mistral-7B-v0.1")
    parts = (
        terms.linear_weights,
        terms.other_weights,
        terms.optimizer_states,
        terms.gradients,
        terms.optimizer_scratch,
    )
    sizes = [part(full, shape).expected_bytes / GIB for part in parts]
    assert sum(sizes[:3]) == pytest.approx(40.48, abs=0.02)
    assert sum(sizes) == pytest.approx(67.46, abs=0.02)
    assert terms.adapter(full, shape).expected_bytes == 0


def test_a_4_bit_matrix_is_expanded_before_use() -> None:
    # H I = 3584 x 18944 = 67 895 296, x (2 + 1/16)
    assert terms.weight_copies(work(), LARGE).expected_bytes == 140_034_048
    assert terms.weight_copies(work(method="lora"), LARGE).expected_bytes == 0
    # Unsloth keeps that buffer; others have it while a layer uses it
    plain = work(stack="trl", layer="plain")
    assert terms.weight_copies(plain, LARGE).expected_bytes == terms.matrix_in_use(work(), LARGE).expected_bytes == 0
    assert terms.matrix_in_use(plain, LARGE).expected_bytes == 140_034_048
    named = [[one.name for one in moment] for moment in backward_moments(plain, LARGE)]
    assert ["matrix in use" in names for names in named] == ["loss" not in names and len(names) > 2 for names in named]
    assert sum("matrix in use" in names for names in named) == 1


def test_unsloths_layer_holds_95_and_211_kib_a_token() -> None:
    # saved 2 (4H + 3q + 2k + 2I) = 58 368, transient 2 (I + 2H) = 24 064, staging and last input 6H = 9 216,
    # final hidden and gradient 4H = 6 144, less what the last two share with the layer: 91 648 + 6 144
    small = activations.layer_of(work(), SMALL)
    assert (small.saved, small.transient) == (58_368, 24_064)
    large = activations.layer_of(work(), LARGE)
    assert (large.saved, large.transient) == (2 * 64_000, 2 * 26_112)
    tokens = 8 * 1536
    assert activations.kept_activations(work(), LARGE).expected_bytes == 3 * tokens * 3584 * 2
    assert activations.layer(work(), LARGE).expected_bytes == tokens * 2 * (64_000 + 26_112)


def test_checkpointing_decides_what_stays_on_the_card() -> None:
    tokens = 8 * 1536
    kept = {
        mode: activations.kept_activations(work(checkpointing=mode), LARGE).expected_bytes
        for mode in ("unsloth", "plain", "none")
    }
    assert kept["plain"] == 28 * tokens * 3584 * 2
    assert kept["none"] == 27 * tokens * 2 * 64_000
    assert kept["unsloth"] < kept["plain"] < kept["none"]
    assert activations.kept_activations(work(checkpointing="plain", trained_layers=4), LARGE).expected_bytes == (
        4 * tokens * 3584 * 2
    )


def test_attentions_output_is_kept_twice_only_if_rows_are_joined() -> None:
    once = 2 * (4 * 1536 + 2 * 1536 + 2 * 256 + 2 * 8960)
    assert activations.layer_of(work(micro_batch=1), SMALL).saved == once
    assert activations.layer_of(work(loss="sft"), SMALL).saved == once
    assert activations.layer_of(work(attention="efficient"), SMALL) == activations.layer_of(work(), SMALL)


def test_the_memory_efficient_kernel_may_keep_copied_keys_for_every_query_head() -> None:
    tokens = 8 * 1536
    kept = activations.kept_activations(work(checkpointing="none", attention="efficient"), SMALL)
    flash = activations.kept_activations(work(checkpointing="none"), SMALL)
    assert kept.expected_bytes == flash.expected_bytes == flash.upper_bytes
    assert kept.upper_bytes == kept.expected_bytes + 27 * tokens * 2 * 2 * (1536 - 256)  # keys and values


def test_a_plain_layer_holds_what_fake_tensors_count() -> None:
    # q = H, keys copied for every head, adapters in 16 bit: 24 H + 12 I bytes a token, counted at eight shapes
    layer = activations.layer_of(PLAIN, SMALL)
    assert layer.peak == 24 * 1536 + 12 * 8960
    assert layer.saved == 20 * 1536 + 8 * 8960


def test_eager_attention_holds_all_scores() -> None:
    eager = replace(PLAIN, attention="eager")
    # in addition to the MLP's backward pass what softmax keeps, 4 + 2 bytes of 8 rows x 12 heads x 768^2
    short = replace(eager, completion_tokens=768 - eager.prompt_tokens)
    assert activations.layer(short, SMALL).expected_bytes == 6144 * (24 * 1536 + 12 * 8960) + 8 * 12 * 768**2 * 6
    # one long row, 12 heads x 4096^2: in float32 softmax's result, the gradient that comes, their product, the one that
    # goes, in addition to the norm's input, queries, keys and values for every head, 8 x 1536 + 4 x 2 x 1536 a token
    long = replace(eager, micro_batch=1, completion_tokens=4096 - eager.prompt_tokens)
    assert activations.layer(long, SMALL).expected_bytes == 12 * 4096**2 * 16 + 4096 * 16 * 1536


def test_held_logits_stay_while_the_layers_run_back() -> None:
    held = replace(PLAIN, logits="held", loss="sft")
    moments = list(backward_moments(held, SMALL))
    found = [[one.expected_bytes for one in moment if one.name == "logits held"] for moment in moments]
    assert found == [[] if any(one.name == "loss" for one in moment) else [12_288 * 151_936 * 2] for moment in moments]


def test_with_a_padding_mask_each_layer_writes_the_mask_in_numbers() -> None:
    # 8 rows x 1536^2 x 2 bytes; Llama 2 has as many keys as queries, so that nothing else differs
    masked = activations.layer(PLAIN, LLAMA2).expected_bytes
    assert masked - activations.layer(replace(PLAIN, attention="flash"), LLAMA2).expected_bytes == 8 * 1536**2 * 2


def test_the_loss_meets_all_layers_if_nothing_is_recomputed() -> None:
    at_loss, at_top = backward_moments(work(checkpointing="none"), LARGE)
    held = sum(one.expected_bytes for one in at_loss if one.name not in ("loss", "chunk of logits"))
    assert held == 28 * 8 * 1536 * 2 * 64_000
    assert [one.name for one in at_top] == ["activations kept", "one layer's backward"]


@pytest.mark.parametrize(("rows", "chunk", "fallback"), [(100, 100, 100), (4096, 512, 512), (1_000_000, 512, 1765)])
def test_unsloths_chunk_of_logits_has_512_rows_and_without_its_kernels_an_eighth(rows, chunk, fallback) -> None:
    # 512 x 151936 / 152064 = 511.6, so 256, at least 512; the fallback is cut at 2 GiB / (8 x 152064) = 1765.3
    assert activations.chunk_rows(rows, LARGE) == chunk
    assert activations.fallback_rows(rows, LARGE.vocab_size) == fallback


def test_a_chunk_of_logits_shrinks_to_two_rows_before_memory_runs_out() -> None:
    # tiles of 4096 x (16384 + 3584) float32, two rows of logits required; hidden states 12 288 x 3584 x 4
    found = activations.spare_chunk(work(), LARGE)
    assert found.expected_bytes == 4 * 4096 * 19_968 - 2 * 152_064 * 4
    # an eighth of 8192 rows, logits and their gradient
    assert found.upper_bytes == 1.25 * 1022 * 152_064 * 8
    assert activations.loss(work(), LARGE).expected_bytes == 12_288 * 3584 * 4 + 2 * 152_064 * 4
    # on cards of up to 24.5 GiB tiles of all rows: 2 x 512, of 16384 + 3584 float32, since 512 x 152064 are more
    few = {"micro_batch": 2, "completion_tokens": 512}
    assert activations.logit_bytes(work(**few, tiles_logits=True), LARGE) == 4 * 1024 * 19_968
    assert activations.logit_bytes(work(**few), LARGE) == 4 * 512 * 152_064
    assert activations.spare_chunk(PLAIN, LARGE).expected_bytes == 0


def test_logits_cost_what_their_kernel_holds() -> None:
    # 8 x 128 completion tokens: a chunk of 512 rows x 152064 x 4
    assert activations.logit_bytes(work(completion_tokens=128), LARGE) == 512 * 152_064 * 4
    # TRL: a tile of 4096 x 32768 in 16 bit; of the 8192 scored rows a copy (2) and their gradient (4, then 2)
    assert activations.logit_bytes(PLAIN, LARGE) == 4096 * 32_768 * 2 + 8192 * 3584 * 8
    # supervised and whole: every token x 152064 x 12
    whole = replace(PLAIN, loss="sft", logits="full")
    assert activations.logit_bytes(whole, LARGE) == 8 * 1536 * 152_064 * 12


def test_the_kv_cache_of_a_7b_takes_56_kib_a_token() -> None:
    assert terms.kv_bytes_per_token(LARGE, 2) == 57_344
    assert terms.kv_bytes_per_token(SMALL, 2) == 28_672
    # 8 rows x (512 + 1024) x 57 344, and one layer of 28 twice while the cache grows
    assert generate_sampler.kv_cache(work(), LARGE, 8).expected_bytes == 8 * 1536 * 57_344 * 29 // 28
    # Unsloth grows by 512: one token over asks for 512 more
    longer = generate_sampler.kv_cache(work(completion_tokens=1025), LARGE, 8).expected_bytes
    assert longer == 8 * 2048 * 57_344 * 29 // 28


def test_at_the_first_word_prompts_are_held_twice_and_every_layer_keeps_scores() -> None:
    # 8 rows x (2 x 512 + 513) x 57 344: more than the 512 + 512 of a short answer's end
    assert generate_sampler.first_token(work(), LARGE, 8).expected_bytes == 8 * 1537 * 57_344
    peak = max(
        sum(one.expected_bytes for one in m)
        for m in generate_sampler.generate_moments(work(completion_tokens=9), LARGE, 8)
    )
    # and 28 layers x 8 rows x 28 heads x 1024 x 2
    assert peak == 8 * 1537 * 57_344 + 28 * 8 * 28 * 1024 * 2 + 8 * 152_064 * 10


def test_prefill_and_sampler_are_passing_loads() -> None:
    # 8 x 512 tokens x 2 (4 x 3584 + 2 x 18944) = 4096 x 104 448
    assert generate_sampler.prefill(work(), LARGE, 8).expected_bytes == 4096 * 104_448
    assert generate_sampler.sampler(work(), LARGE, 8).expected_bytes == 8 * 152_064 * 10


def ours(**changes: Any) -> Workload:
    return work(rollout_engine="lowmem", rollout_weights="merged", **changes)


def test_a_copy_of_the_weights_is_every_linear_layer_in_the_compute_type() -> None:
    copy = lowmem_sampler.merged_copy(ours(), LARGE)
    assert copy.expected_bytes == 2 * 6_525_288_448
    # in 16 bit the adapter's 40 370 176 weights are separate, outer sides of three layers on one diagonal at most
    assert copy.upper_bytes == 2 * (6_525_288_448 + 3 * 40_370_176)
    wide = lowmem_sampler.merged_copy(ours(compute_bytes=4), LARGE)
    assert wide.expected_bytes == wide.upper_bytes == 4 * 6_525_288_448
    # gate and up once more, while they are joined
    assert lowmem_sampler.joining(ours(), LARGE).expected_bytes == 2 * 3584 * 18_944 * 2


def test_our_cache_has_its_full_length_from_the_start() -> None:
    # 8 rows x (512 + 1024 + 8) x 57 344: no copy while it grows
    assert lowmem_sampler.cache(ours(), LARGE, 8).expected_bytes == 8 * 1544 * 57_344


def test_prompts_are_held_until_they_are_put_in_the_cache() -> None:
    # two prompts of 512 tokens x 57 344, and 152 064 logits of 4 bytes after each
    assert lowmem_sampler.prompts_read(ours(), LARGE, 2).expected_bytes == 2 * (512 * 57_344 + 4 * 152_064)
    # 32 of them are 16 384 tokens, read by 8192: 57 344 each until they are put together
    assert lowmem_sampler.prompts_heads(ours(), LARGE, 32).expected_bytes == 8192 * 57_344
    assert lowmem_sampler.prompts_heads(ours(prompt_tokens=9000), LARGE, 32).expected_bytes == 9000 * 57_344
    assert [lowmem_sampler.prompts_of(ours(group_size=8), rows) for rows in (1, 8, 9, 64)] == [1, 1, 2, 8]


def test_short_prompts_are_read_before_a_slot_is_free() -> None:
    assert [lowmem_sampler.prompts_ahead(ours(), prompts) for prompts in (1, 8)] == [1, 2]  # 1024 tokens of 512 each
    # shorter ones than a long limit allows fill the same tokens
    assert lowmem_sampler.prompts_ahead(ours(prompt_tokens=4096), 8) == 1 / 4
    moments = list(lowmem_sampler.peak_points(ours(), LARGE, 8, 8, ahead=2))
    waiting = [one.expected_bytes for moment in moments[-2:] for one in moment if one.name == "prompts read"]
    assert waiting == [lowmem_sampler.prompts_read(ours(), LARGE, 2).expected_bytes] * 2
    assert not any(
        one.expected_bytes
        for one in list(lowmem_sampler.peak_points(ours(), LARGE, 8, 8, 0))[-1]
        if one.name == "prompts read"
    )


@pytest.mark.parametrize(
    ("weights", "width", "a_token"),
    [
        ("merged", 2, 2 * 2 * 3584 + 12 * 18_944),  # gate and up, the adapter's share of both, their sums
        ("merged", 4, 2 * 4 * 3584 + 16 * 18_944),  # gate, up, the activation, the product
        ("quantized", 2, 2 * 2 * 3584 + 12 * 18_944),  # gate, up, and the adapter's product and its scaled copy in 32
        ("quantized", 4, 2 * 4 * 3584 + 16 * 18_944),
    ],
)
def test_one_layer_of_our_engine(weights: Any, width: Any, a_token: int) -> None:
    workload = replace(ours(compute_bytes=width), rollout_weights=weights)
    assert lowmem_sampler.layer_pass(workload, LARGE, 512).expected_bytes == 512 * a_token


def test_picking_a_word_takes_several_numbers_for_each() -> None:
    # logits, scaled, log-softmax, exp: 4 each; float64 copy and sums: 8 each
    assert lowmem_sampler.picker(ours(), LARGE, 8).expected_bytes == 8 * 152_064 * 32
    assert lowmem_sampler.picker(ours(filters_words=True), LARGE, 8).expected_bytes == 8 * 152_064 * 46


def test_without_a_flash_kernel_prompts_have_scores() -> None:
    # 2 prompts x 512 x 512 x 28 heads x 8
    assert lowmem_sampler.prompt_scores(ours(attention="sdpa"), LARGE, 2).expected_bytes == 2 * 512 * 512 * 28 * 8
    assert lowmem_sampler.prompt_scores(ours(), LARGE, 2).upper_bytes == 0
    efficient = lowmem_sampler.prompt_scores(ours(attention="efficient"), LARGE, 2)  # fused since torch 2.14
    assert (efficient.expected_bytes, efficient.upper_bytes) == (0, 2 * 512 * 512 * 28 * 8)


def test_rows_that_move_are_copied_once_and_half_a_wave_at_most() -> None:
    moved = lowmem_sampler.moved_rows(ours(), LARGE, 64)
    assert (moved.expected_bytes, moved.upper_bytes) == (4 * 1536 * 2048, 32 * 1536 * 2048)  # 57,344 / 28 layers


def test_our_rollout_is_its_worst_moment_and_evaluation_has_a_prompt_a_row() -> None:
    found = estimate(ours(rollout_rows=64, eval_rows=32), LARGE, CARDS["a6000"])
    names = [one.name for one in found.phases["rollout"]]
    assert {"merged copy of the weights", "KV cache"} <= set(names)
    read = {one.name: one.expected_bytes for one in found.phases["evaluation"]}
    assert read["prompts being read"] == lowmem_sampler.prompts_heads(ours(), LARGE, 34).expected_bytes
    assert (
        read["prompts read"] == lowmem_sampler.prompts_read(ours(), LARGE, 18).expected_bytes
    )  # before the last 8192 tokens
    assert "merged copy of the weights" not in found.to_json_phases()["backward"]


def test_vllm_fills_its_share_of_the_card() -> None:
    vllm = work(rollout_engine="vllm", vllm_utilisation=0.5)
    card = CARDS["a6000"]
    moment = generate_sampler.vllm_share(vllm, LARGE, card)
    weights = terms.linear_weights(vllm, LARGE).expected_bytes + terms.other_weights(vllm, LARGE).expected_bytes
    held = sum(term.expected_bytes for term in moment) + weights
    assert held == pytest.approx(0.5 * card.offered_bytes, abs=10)
    assert [term.name for term in moment if term.elastic] == ["vLLM's spare cache"]
    assert [term.name for term in generate_sampler.resident_engine(replace(vllm, standby=True), LARGE, card)] == [
        "vLLM engine"
    ]
    assert len(generate_sampler.resident_engine(vllm, LARGE, card)) == 3


def test_with_standby_unsloth_sets_vllms_share_by_the_card() -> None:
    standby = work(rollout_engine="vllm", standby=True)
    assert generate_sampler.utilisation(standby, CARDS["a6000"]) == pytest.approx(0.925 * 0.95)
    assert generate_sampler.utilisation(standby, CARDS["3090"]) == pytest.approx(0.825 * 0.95)
    assert generate_sampler.utilisation(standby, CARDS["t4"]) == pytest.approx(0.8 * 0.95)
    assert generate_sampler.utilisation(work(), CARDS["t4"]) == 0.5


def test_vllm_outgrows_its_share_by_no_more_than_its_graphs() -> None:
    vllm, card = work(rollout_engine="vllm", vllm_utilisation=0.5, rollout_rows=4096), CARDS["a6000"]
    weights = terms.linear_weights(vllm, LARGE).upper_bytes + terms.other_weights(vllm, LARGE).upper_bytes
    share = generate_sampler.vllm_share(vllm, LARGE, card)
    assert sum(term.expected_bytes for term in share) + weights == pytest.approx(0.5 * card.offered_bytes, abs=10)
    assert sum(term.upper_bytes for term in share) + weights <= 0.5 * card.offered_bytes + 2.28 * GIB
    found = estimate(vllm, LARGE, card)
    assert [one.expected_bytes for one in found.phases["rollout"] if one.name == driver_overhead.SLACK] in ([], [0])
    assert found.verdict(card.offered_bytes) == "fits"


@pytest.mark.parametrize("name", ["embed_tokens", "lm_head", "query_key_value"])
def test_a_target_without_a_formula_is_refused_and_the_linear_layers_are_named(name: str) -> None:
    with pytest.raises(ConfigError, match=name) as caught:
        estimate(work(lora_targets=("q_proj", name)), LARGE, CARDS["a6000"])
    assert "gate_proj" in (caught.value.hint or "")


def test_a_deeper_model_of_the_same_widths_keeps_the_share_that_stays_in_16_bit() -> None:
    dynamic, deeper = work(dynamic_checkpoint=True), replace(LARGE, num_layers=29)
    assert terms.linear_weights(dynamic, deeper).expected_bytes > terms.linear_weights(dynamic, LARGE).expected_bytes
    assert terms.linear_weights(dynamic, LARGE).grade == "measured elsewhere"
    assert terms.linear_weights(dynamic, LLAMA2).grade == "assumed"


def test_slack_is_small_if_segments_grow() -> None:
    parts, card = [terms.term("x", 1000, "assumed", "")], CARDS["a6000"]
    growing = driver_overhead.slack(work(), LARGE, parts, card, learning=True)
    fixed = driver_overhead.slack(work(expandable_segments=False), LARGE, parts, card, learning=True)
    varying = driver_overhead.slack(
        work(expandable_segments=False, lengths_vary=True), LARGE, parts, card, learning=True
    )
    assert growing.expected_bytes <= 60
    assert growing.upper_bytes == 100
    assert growing.expected_bytes < fixed.expected_bytes < varying.expected_bytes
    assert fixed.upper_bytes == 350
    assert driver_overhead.slack(work(), LARGE, parts, None, learning=True).expected_bytes == 0


def test_offloaded_inputs_lie_in_host_memory() -> None:
    # 28 x 12 288 tokens x 3584 x 2 = 2.30 GiB and the program
    offloaded = driver_overhead.host_bytes(work(), LARGE) - driver_overhead.host_bytes(
        work(checkpointing="plain"), LARGE
    )
    assert offloaded == 28 * 12_288 * 3584 * 2


def test_ppo_would_hold_a_second_model_with_its_own_optimizer() -> None:
    base = terms.linear_weights(work(), LARGE).expected_bytes + terms.other_weights(work(), LARGE).expected_bytes
    assert terms.ppo_extra_bytes(work(), LARGE) == base + 2 * 161_480_704 + 82_001_920
    full = work(method="full")
    weights = 2 * LARGE.num_params
    # value model: weights, gradients, 8-bit states; reference model: weights
    assert terms.ppo_extra_bytes(full, LARGE) == pytest.approx(3 * weights + 2.03125 * LARGE.num_params, rel=1e-6)


def test_a_schedule_has_fewer_gradients_at_once_and_saves_as_many_weights() -> None:
    whole, scheduled = work(), work(gradient_share=0.25)
    assert terms.gradients(scheduled, LARGE).expected_bytes * 4 == terms.gradients(whole, LARGE).expected_bytes
    assert disk_bytes(scheduled, LARGE) == disk_bytes(whole, LARGE)


@pytest.mark.parametrize(
    ("logits", "compute_bytes", "each"),
    [("full", 2, 12), ("held", 2, 14), ("held", 4, 16), ("selective", 2, 16), ("selective", 4, 16)],
)
def test_whole_logits_take_bytes_by_who_computes_and_who_holds_them(logits: str, compute_bytes: int, each: int) -> None:
    run = replace(PLAIN, logits=logits, compute_bytes=compute_bytes)
    assert activations.logit_bytes(run, SMALL) == each * 8 * 1024 * 151_936


def test_liger_s_grpo_loss_takes_a_row_at_a_time_and_the_head_s_gradient_twice() -> None:
    few, many = replace(PLAIN, logits="liger", micro_batch=1), replace(PLAIN, logits="liger")
    head = 2 * 2 * 151_936 * 1536
    assert activations.logit_bytes(many, SMALL) == 12 * 1024 * 151_936 + head
    assert activations.logit_bytes(few, SMALL) == activations.logit_bytes(many, SMALL)


def test_autocast_keeps_a_narrow_copy_of_a_float32_head_next_to_whole_logits() -> None:
    run = replace(PLAIN, loss="sft", logits="full")
    upcast = replace(run, upcast_remainder=True, residual_bytes=2)
    more = activations.loss(upcast, LARGE).expected_bytes - activations.loss(run, LARGE).expected_bytes
    assert more == 2 * 152_064 * 3584
    chunked = replace(upcast, loss="grpo", logits="chunked")
    assert activations.loss(chunked, LARGE) == activations.loss(replace(chunked, upcast_remainder=False), LARGE)


def test_upcasting_at_load_leaves_the_16_bit_blocks_of_embeddings_and_head() -> None:
    run = replace(PLAIN, upcast_remainder=True)
    # 2 V H and the norms and biases of 28 layers, 2 bytes each: 2.03 GiB
    assert terms.upcast_blocks(run, LARGE).expected_bytes == 2 * LARGE.other_params == 2_180_656_128
    assert terms.upcast_blocks(PLAIN, LARGE).expected_bytes == 0
    phases = estimate(run, LARGE, CARDS["a6000"]).phases
    blocks = {phase: one for phase, parts in phases.items() for one in parts if one.name == "16-bit blocks"}
    assert blocks["load"].expected_bytes == blocks["backward"].upper_bytes == 2_180_656_128
    assert blocks["backward"].expected_bytes == 0  # later tensors may use them


def test_a_dynamic_upload_s_excess_is_of_its_files_whatever_is_upcast_later() -> None:
    dynamic = work(dynamic_checkpoint=True)
    assert terms.linear_weights(replace(dynamic, upcast_remainder=True), LARGE) == terms.linear_weights(dynamic, LARGE)


def test_a_float32_loss_leaves_no_block_of_16_bit_logits() -> None:
    narrow = replace(PLAIN, loss="sft", logits="full", compute_bytes=2)
    wide = replace(narrow, compute_bytes=4)
    for run, each in ((narrow, 14), (wide, 12)):
        layer = driver_overhead.STALE * run.tokens * activations.layer_of(run, LLAMA2).peak
        found = driver_overhead._unused_blocks(run, LLAMA2, [])
        assert found == pytest.approx(each * run.tokens * 32_000 + layer)


def test_vllm_s_standby_with_4_bit_weights_is_at_best_tight() -> None:
    run, card = work(rollout_engine="vllm", standby=True, rollout_rows=8), CARDS["h200"]
    found = estimate(run, LARGE, card)
    assert found.expected_bytes <= card.offered_bytes < found.upper_bytes
    assert found.verdict(card.offered_bytes) == "tight"
    assert any("unsloth 3542, 3603" in note for note in found.notes)
    for other in (replace(run, method="lora"), replace(run, standby=False)):
        assert estimate(other, LARGE, card).verdict(card.offered_bytes) == "fits"


def test_each_layer_of_unsloth_s_models_of_2024_had_a_rotary_table() -> None:
    # 28 layers, 32 768 positions, 128 numbers a head, cosines and sines, 2 bytes each
    old = work(rope_positions=32_768)
    assert terms.rope_tables(old, LARGE).expected_bytes == 28 * 32_768 * 128 * 2 * 2
    assert terms.rope_tables(replace(old, rope_positions=131_072), LLAMA2).expected_bytes == 32 * 4096 * 128 * 2 * 2
    assert terms.rope_tables(work(), LARGE).expected_bytes == 0


def test_unsloth_leaves_all_16_bit_blocks_of_weights_that_it_turns_into_float32() -> None:
    whole = work(method="full", weight_bytes=4, lora_rank=0, lora_targets=())
    assert terms.upcast_blocks(whole, SMALL).expected_bytes == 2 * SMALL.num_params
    assert terms.upcast_blocks(replace(whole, weight_bytes=None), SMALL).expected_bytes == 0


@pytest.mark.parametrize(("params", "share"), [(1.0, 0.001), (0.4, 1.0), (1.2, 1.0)])
def test_gradients_that_come_late_are_left_out_only_of_whole_layers(params: float, share: float) -> None:
    layer = LARGE.layer_params + LARGE.layer_other_params
    whole = {"lora_targets": (), "trained_layers": 5, "backward_layers": 5, "accumulated": False}
    assert terms.late_gradients(work(**whole, whole_params=5 * layer), LARGE) > 0
    some = work(**whole, whole_params=int(params * 5 * layer), gradient_share=share)
    assert terms.late_gradients(some, LARGE) == 0
    assert all(part.expected_bytes >= 0 for moment in backward_moments(some, LARGE) for part in moment)
