"""Rewards for format, language, repetition and length."""

import pytest

from lowmem_rl.errors import RewardError
from lowmem_rl.example import Example
from lowmem_rl.rewards.length import cosine_score, overlong_penalty
from lowmem_rl.rewards.model_reward import ModelAccess, ModelReward, bind_rewards, without_model
from lowmem_rl.rewards.reward import score_with
from lowmem_rl.rewards.reward_registry import load_reward, load_reward_set

MODEL = ModelAccess(count_tokens=lambda text: len(text.split()), max_completion_tokens=100, answer_nll=lambda rows: [])


def example(question: str = "What is 2 + 3?") -> Example:
    return Example("e", ({"role": "user", "content": question},), "5")


def score(name: str, completion: str, question: str = "What is 2 + 3?") -> float | None:
    return score_with(load_reward(name), completion, example(question))


@pytest.mark.parametrize(
    ("completion", "paid"),
    [
        ("<think>2 + 3</think><answer>5</answer>", 1),
        ("<think>\n2\n</think>\n<answer>\n5\n</answer>\n", 1),
        ("<answer>5</answer>", 1),
        ("<answer> </answer>", 0),
        ("<answer>5</answer> or so", 0),
        ("<answer>4</answer><answer>5</answer>", 0),
        ("<think><answer>5</answer></think>", 0),
        ("<think><answer></think>5</answer>", 0),
        ("", 0),
    ],
)
def test_answer_tags_want_one_full_pair_at_the_end(completion: str, paid: float) -> None:
    assert score("answer_tags", completion) == paid


@pytest.mark.parametrize(
    ("completion", "paid"),
    [
        ("<think>a</think><answer>5</answer>", 1),
        ("<think>a</think>5", 0.5),
        ("<think><think></think>", 0.25),
        ("5", 0),
    ],
)
def test_each_tag_that_occurs_once_is_a_quarter(completion: str, paid: float) -> None:
    assert score("tag_count", completion) == paid


@pytest.mark.parametrize(
    ("question", "completion", "paid"),
    [
        ("How many?", "Each row has two, so four.", 1.0),
        ("How many?", "Each 每行有两个 four", pytest.approx(8 / 13)),
        ("多少个？", "<think>每行有两个</think>\\boxed{4}", 1.0),
        ("多少个 x？", "设 x 为 α", 1.0),
        ("Сколько?", "Два и два", 1.0),
        ("How many?", "<think></think>\\boxed{4}", None),
        ("2 + 2", "four", None),
        ("How many?", "", None),
    ],
)
def test_language_is_the_share_of_letters_in_a_script_of_the_question(question, completion, paid) -> None:
    assert score("language_consistency", completion, question) == paid


def test_repeating_costs_and_saying_it_once_does_not() -> None:
    assert score("repetition", "We add two and three, which makes five in all.") == 0
    assert score("repetition", "") == 0
    assert score("repetition", "so we get five. " * 50) < -0.9
    assert score("repetition", "a" * 5000) < -0.9
    assert score("repetition", "我们得到" * 50) < -0.9


@pytest.mark.parametrize(("tokens", "penalty"), [(0, 0), (80, 0), (90, -0.5), (100, -1), (1000, -1)])
def test_the_overlong_penalty_grows_over_the_last_fifth(tokens: int, penalty: float) -> None:
    assert overlong_penalty(tokens, limit=100) == pytest.approx(penalty)


@pytest.mark.parametrize(
    ("tokens", "right", "wrong"), [(0, 1, -1), (50, 0.75, -0.75), (100, 0.5, -0.5), (300, 0.5, -0.5)]
)
def test_the_cosine_prefers_right_short_and_wrong_long(tokens: int, right: float, wrong: float) -> None:
    assert cosine_score(tokens, 100, right=True) == pytest.approx(right)
    assert cosine_score(tokens, 100, right=False) == pytest.approx(wrong)


def test_a_length_reward_scores_once_it_knows_the_model() -> None:
    rewards = load_reward_set({"boxed_answer": 1.0, "soft_overlong": 0.5, "cosine_length": 0.0})
    with pytest.raises(RewardError, match="'soft_overlong' failed: it needs the model, and none") as refused:
        rewards.score("word " * 90, example())
    assert "lowmem-rl train" in refused.value.hint
    scored = bind_rewards(rewards, MODEL).score("word " * 89 + "\\boxed{5}", example())
    assert scored.scores == {"boxed_answer": 1.0, "soft_overlong": pytest.approx(-0.5)}
    assert scored.reward == pytest.approx(0.75)


def test_the_cosine_reads_the_box() -> None:
    reward = load_reward("cosine_length")
    assert isinstance(reward, ModelReward)
    bound = reward.bind(MODEL)
    assert score_with(bound, "\\boxed{5}", example()) > 0.99
    assert score_with(bound, "\\boxed{6}", example()) < -0.99


def test_rewards_that_need_no_model_can_score_without_it() -> None:
    rewards = without_model(load_reward_set({"perplexity": 2.0, "boxed_answer": 1.0}))
    assert ([reward.name for reward in rewards.rewards], rewards.weights) == (["boxed_answer"], (1.0,))
