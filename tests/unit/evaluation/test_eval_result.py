import json
from dataclasses import replace

import pytest

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.evaluation.eval_items import Item
from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.evaluation.eval_set import EvalSet
from lowmem_rl.evaluation.grader import grader_of, vote_of
from lowmem_rl.evaluation.summary import compare, ks, summarise
from lowmem_rl.tasks.arithmetic import ARITHMETIC

ASKED = EvalSet(TaskConfig(), (), grader_of(ARITHMETIC), max_tokens=8, batch=4)


def item(
    *,
    correct: bool,
    strict: bool = False,
    score: float | None = 1.0,
    key: str = "x",
    level: float | None = None,
    vote: str | None = None,
) -> Item:
    return Item(key, "question", "answer", "text", 10, False, correct, strict, {"format": score}, level, 0, vote, vote)


def summary(items: list[Item], sampled: list[Item] | None = None) -> EvalResult:
    numbered = [replace(one, example_id=str(number)) for number, one in enumerate(items)]
    samples = len(sampled) // len(items) if sampled else 0
    return summarise(replace(ASKED, samples=samples), numbered, sampled or [], step=0, seconds=1.0)


def test_late_verdicts_of_all_completions_are_counted() -> None:
    late = [replace(item(correct=False), late_verdicts=2), item(correct=True)]
    result = summary(late, [replace(one, sample=1, example_id=str(number)) for number, one in enumerate(late)])
    assert result.late_verdicts == EvalResult.from_json(json.loads(json.dumps(result.to_json()))).late_verdicts == 4
    assert EvalResult.from_json(result.to_json() | {"late_verdicts": 0}).late_verdicts == 0


def test_lenient_and_strict_are_counted_separately() -> None:
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


@pytest.mark.parametrize(("before", "after", "disjoint"), [(10, 90, True), (45, 55, False), (90, 10, True)])
def test_a_comparison_shows_whether_intervals_are_disjoint(before, after, disjoint) -> None:
    results = [summary([item(correct=i < right) for i in range(100)]) for right in (before, after)]
    comparison = compare(*results)
    assert comparison["paired"] is None
    assert comparison["intervals_apart"] is disjoint
    assert comparison["gain"] == pytest.approx((after - before) / 100)


def test_the_comparison_pairs_the_items_that_both_have() -> None:
    first = [item(correct=number < 10, key=str(number)) for number in range(40)]
    second = [item(correct=number < 30, strict=True, key=str(number)) for number in range(1, 41)]
    comparison = compare(summary(first), summary(second), first, second)
    paired = comparison["paired"]
    assert (paired["won"], paired["lost"], paired["num_items"]) == (20, 0, 39)
    assert paired["distinguishable"] is True
    assert compare(summary(first), summary(first), first, first)["paired"]["distinguishable"] is False
    assert comparison["strict_paired"]["gain"] == 1.0
    json.dumps(comparison)


def test_samples_become_pass_at_k_and_majorities_of_each_example() -> None:
    votes = ["7", "7", "8", None, "8", "8", "9", "7"]
    sampled = [item(correct=vote == "7", key=str(number // 4), vote=vote) for number, vote in enumerate(votes)]
    result = summary([item(correct=True), item(correct=False)], sampled)
    # By hand: of four samples two, and one, are right.
    assert result.pass_at_k == pytest.approx({"1": 3 / 8, "2": (5 / 6 + 3 / 6) / 2, "4": 1.0})
    assert result.maj_at_k == pytest.approx({"1": 3 / 8, "2": ((1 + 0) / 2 + (0 + 0.5) / 2) / 2, "4": 0.5})
    assert result.pass_at_1 == 0.5
    assert result.strict_pass_at_k["4"] == 0.0
    for rates in (result.pass_at_k, result.maj_at_k):
        assert rates.keys() == result.pass_at_k_intervals.keys()
    assert result.samples == 4


def test_equal_answers_of_which_one_is_right_vote_separately() -> None:
    sampled = [item(correct=number == 0, vote="7") for number in range(3)]
    assert summary([item(correct=True)], sampled).maj_at_k["3"] == 0.0


def test_levels_are_separate_and_those_without_leave_none() -> None:
    result = summary([item(correct=True, level=2), item(correct=False, level=10), item(correct=True, level=10)])
    assert {level: (found.num_examples, found.pass_at_1) for level, found in result.by_level.items()} == {
        "2": (1, 1.0),
        "10": (2, 0.5),
    }
    assert summary([item(correct=True)]).by_level == {}


def test_a_result_comes_back_from_its_json() -> None:
    sampled = [item(correct=True, vote="7"), item(correct=False, vote="8")]
    result = summary([item(correct=True, level=3)], sampled)
    assert EvalResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_few_k_are_reported_and_the_number_of_samples_is_one_of_them() -> None:
    assert [ks(samples) for samples in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("1/2", "0.5", True),
        ("\\frac{1}{2}", "0.50", True),
        ("1,000", "1000", True),
        ("5 apples", "5 pears", False),
        ("5 cm", "5 m", False),
        ("$5", "5", False),
        ("Yes", "yes", True),
        ("7", "8", False),
    ],
)
def test_equal_answers_share_a_vote(one, other, same) -> None:
    assert (vote_of(one) == vote_of(other)) is same


def test_no_answer_has_no_vote() -> None:
    assert vote_of(None) is None
    assert vote_of(" ") is None
