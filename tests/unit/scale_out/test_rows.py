from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.chat_templates.model_template import template_of_model
from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example
from lowmem_rl.scale_out.rows import example_of, read_rows, row_of, write_rows

TEMPLATE = template_of_model("tiny")
TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
HOSTILE = "\"'; rm -rf ~ #\n$(id) `id` ${HOME} \\ \x00 {{ 7 * 7 }}"


def rows_of(*examples: Example) -> list[dict]:
    return [row_of(example, "train", number, "arithmetic", TEMPLATE) for number, example in enumerate(examples)]


def example(question: str = "2 * 3?", answer: str = "6", **fields) -> Example:
    return Example("a/0", ({"role": "user", "content": question},), answer, **fields)


@pytest.mark.slow
@given(question=TEXT, answer=TEXT, level=st.none() | st.floats(0, 9), extra=st.dictionaries(TEXT, TEXT | st.integers()))
def test_a_row_is_its_example_again(tmp_path_factory, question, answer, level, extra):
    path = tmp_path_factory.mktemp("rows") / "train.parquet"
    original = example(question, answer, level=level, extra=extra)
    write_rows(path, rows_of(original))
    (row,) = read_rows(path)
    assert example_of(row["reward_model"]["ground_truth"], row["extra_info"]) == original


def test_hostile_texts_and_missing_levels_survive(tmp_path: Path):
    written = [example(HOSTILE, HOSTILE, extra={"text": HOSTILE}), example(level=3)]
    write_rows(tmp_path / "x.parquet", rows_of(*written))
    found = read_rows(tmp_path / "x.parquet")
    assert [example_of(row["reward_model"]["ground_truth"], row["extra_info"]) for row in found] == written
    assert found[0]["prompt"] == [{"role": "user", "content": HOSTILE}]
    assert found[0].keys() == {"data_source", "prompt", "ability", "reward_model", "extra_info"}


def test_a_missing_level_that_pandas_made_nan_is_none():
    info = rows_of(example())[0]["extra_info"] | {"level": float("nan")}
    assert example_of("6", info).level is None


@pytest.mark.parametrize("extra", [{"f": print}, {"s": {1, 2}}, {"x": float("nan")}])
def test_an_example_that_no_row_can_hold_is_refused(extra):
    with pytest.raises(TaskError, match="'a/0' cannot be written as a row") as refused:
        rows_of(example(extra=extra))
    assert refused.value.hint


def test_half_a_character_is_refused(tmp_path: Path):
    with pytest.raises(TaskError, match="parquet"):
        write_rows(tmp_path / "x.parquet", rows_of(example("\ud800")))
