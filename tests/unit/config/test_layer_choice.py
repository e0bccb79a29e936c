"""Naming layers: every form means what its documentation says, and nothing else is taken."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.config.layer_choice import check_form, layers_of, text_of
from lowmem_rl.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("all", (0, 1, 2, 3, 4, 5, 6)),
        ("none", ()),
        ("first:2", (0, 1)),
        ("last:3", (4, 5, 6)),
        ("middle:3", (2, 3, 4)),
        ("middle:2", (2, 3)),
        ("every:3", (0, 3, 6)),
        ("every:7", (0,)),
        ("0,4-6", (0, 4, 5, 6)),
        ("6, 1,1", (1, 6)),
    ],
)
def test_each_form_names_its_layers_of_seven(text: str, layers: tuple[int, ...]) -> None:
    assert layers_of(check_form(text), 7) == layers


@pytest.mark.parametrize(
    "text", ["", "last", "last:0", "last:-1", "first:x", "5-3", "1,,2", "-1", "1.5", "half", "٣", "0-99999"]
)
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="names no layers; it takes all, none"):
        check_form(text)


@pytest.mark.parametrize("text", ["first:8", "last:8", "middle:9", "every:8", "7", "0,3-7"])
def test_a_layer_beyond_the_depth_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="the model has 7 layers, 0 to 6"):
        layers_of(text, 7)


@given(st.sets(st.integers(0, 40)), st.integers(41, 60))
def test_a_list_written_as_text_is_read_as_the_same_list(layers: set[int], depth: int) -> None:
    assert layers_of(text_of(tuple(sorted(layers))), depth) == tuple(sorted(layers))


@given(st.integers(1, 60), st.integers(1, 60))
def test_first_and_last_layers_share_none_if_together_they_are_all(first: int, last: int) -> None:
    found = [*layers_of(f"first:{first}", first + last), *layers_of(f"last:{last}", first + last)]
    assert found == list(range(first + last))
