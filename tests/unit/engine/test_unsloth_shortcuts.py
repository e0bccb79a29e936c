"""What Unsloth notes of its shortcuts on a model goes through JSON and back, and is said in words."""

import json
from types import SimpleNamespace

from lowmem_rl.engine.unsloth_shortcuts import given_up, restore_shortcut_notes, shortcut_notes, unshared_groups

TWO, ONE = (2, (8, 8)), (1, (8,))


def model() -> SimpleNamespace:
    return SimpleNamespace(
        _unsloth_prefix_grouper_grad_verified={ONE: (300, 40), TWO: (600, 41)},
        _unsloth_prefix_grouper_grad_unsafe={TWO},
        _unsloth_prefix_grouper_nograd_disabled=True,
        _unsloth_seq_packing_grad_ok=True,
        _unsloth_seq_packing_grad_unsafe_T=900,
        _unsloth_seq_packing_nograd_ok=False,
        _unsloth_seq_packing_nograd_verified_T=512,
    )


def test_notes_come_back_as_they_were() -> None:
    again = SimpleNamespace()
    restore_shortcut_notes(again, json.loads(json.dumps(shortcut_notes(model()))))
    assert vars(again) == vars(model())


def test_a_model_without_notes_has_given_nothing_up() -> None:
    assert shortcut_notes(SimpleNamespace()) == {}
    assert given_up(SimpleNamespace()) == frozenset()


def test_what_is_given_up_is_said_in_words() -> None:
    assert given_up(model()) == {
        "prompts are no longer shared in the update, 2 groups together",
        "prompts are no longer shared in log-probs",
        "rows are padded in the update from 900 tokens on",
        "rows are padded in log-probs",
    }
    assert unshared_groups(model()) == {2}
