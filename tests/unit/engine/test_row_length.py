"""The longest row of all uses of a model: what counts to it, and what is refused."""

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.row_length import SequenceUse, asking, longest_row, reading_answers, uses_of
from lowmem_rl.errors import ConfigError

CONFIG = resolve(preset="tiny-cpu", settings=["grpo.max_prompt_tokens=24", "grpo.max_completion_tokens=16"]).config


def words(text) -> list[str]:
    return text.split() if isinstance(text, str) else text[0]["content"].split()


def longest(*uses: SequenceUse, positions: int = 1000) -> int:
    return longest_row(uses, words, words, positions)


def prompt(tokens: int):
    return ({"role": "user", "content": "word " * tokens},)


def test_the_samplers_trial_counts_if_rows_are_short() -> None:
    training, trial = uses_of(CONFIG)
    assert longest(training) == 40
    assert longest(training, trial) == 9 + 32


def test_an_evaluation_reads_its_longest_prompt_and_its_text_again() -> None:
    asked = asking("a task", [prompt(3), prompt(100), prompt(50)], 16)
    assert longest(asked) == 100 + 16 + 16


def test_a_reward_reads_its_longest_answer_after_a_full_completion() -> None:
    assert longest(reading_answers(CONFIG, ["one", "one two three", "one two"])) == 24 + 16 + 3 + 16


def test_room_for_text_that_is_encoded_again_ends_with_the_models_positions() -> None:
    assert longest(asking("a task", [prompt(100)], 16), positions=120) == 120


def test_a_prompt_that_no_model_takes_leaves_room_for_the_others() -> None:
    assert longest(asking("the evaluation on sums", [prompt(100), prompt(10)], 16), positions=115) == 115


def test_a_use_without_room_is_refused_by_its_name_and_the_hint_names_the_settings() -> None:
    with pytest.raises(ConfigError, match=r"rows of training have at least 40 tokens, but the model takes 39") as error:
        longest(*uses_of(CONFIG), positions=39)
    assert "grpo.max_completion_tokens" in error.value.hint
