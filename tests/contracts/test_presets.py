"""What every preset promises."""

import re

import pytest

from lowmem_rl.config.compose import flatten, resolve
from lowmem_rl.config.presets import Preset, load_preset, load_presets
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.frontier import frontier
from lowmem_rl.planning.plan import Plan, plan
from lowmem_rl.prompts import CONVENTIONS
from lowmem_rl.rewards.reward_registry import load_reward_set
from lowmem_rl.signal.pass_rate import given
from lowmem_rl.tasks.task_registry import load_task_class

every_preset = pytest.mark.parametrize("preset", load_presets(), ids=lambda preset: preset.name)


@every_preset
def test_it_is_a_run(preset: Preset):
    composed = resolve(preset=preset.name)
    assert (composed.preset, composed.card) == (preset.name, preset.card)


@every_preset
def test_it_never_pays_for_memory_with_the_group(preset: Preset):
    assert preset.group_size >= 8 or preset.paper


@every_preset
def test_it_states_what_the_list_shows(preset: Preset):
    config = resolve(preset=preset.name).config
    assert (preset.model, preset.group_size) == (config.model.name, config.grpo.group_size)
    stated = (preset.max_prompt_tokens, preset.max_completion_tokens)
    assert stated == (config.grpo.max_prompt_tokens, config.grpo.max_completion_tokens)


@every_preset
def test_it_names_a_card_a_kind_of_weights_and_a_checkpoint(preset: Preset):
    assert preset.card == "cpu" or preset.card in CARDS
    assert preset.base in ("base", "instruct", "sft")
    assert preset.checkpoint
    assert 0 < len(preset.summary) <= 48  # a row of `presets list` fits 120 columns


@every_preset
def test_its_task_and_rewards_exist(preset: Preset):
    config = resolve(preset=preset.name).config
    load_task_class(config.task.name)
    assert load_reward_set(config.rewards)
    assert config.task.prompt in CONVENTIONS


@every_preset
def test_it_asks_for_what_it_pays(preset: Preset):
    config = resolve(preset=preset.name).config
    pays_thinking = config.rewards["think_format"] > 0
    # The embedded model learned its format in training and reads no instructions.
    assert pays_thinking == (config.task.prompt == "think_boxed") or config.model.name == "tiny"


@every_preset
def test_it_computes_in_numbers_its_card_has(preset: Preset):
    dtype = resolve(preset=preset.name).config.model.dtype
    assert preset.card == "cpu" or CARDS[preset.card].has_bf16 or dtype == "float16"


@every_preset
def test_it_names_its_paper_and_what_it_does_not_reproduce(preset: Preset):
    if preset.paper:
        words = " ".join(preset.text.partition("[preset]")[0].replace("#", " ").split())
        assert "Not run here." in words or preset.measured
        assert re.search(r"Not (as published|found|stated)", words)
        assert preset.paper.removeprefix("arXiv ") in words or "arXiv" not in preset.paper


@every_preset
def test_it_says_why(preset: Preset):
    assert preset.text.startswith("# ")
    assert preset.card == "cpu" or "Memory, an estimate by hand" in preset.text or preset.measured


_R1_DISTILL = "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"
PUBLISHED = {
    "tina-1.5b": {
        "model.name": _R1_DISTILL,
        "adapter.rank": 32,
        "adapter.alpha": 128,
        "adapter.dropout": 0.05,
        "grpo.group_size": 6,
        "grpo.max_prompt_tokens": 512,
        "grpo.max_completion_tokens": 3584,
        "grpo.steps": 1500,
        "rollout.temperature": 0.7,
        "optimizer.learning_rate": 1e-6,
        "optimizer.warmup_steps": 150,
        "rewards.boxed_answer": 2.0,
        "rewards.think_format": 1.0,
    },
    "micro-a40": {
        "model.name": _R1_DISTILL,
        "adapter.rank": 256,
        "grpo.group_size": 8,
        "grpo.max_completion_tokens": 3584,
        "grpo.steps": 300,
    },
    "sanity-1.5b": {
        "model.name": "Qwen/Qwen2.5-Math-1.5B",
        "adapter.rank": 1,
        "adapter.alpha": 2,
        "grpo.group_size": 8,
        "grpo.prompts_per_step": 16,
        "grpo.max_completion_tokens": 3000,
        "grpo.steps": 500,
        "optimizer.learning_rate": 4e-5,
    },
    "tinylora-7b": {
        "model.name": "Qwen/Qwen2.5-7B-Instruct",
        "adapter.peft_type": "tinylora",
        "adapter.u": 13,
        "adapter.weight_tying": 1.0,
        "grpo.group_size": 4,
        "grpo.max_completion_tokens": 4096,
        "grpo.beta": 0.0,
    },
    "onelayer-1.7b": {
        "model.name": "Qwen/Qwen3-1.7B-Base",
        "trainable.method": "full",
        "trainable.layers": "14",
        "optimizer.learning_rate": 5e-6,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_has_what_its_paper_states(name: str):
    found = flatten(resolve(preset=name).config.model_dump())
    assert {key: found[key] for key in PUBLISHED[name]} == PUBLISHED[name]
    assert load_preset(name).paper


def planned(preset: Preset, card: str | None = None) -> Plan:
    config = resolve(preset=preset.name).config
    return plan(config, load_shape(config.model.name), CARDS[card or preset.card])


@pytest.mark.parametrize("preset", [p for p in load_presets() if p.card in CARDS], ids=lambda preset: preset.name)
def test_it_fits_its_card_and_carries_signal(preset: Preset):
    found = planned(preset)
    assert found.memory_verdict in ("fits", "tight")
    assert found.signal.verdict in ("ok", "note")


@pytest.mark.parametrize("card", ["5060", "4060", "2060-12", "3060", "4070", "5070"])
def test_a_small_card_holds_every_group_that_it_holds_one_of(card: str):
    size = "8gb" if CARDS[card].offered_bytes < 8 * 2**30 else "12gb"
    for preset in (p for p in load_presets() if p.name.endswith(size)):
        found = planned(preset, card)
        points = frontier(found.config, found.target, given(0.5))
        assert {point.group_size for point in points} >= {4, 8, 64}
        assert all(found.target.budget_bytes >= point.upper_bytes for point in points)
