"""What a completion is paid."""

import math
import sys
from collections.abc import Callable
from decimal import Decimal
from enum import IntEnum
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.errors import RewardError, UnknownName
from lowmem_rl.example import Example
from lowmem_rl.prompts import prefill_of
from lowmem_rl.rewards.adversarial_cases import cases_for
from lowmem_rl.rewards.model_reward import ModelAccess, ModelReward
from lowmem_rl.rewards.reward import Reward, score_with
from lowmem_rl.rewards.reward_registry import REWARDS, load_reward, load_reward_set

EXAMPLE = Example(id="e", prompt=({"role": "user", "content": "What is 2 + 3?"},), answer="5")


def score(name: str, completion: str) -> float | None:
    return score_with(load_reward(name), completion, EXAMPLE)


@pytest.mark.parametrize("name", REWARDS)
@given(completion=st.text() | st.text(st.sampled_from("{}\\boxed<think></think>5\0\ud800")))
def test_every_reward_stays_in_its_range_on_any_text(name: str, completion: str) -> None:
    reward, example = load_reward(name), cases_for(name)[0].example
    if isinstance(reward, ModelReward):
        reward = reward.bind(ModelAccess(len, 20, lambda rows: [float(len(row.lead) % 9) for row in rows]))
    given_score = score_with(reward, completion, example)
    assert given_score is None or reward.low <= given_score <= reward.high


@pytest.mark.parametrize(
    ("completion", "strict", "lenient", "format_score"),
    [
        ("<think>2 + 3</think>\\boxed{5}", 1, 1, 1),
        ("<think></think>\\boxed{5}", 1, 1, 1),
        ("\\boxed{5}", 1, 1, 0),
        ("<think>2 + 3</think>The answer is 5.", 0, 1, 1),
        ("<think>\\boxed{5}</think>", 0, 0, 0),
        ("<think>\\boxed{5}</think>\\boxed{6}", 0, 0, 1),
        ("<think>it is \\boxed{5}", 0, 1, 0),
        ("<think>a</think><think>b</think>\\boxed{5}", 1, 1, 0),
        ("so <think>a</think>\\boxed{5}", 1, 1, 0),
        ("\\boxed{4} \\boxed{5}", 1, 1, 0),
        ("\\boxed{5} \\boxed{4}", 0, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_answer_and_format_are_paid_separately(
    completion: str, strict: float, lenient: float, format_score: float
) -> None:
    assert (score("boxed_answer", completion), score("any_answer", completion)) == (strict, lenient)
    assert score("think_format", completion) == format_score


def test_a_prefilled_think_tag_is_paid_once_it_is_put_back() -> None:
    prefill = prefill_of("<|im_start|>assistant\n<think>\n")
    sampled = "2 + 3</think>\\boxed{5}"
    assert score("think_format", sampled) == 0
    assert score("think_format", prefill + sampled) == 1


def test_the_random_reward_repeats_itself_and_is_about_fair() -> None:
    scores = [score("random", f"completion {i}") for i in range(1000)]
    assert scores == [score("random", f"completion {i}") for i in range(1000)]
    assert 400 < sum(s or 0 for s in scores) < 600


def test_a_reward_set_weights_its_scores_and_leaves_out_weight_zero() -> None:
    rewards = load_reward_set({"boxed_answer": 1.0, "think_format": 0.2, "random": 0.0})
    scored = rewards.score("<think></think>\\boxed{5}", EXAMPLE)
    assert scored.scores == {"boxed_answer": 1.0, "think_format": 1.0}
    assert scored.reward == pytest.approx(1.2)


def test_a_skipped_score_adds_nothing() -> None:
    assert score_with(Reward("skip", lambda completion, example: None), "text", EXAMPLE) is None


@pytest.mark.parametrize(
    "returned",
    [math.nan, math.inf, 2, -1, "1", [1], np.ones(1), np.array("1"), np.str_("1"), 1j, np.datetime64("nat"), {}],
)
def test_what_is_not_a_score_is_refused_with_reward_and_example(returned: object) -> None:
    reward = Reward("odd", lambda completion, example: returned)  # type: ignore[arg-type,return-value]
    with pytest.raises(RewardError, match=r"'odd' returned .*example 'e'"):
        score_with(reward, "text", EXAMPLE)


@pytest.mark.parametrize("returned", [1e39, -1e39, 10**400, np.float32("inf"), np.float16("inf")])
def test_what_float32_cannot_hold_is_not_a_score(returned: float) -> None:
    with pytest.raises(RewardError, match="not a finite number of float32"):
        score_with(Reward("huge", lambda completion, example: returned, -math.inf, math.inf), "text", EXAMPLE)


@pytest.mark.parametrize(
    "returned", [0.5, np.float32(0.5), np.float16(0.5), np.array(0.5), Fraction(1, 2), Decimal("0.5")]
)
def test_any_kind_of_real_number_is_a_score(returned: float) -> None:
    score = score_with(Reward("half", lambda completion, example: returned), "text", EXAMPLE)
    assert (score, type(score)) == (0.5, float)


@pytest.mark.parametrize("kind", [bool, np.bool_, np.int8, np.array, IntEnum("Verdict", "no yes", start=0)])
def test_a_truth_value_is_one_or_zero(kind: Callable[[bool], float]) -> None:
    for value in (True, False):
        assert score_with(Reward("is", lambda completion, example: kind(value)), "text", EXAMPLE) == value  # noqa: B023


def test_a_tensor_without_a_dimension_is_a_score() -> None:
    import torch

    for value in (torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True), torch.tensor(True)):
        assert score_with(Reward("is", lambda completion, example: value), "text", EXAMPLE) == value  # noqa: B023


def test_a_reward_that_exits_has_failed() -> None:
    with pytest.raises(RewardError, match=r"'quits' raised SystemExit: 0"):
        score_with(Reward("quits", lambda completion, example: sys.exit(0)), "text", EXAMPLE)


def test_a_reward_that_raises_is_named_with_its_example() -> None:
    with pytest.raises(RewardError, match=r"'broken' raised ZeroDivisionError.*example 'e'.*'text'"):
        score_with(Reward("broken", lambda completion, example: 1 / 0), "text", EXAMPLE)


def test_an_unknown_reward_offers_near_names() -> None:
    with pytest.raises(UnknownName) as caught:
        load_reward("boxed_anser")
    assert "boxed_answer" in caught.value.hint
