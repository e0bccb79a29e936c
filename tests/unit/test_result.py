import json

import pytest

from lowmem_rl.evaluation.result import Item, compare, summarise


def item(*, correct: bool, strict: bool = False, score: float | None = 1.0, truncated: bool = False) -> Item:
    return Item("x", "question", "answer", "text", 10, truncated, correct, strict, {"format": score})


def summary(items):
    return summarise(items, task="t", split="test", step=0, seconds=1.0)


def test_lenient_and_strict_are_counted_apart() -> None:
    result = summary([item(correct=True, strict=True), item(correct=True), item(correct=False), item(correct=False)])
    assert (result.pass_at_1, result.strict_pass_at_1) == (0.5, 0.25)
    assert result.pass_at_1_interval.low < 0.5 < result.pass_at_1_interval.high


def test_a_skipped_score_is_left_out_of_its_mean() -> None:
    assert summary([item(correct=True, score=None), item(correct=True, score=0.5)]).scores == {"format": 0.5}


def test_a_score_that_was_always_skipped_has_no_mean() -> None:
    assert summary([item(correct=True, score=None)]).scores == {}


def test_the_result_is_plain_json_with_the_keys_relied_on() -> None:
    plain = json.loads(json.dumps(summary([item(correct=True)]).to_json()))
    assert plain.keys() >= {"pass_at_1", "strict_pass_at_1", "num_examples", "samples", "pass_at_k", "maj_at_k"}


@pytest.mark.parametrize(("before", "after", "apart"), [(10, 90, True), (45, 55, False), (90, 10, True)])
def test_a_comparison_says_whether_intervals_lie_apart(before, after, apart) -> None:
    results = [summary([item(correct=i < right) for i in range(100)]) for right in (before, after)]
    told = compare(*results)
    assert told["intervals_apart"] is apart
    assert told["gain"] == pytest.approx((after - before) / 100)
