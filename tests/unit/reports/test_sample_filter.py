import pytest

from lowmem_rl.errors import ConfigError
from lowmem_rl.reports.run_record import read_record
from lowmem_rl.reports.sample_filter import (
    Condition,
    SampleFilter,
    best_and_worst_of_prompts,
    filter_samples,
    read_condition,
    read_steps,
)
from tests.run_maker import make_run


@pytest.fixture
def record(tmp_path):
    return read_record(make_run(tmp_path / "run"))


def test_samples_are_filtered_by_score_step_and_truncation(record) -> None:
    assert len(filter_samples(record, SampleFilter())) == 8
    assert [
        row["reward"] for row in filter_samples(record, SampleFilter((read_condition("boxed_answer >= 0.75"),)))
    ] == [
        0.75,
        0.875,
    ]
    assert [row["reward"] for row in filter_samples(record, SampleFilter((read_condition("reward<.1"),)))] == [0.0]
    assert [row["reward"] for row in filter_samples(record, SampleFilter(truncated=True))] == [0.375]
    assert filter_samples(record, SampleFilter(steps=(1, 19))) == []


def test_a_skipped_score_meets_no_condition(record) -> None:
    assert filter_samples(record, SampleFilter((Condition("think_format", "<=", 9.0),))) == []


def test_a_score_that_no_sample_has_is_a_mistake(record) -> None:
    with pytest.raises(ConfigError, match="no sample has such a score"):
        filter_samples(record, SampleFilter((Condition("nonsense", "<", 1.0),)))


def test_the_best_of_a_prompt_is_paired_with_its_worst(record) -> None:
    pairs = best_and_worst_of_prompts(record.samples)
    assert [(best["reward"], worst["reward"]) for best, worst in pairs] == [(0.5 + n / 8, n / 8) for n in range(4)]
    assert best_and_worst_of_prompts(record.samples[:4]) == []


@pytest.mark.parametrize("text", ["reward", "reward<", "<1", "reward<<1", "reward<1e", "reward<x"])
def test_a_condition_that_cannot_be_read_is_a_mistake(text) -> None:
    with pytest.raises(ConfigError, match="is not NAME"):
        read_condition(text)


def test_steps_are_one_or_a_range() -> None:
    assert read_steps("40") == (40, 40)
    assert read_steps("10-40") == (10, 40)
    with pytest.raises(ConfigError):
        read_steps("ten")
