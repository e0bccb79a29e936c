"""The step-time model against rooflines worked out by hand: Qwen2.5-7B in NF4 with rank 16 on an A6000,
8 prompts of 200 tokens with 8 completions of 512, at 768 GB/s and 154.8 TFLOP/s without any loss."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.run_config import AdapterConfig, RunConfig
from lowmem_rl.memory.adapter_tensors import learning_tensors, numbers_in
from lowmem_rl.memory.terms import kv_bytes_per_token
from lowmem_rl.memory.trained_set import TrainedSet
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.speeds import SPEEDS
from lowmem_rl.planning.step_cost import (
    MatmulWeights,
    decode,
    log_probs,
    prefill,
    step_work,
    update,
)
from lowmem_rl.planning.step_time import AT_BEST, Efficiency, SecondsRange, seconds, step_time, time_at

QWEN_7B, QWEN_1B = load_shape("Qwen/Qwen2.5-7B-Instruct"), load_shape("Qwen/Qwen2.5-1.5B-Instruct")
A6000 = SPEEDS["a6000"]
PEAK = Efficiency(bandwidth=1.0, flops=1.0, layer_s=0.0)


def adapter_of(shape) -> int:
    return numbers_in(learning_tensors(RunConfig(), shape))


def at_peak(work) -> float:
    return seconds(work, A6000, PEAK)


def test_every_card_has_a_speed_with_its_source():
    assert SPEEDS.keys() == CARDS.keys()
    assert all(speed.source for speed in SPEEDS.values())


def test_the_counts():
    # 28 x (2 x 3584 x 3584 + 2 x 3584 x 512 + 3 x 3584 x 18944)
    assert QWEN_7B.linear_params == 6_525_288_448
    assert QWEN_1B.linear_params == 1_310_195_712
    assert kv_bytes_per_token(QWEN_7B, 2) == 57_344
    assert (adapter_of(QWEN_7B), adapter_of(QWEN_1B)) == (40_370_176, 18_464_768)
    # 28 x 16 x (3584 + 3584 + 3584 + 512)
    two = RunConfig(adapter=AdapterConfig(targets=("q_proj", "v_proj")))
    assert numbers_in(learning_tensors(two, QWEN_7B)) == 5_046_272


def test_bytes_to_use_every_weight_once():
    # 6.525e9 x 4.127 / 8 = 3.37 GB packed, x 2 = 13.05 GB plain
    fused, copy, expand = (MatmulWeights(QWEN_7B, path) for path in ("fused", "copy", "expand"))
    assert fused.linear_bytes == pytest.approx(3.37e9, rel=0.002)
    assert copy.linear_bytes == pytest.approx(13.05e9, rel=0.001)
    assert expand.linear_bytes + expand.expanded_bytes == pytest.approx(29.47e9, rel=0.001)
    assert MatmulWeights(QWEN_7B, "copy", 4).linear_bytes == 2 * copy.linear_bytes


@pytest.mark.parametrize(
    ("path", "tokens_per_s"),
    [
        ("fused", {1: 168, 8: 1294, 16: 2479, 32: 4573, 64: 7913, 128: 10885}),
        ("expand", {1: 25, 8: 199, 16: 396, 32: 781, 64: 1521, 128: 2892}),
        ("copy", {1: 54, 8: 428, 16: 844, 32: 1641, 64: 3108, 128: 5621}),
    ],
)
def test_decoding_by_the_way_weights_are_read(path, tokens_per_s):
    for rows, expected in tokens_per_s.items():
        work = decode(MatmulWeights(QWEN_7B, path), adapter_of(QWEN_7B), rows, prompt_tokens=200, steps=512)
        assert rows * work.times / at_peak(work) == pytest.approx(expected, rel=0.02), rows


def lora_everywhere(shape) -> TrainedSet:
    return TrainedSet(shape.num_layers, shape.num_layers, 0)


def test_the_parts_of_a_step():
    weights, trained = MatmulWeights(QWEN_7B, "copy"), lora_everywhere(QWEN_7B)
    rows, shared, repeated, sampled = 64, 8 * 200 + 64 * 512, 64 * 712, 64 * 512

    def update_s(tokens: int, checkpointing) -> float:
        return at_peak(update(weights, rows, tokens, sampled, checkpointing=checkpointing, trained=trained))

    assert at_peak(prefill(weights, 8, 200)) == pytest.approx(0.13, abs=0.01)
    assert at_peak(prefill(weights, 64, 200)) == pytest.approx(1.08, abs=0.02)
    # In addition to each figure some 0.15 s of attention.
    assert update_s(shared, "none") == pytest.approx(6.3 + 0.15, abs=0.15)
    assert update_s(shared, "plain") == pytest.approx(9.2 + 0.15, abs=0.15)
    assert update_s(repeated, "plain") == pytest.approx(12.0 + 0.15, abs=0.15)
    assert at_peak(log_probs("old", weights, rows, shared, 0)) == pytest.approx(2.9, abs=0.1)
    assert at_peak(log_probs("old", weights, rows, repeated, 0)) == pytest.approx(3.8, abs=0.1)


@pytest.mark.parametrize(
    ("shape", "card", "best", "stock"),
    [
        (QWEN_7B, "a6000", 10.7, 34.8),
        (QWEN_7B, "4090", 9.3, 28.8),
        (QWEN_7B, "a5000", 13.3, 40.0),
        (QWEN_7B, "3090", 20.8, 46.5),
        (QWEN_7B, "a4000", 20.3, 63.7),
        (QWEN_7B, "t4", 25.5, 83.2),
        (QWEN_1B, "a6000", 2.8, 7.6),
        (QWEN_1B, "4090", 2.4, 6.3),
        (QWEN_1B, "3090", 4.6, 10.1),
        (QWEN_1B, "a4000", 5.2, 14.0),
        (QWEN_1B, "t4", 6.7, 18.3),
    ],
    ids=str,
)
def test_whole_steps_by_card(shape, card, best, stock):
    speed, sampled = SPEEDS[card], 64 * 512
    fused, copy, expand = (MatmulWeights(shape, path) for path in ("fused", "copy", "expand"))

    def total(*works) -> float:
        return sum(seconds(work, speed, PEAK) for work in works)

    ideal = total(
        prefill(fused, 8, 200),
        decode(fused, adapter_of(shape), 64, 200, 512),
        update(copy, 64, 8 * 200 + sampled, sampled, checkpointing="none", trained=lora_everywhere(shape)),
    )
    floor = total(
        prefill(copy, 64, 200),
        decode(expand, adapter_of(shape), 64, 200, 512),
        update(copy, 64, 64 * 712, sampled, checkpointing="plain", trained=lora_everywhere(shape)),
    )
    assert ideal == pytest.approx(best, rel=0.03)
    assert floor == pytest.approx(stock, rel=0.03)


def test_without_a_known_card_there_are_no_seconds():
    config = resolve(preset="tiny-cpu").config
    assert step_time(config, load_shape("tiny"), None) is None


def run_of(**sections: dict) -> RunConfig:
    """A run whose "auto" settings are chosen."""
    sections["memory"] = {"checkpointing": "unsloth"} | sections.get("memory", {})
    sections["rollout"] = {"weights": "quantized"} | sections.get("rollout", {})
    return RunConfig.model_validate(sections)


def step_s(config: RunConfig) -> float:
    time = time_at(config, QWEN_1B, A6000)
    assert 0 < time.step.low < time.step.high < time.run.low
    assert sum(part.high for part in time.parts.values()) == pytest.approx(time.step.high)
    return time.step.high


@given(st.integers(2, 32), st.integers(1, 16), st.sampled_from([16, 512, 2048]))
def test_more_work_never_takes_less_time(group_size, prompts, tokens):
    def config(size: int, count: int, length: int) -> RunConfig:
        grpo = {"group_size": size, "prompts_per_step": count, "max_completion_tokens": length}
        return run_of(grpo=grpo, memory={"micro_batch": 1, "rollout_rows": 8})

    base = step_s(config(group_size, prompts, tokens))
    for more in [(group_size + 1, prompts, tokens), (group_size, prompts + 1, tokens), (group_size, prompts, 4096)]:
        assert step_s(config(*more)) >= base


def test_saving_memory_takes_time():
    base = step_s(run_of())
    assert step_s(run_of(memory={"micro_batch": 1})) > base
    assert step_s(run_of(memory={"rollout_rows": 8})) > base
    assert step_s(run_of(memory={"checkpointing": "none"})) < step_s(run_of(memory={"checkpointing": "plain"})) < base


def part(config: RunConfig, name: str, **options) -> SecondsRange:
    return time_at(config, QWEN_1B, A6000, **options).parts[name]


def test_expanded_weights_are_read_instead_of_expanded_at_every_token():
    quantized, merged = run_of(), run_of(rollout={"weights": "merged"})
    assert part(merged, "decode").low < 0.6 * part(quantized, "decode").low
    # 1.31e9 x (4.127 / 8 + 2) bytes expanded, 4 more a weight joined, at 576 GB/s: once a rollout
    assert part(merged, "merge").low == pytest.approx(1.310e9 * 6.516 / 0.75 / 768e9, rel=0.01)


def test_a_group_reads_its_prompt_once_with_our_engine():
    # 8 prompts of 512 tokens instead of 64 rows: the lower end has half of each
    ours, theirs = run_of(), run_of(rollout={"engine": "generate"})
    assert part(ours, "prefill").high < part(theirs, "prefill").high / 4


def test_rows_that_leave_shorten_our_decoding_and_not_that_of_generate():
    for engine, shortened in (("lowmem", True), ("generate", False)):
        waves = run_of(rollout={"engine": engine}, memory={"rollout_rows": 8})
        at_best = sum(seconds(work, A6000, AT_BEST) for work in step_work(waves, QWEN_1B) if work.name == "decode")
        assert (part(waves, "decode").low < 0.7 * at_best) == shortened


def test_dead_groups_cost_no_update_unless_a_penalty_needs_them():
    assert part(run_of(), "update", updated_share=0.5).high == pytest.approx(part(run_of(), "update").high / 2)
    penalised = run_of(grpo={"beta": 0.04})
    assert part(penalised, "update", updated_share=0.5) == part(penalised, "update")


def test_a_rollout_that_serves_two_steps_is_paid_by_both():
    both = time_at(run_of(grpo={"passes_per_rollout": 2}), QWEN_1B, A6000)
    once = time_at(run_of(), QWEN_1B, A6000)
    assert both.parts["decode"].low == pytest.approx(once.parts["decode"].low / 2)
    assert "old log-probs" in both.parts
    assert "old log-probs" not in once.parts


def test_a_penalty_costs_a_pass_of_the_reference():
    assert step_s(run_of(grpo={"beta": 0.04})) > step_s(run_of())


def test_the_evaluations_are_part_of_the_run():
    time = time_at(run_of(grpo={"steps": 1}), QWEN_1B, A6000)
    # 500 examples in batches of 32: 16 times a wave's decoding, at both ends.
    assert time.run.low > time.step.low * 2


def test_the_rounds_of_a_selection_are_added_to_the_run():
    settings = ("trainable.select=grad_norm", "trainable.select_top=28", "trainable.select_rounds=3")
    resolved = ("memory.micro_batch=8", "memory.rollout_rows=8", "memory.checkpointing=plain", "rollout.weights=merged")
    named, selected, by_weights = (
        time_at(resolve(preset="qwen1.5b-a6000", settings=[*resolved, *some]).config, QWEN_1B, A6000)
        for some in ((), settings, ("trainable.select=snr", "trainable.select_top=28"))
    )
    assert selected.step == by_weights.step == named.step  # all 28 layers learn
    assert by_weights.run == named.run
    for end in ("low", "high"):
        rounds = getattr(selected.run, end) - getattr(named.run, end)
        assert rounds == pytest.approx(getattr(selected.selection, end))
        assert rounds == pytest.approx(3 * getattr(named.step, end), rel=0.02)
