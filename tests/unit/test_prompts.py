"""Prompt conventions and think prefills."""

import pytest

from lowmem_rl.errors import UnknownName
from lowmem_rl.prompts import CONVENTIONS, conversation, in_users_turn, instructed, prefill_of


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_the_question_is_the_last_turn_untouched(convention: str) -> None:
    turns = conversation("What is 2 + 3?", convention)
    assert turns[-1] == {"role": "user", "content": "What is 2 + 3?"}
    assert [turn["content"] for turn in turns[:-1]] == [CONVENTIONS[convention]] * (convention != "bare")


def test_a_convention_asks_for_what_the_rewards_pay() -> None:
    assert "\\boxed{}" in CONVENTIONS["boxed"]
    assert all(part in CONVENTIONS["think_boxed"] for part in ("<think>", "</think>", "\\boxed{}"))


def test_an_unknown_convention_offers_near_names() -> None:
    with pytest.raises(UnknownName) as caught:
        conversation("Q", "think_box")
    assert "think_boxed" in caught.value.hint


@pytest.mark.parametrize(
    ("rendered", "prefill"),
    [
        ("<|im_start|>assistant\n<think>\n", "<think>\n"),
        ("<｜Assistant｜><think>", "<think>"),
        ("<|im_start|>assistant\n", ""),
        ("think within <think> </think> tags<|im_start|>assistant\n", ""),
        ("<think>\n\n</think>\n\n", ""),
        ("", ""),
    ],
)
def test_only_a_think_tag_left_open_at_the_end_is_a_prefill(rendered: str, prefill: str) -> None:
    assert prefill_of(rendered) == prefill


def test_a_rows_own_system_message_and_the_conventions_are_one_turn() -> None:
    row = [{"role": "system", "content": "You are a heron."}, {"role": "user", "content": "Q"}]
    system, question = instructed(row, "boxed")
    assert system == {"role": "system", "content": f"You are a heron.\n\n{CONVENTIONS['boxed']}"}
    assert question == row[1]
    assert instructed(row, "bare") == tuple(row)
    assert instructed(row[1:], "boxed") == conversation("Q", "boxed")


def test_system_messages_go_into_the_users_turn_that_follows() -> None:
    turns = [(role, text) for role, text in zip("sssuasus", "ABCDEFGH", strict=True)]
    names = {"s": "system", "u": "user", "a": "assistant"}
    placed = in_users_turn([{"role": names[role], "content": text} for role, text in turns])
    assert [(turn["role"], turn["content"]) for turn in placed] == [
        ("user", "A\n\nB\n\nC\n\nD"),
        ("assistant", "E"),
        ("user", "F\n\nG"),
        ("user", "H"),
    ]
