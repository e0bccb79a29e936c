"""What `check_rewards` finds, and what it lets pass."""

import math

import pytest

from lowmem_rl.errors import RewardError
from lowmem_rl.example import Example
from lowmem_rl.rewards.adversarial_cases import (
    PREFILL,
    RewardCase,
    as_sampled,
    general_cases,
    hedges_of,
    near_misses,
    think_layout,
    variants_of,
)
from lowmem_rl.rewards.boxed import score_boxed
from lowmem_rl.rewards.reward import Reward, RewardSet
from lowmem_rl.rewards.reward_check import check_reward, check_rewards, refuse
from lowmem_rl.rewards.reward_registry import load_reward_set
from lowmem_rl.verify.equal import equal_answers
from lowmem_rl.verify.extract import strict_answer


def mine(score, kind="merit") -> Reward:
    return Reward("mine", score, -math.inf, math.inf, kind)


def faults(score, prefill: str = "", kind: str = "merit") -> list[str]:
    return [finding.fault for finding in check_reward(mine(score, kind), general_cases(), prefill)]


@pytest.mark.parametrize(
    ("score", "fault"),
    [
        (lambda completion, example: 0.5, "constant"),
        (lambda completion, example: None, "constant"),
        (lambda completion, example: len(completion), "outranked"),
        (lambda completion, example: -len(completion), "outranked"),
        (lambda completion, example: float("nan"), "fails"),
        (lambda completion, example: "1", "fails"),
        (lambda completion, example: completion.index("<think>"), "fails"),
        (lambda completion, example: example.answer in completion, "blind"),
        (lambda completion, example: float(example.answer in completion), "blind"),
        (lambda completion, example: 1 - score_boxed(completion, example), "outranked"),
        (lambda completion, example: score_boxed(completion, example) or float("|" in completion), "worthless-paid"),
        (lambda completion, example: score_boxed(completion, example) * ("frac" not in completion), "unpaid"),
    ],
)  # fmt: skip
def test_a_broken_reward_is_named_by_its_fault(score, fault: str) -> None:
    assert faults(score) == [fault]


def test_a_reward_that_computes_for_the_model_is_found() -> None:
    def evaluates(completion: str, example: Example) -> float:
        stated = strict_answer(completion) or ""
        first, plus, second = stated.partition(" + ")
        return score_boxed(f"\\boxed{{{int(first) + int(second)}}}" if plus else completion, example)

    findings = check_reward(mine(evaluates), general_cases())
    assert [finding.fault for finding in findings] == ["worthless-paid"]
    assert "the computation that was asked for, not done" in findings[0].what


@pytest.mark.parametrize(
    "score",
    [
        score_boxed,
        lambda completion, example: score_boxed(completion, example) / 10,
        lambda completion, example: score_boxed(completion, example) - 1,
        lambda completion, example: float("<think>" in completion and "</think>" in completion),
    ],
)
def test_a_sound_reward_of_the_users_passes(score) -> None:
    assert faults(score) == faults(score, PREFILL) == []


def test_what_the_template_makes_impossible_is_reported_as_unreachable() -> None:
    at_once = mine(lambda completion, example: float("</think>" in completion and "<think>\n" not in completion))
    cases = [RewardCase(c.example, c.perfect.replace("<think>\n", "<think>")) for c in general_cases()]
    assert check_reward(at_once, cases) == []
    (finding,) = check_reward(at_once, cases, PREFILL)
    assert finding.fault == "unreachable"
    assert repr(PREFILL) in finding.what


def test_a_length_penalty_is_a_fault_only_if_it_claims_to_be_a_merit() -> None:
    def penalty(completion: str, example: Example) -> float:
        return -len(completion) / 1000

    assert faults(penalty, kind="cost") == []
    assert faults(penalty) == ["outranked"]
    boxed = Reward("boxed", score_boxed)
    assert check_rewards(RewardSet((boxed, mine(penalty, "cost")), (1.0, 1.0)), general_cases()) == []
    (finding,) = check_rewards(RewardSet((boxed, mine(penalty, "cost")), (0.01, 1.0)), general_cases())
    assert (finding.reward, finding.fault) == ("all", "outranked")


@pytest.mark.parametrize(
    "weights", [{"boxed_answer": 1.0, "think_format": 0.2}, {"random": 1.0}, {"think_format": 1.0}]
)
@pytest.mark.parametrize("prefill", ["", "<think>", PREFILL])
def test_a_runs_rewards_and_its_controls_pass_under_every_template(weights: dict[str, float], prefill: str) -> None:
    assert check_rewards(load_reward_set(weights), general_cases(), prefill) == []


