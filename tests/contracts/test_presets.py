"""What every preset promises."""

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.presets import Preset, load_presets
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.prompts import CONVENTIONS
from lowmem_rl.rewards.reward_registry import load_reward_set
from lowmem_rl.tasks.task_registry import load_task_class

every_preset = pytest.mark.parametrize("preset", load_presets(), ids=lambda preset: preset.name)


@every_preset
def test_it_is_a_run(preset: Preset):
    composed = resolve(preset=preset.name)
    assert (composed.preset, composed.card) == (preset.name, preset.card)


@every_preset
def test_it_never_pays_for_memory_with_the_group(preset: Preset):
    assert preset.group_size >= 8


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
def test_it_says_why(preset: Preset):
    assert preset.text.startswith("# ")
    assert preset.card == "cpu" or "Memory, an estimate by hand" in preset.text or preset.measured