def test_a_small_reward_that_pays_nonsense_is_outweighed_or_named() -> None:
    boxed = Reward("boxed", score_boxed)
    empty_paid = mine(lambda completion, example: float(not completion.strip()))
    assert [f.fault for f in check_reward(empty_paid, general_cases())] == ["outranked"]
    assert check_rewards(RewardSet((boxed, empty_paid), (1.0, 0.5)), general_cases()) == []
    (finding,) = check_rewards(RewardSet((boxed, empty_paid), (1.0, 1.5)), general_cases())
    assert (finding.reward, finding.fault) == ("all", "outranked")


def test_each_completion_is_scored_once_and_one_more_on_another_thread() -> None:
    scored: list[str] = []

    def counted(completion: str, example: Example) -> float:
        scored.append(completion)
        return score_boxed(completion, example)

    cases = general_cases()
    asked = sum(1 + len(list(variants_of(case))) + len(hedges_of(case)) for case in cases)
    assert check_rewards(RewardSet((Reward("boxed", score_boxed), mine(counted)), (1.0, 1.0)), cases) == []
    assert len(scored) == asked + 1


def test_without_examples_nothing_is_found() -> None:
    assert check_rewards(load_reward_set({"boxed_answer": 1.0, "perplexity": 1.0}), []) == []


def test_a_weight_below_zero_makes_wrong_answers_worth_more() -> None:
    (finding, *_) = check_rewards(load_reward_set({"boxed_answer": -1.0}), general_cases())
    assert (finding.reward, finding.fault) == ("all", "outranked")


def test_a_format_that_the_prompt_does_not_ask_for_is_never_earned() -> None:
    cases = general_cases(lambda work, answer: f"<think>{work}</think>\\boxed{{{answer}}}")
    (finding,) = check_rewards(load_reward_set({"tag_count": 1.0, "boxed_answer": 1.0}), cases)
    assert (finding.reward, finding.fault) == ("tag_count", "never-full")


def test_findings_refuse_with_the_first_and_count_the_others() -> None:
    refuse([])
    broken = RewardSet((mine(lambda c, e: 1.0), mine(lambda c, e: math.nan)), (1.0, 1.0))
    with pytest.raises(RewardError, match=r"'mine' pays 1 for each of .*\(1 more: mine: fails\)") as refused:
        refuse(check_rewards(broken, general_cases()))
    assert "teaches nothing" in refused.value.hint


@pytest.mark.parametrize("answer", ["42", "-17", "1,234", r"\frac{3}{7}", "0.5", "[0,1)", "B", "x^2", "Evelyn", "2, 3"])
def test_a_near_miss_is_never_right(answer: str) -> None:
    misses = list(near_misses(answer))
    assert misses
    assert not any(equal_answers(miss, answer) for miss in misses)


def test_the_strict_reward_pays_variants_as_they_deserve() -> None:
    for case in general_cases():
        assert score_boxed(case.perfect, case.example) == 1
        assert all(score_boxed(v.completion, case.example) == 0 for v in variants_of(case) if v.worth != "right")
        assert [score_boxed(hedge, case.example) for hedge in hedges_of(case)] == [1, 0]


@pytest.mark.parametrize(
    ("completion", "prefill", "sampled"),
    [
        ("<think>a</think>b", "", "<think>a</think>b"),
        ("<think>a</think>b", PREFILL, "<think>\na</think>b"),
        ("<think>\na</think>b", PREFILL, "<think>\na</think>b"),
        ("b", PREFILL, "<think>\n</think>b"),
    ],
)
def test_a_completion_begins_as_the_template_opens_it(completion: str, prefill: str, sampled: str) -> None:
    assert as_sampled(completion, prefill) == sampled


def test_the_layout_of_the_cases_earns_every_format() -> None:
    names = ("boxed_answer", "any_answer", "think_format", "answer_tags", "tag_count")
    scored = load_reward_set(dict.fromkeys(names, 1.0)).score(think_layout("6 * 7", "42"), general_cases()[0].example)
    assert scored.reward == len(names)


def test_a_lenient_reward_is_not_accused_of_paying_a_list_if_the_answer_is_0() -> None:
    example = Example("zero", ({"role": "user", "content": "What is 5 - 5?"},), "0")
    case = RewardCase(example, think_layout("5 - 5 = 0", "0"))
    assert check_rewards(load_reward_set({"any_answer": 1.0}), (*general_cases(), case)) == []
