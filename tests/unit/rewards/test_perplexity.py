"""The perplexity reward's arithmetic and its positions in the text; tests/train run it with the model."""

import math

import pytest

from lowmem_rl.example import Example
from lowmem_rl.rewards.model_reward import AnswerRow, ModelAccess
from lowmem_rl.rewards.perplexity import PayTerms, bare_lead, lead_of, perplexity_reward, relative_drop
from lowmem_rl.rewards.reward import Rollout, score_all, score_with


def example(example_id: str = "e", system: str = "") -> Example:
    prompt = ({"role": "system", "content": system}, {"role": "user", "content": "2 + 3?"})
    return Example(example_id, prompt, "5")


def test_the_drop_is_that_of_the_perplexities() -> None:
    nll, nll_without = 0.3, 1.7
    expected = (math.exp(nll_without) - math.exp(nll)) / math.exp(nll_without)
    assert relative_drop(nll, nll_without) == pytest.approx(expected)
    assert relative_drop(1e6, 0.0) < -1e300


@pytest.mark.parametrize(
    ("nll", "options", "score"),
    [
        (0.0, {}, 1 - math.exp(-2)),
        (2.0, {}, 0.0),
        (3.0, {}, 0.0),
        (2.1, {"low": -1.0}, 1 - math.exp(0.1)),
        (9.0, {"low": -1.0}, -1.0),
        (1.95, {"threshold": 0.1}, 0.0),
        (1.0, {"threshold": 0.1}, 1 - math.exp(-1)),
        (2.1, {"low": -1.0, "threshold": 0.5}, 1 - math.exp(0.1)),
        (1.0, {"absolute": 0.5}, 1 - math.exp(-1) + 0.5 * math.exp(-1)),
    ],
)
def test_a_score_is_bounded_thresholded_and_absolute_as_asked(nll: float, options: dict, score: float) -> None:
    assert PayTerms(**options).score(nll, 2.0) == pytest.approx(score)


@pytest.mark.parametrize(
    ("completion", "lead"),
    [
        ("<think>2 + 3</think>\\boxed{6}", "<think>2 + 3</think>\\boxed{"),
        ("<think>2 + 3</think>The answer is 6.", "<think>2 + 3</think>\\boxed{"),
        ("<think>2 + 3 is", "<think>2 + 3 is</think>\\boxed{"),
        ("It is 2 + 3, so \\boxed{6}.", "It is 2 + 3, so \\boxed{"),
        ("So <answer>\\boxed{6}</answer>", "So \\boxed{"),
        ("", "\\boxed{"),
    ],
)
def test_only_the_reasoning_before_the_answer_is_scored(completion: str, lead: str) -> None:
    assert lead_of(completion) == lead


def test_without_reasoning_the_turn_has_the_requested_format() -> None:
    assert bare_lead(example()) == "\\boxed{"
    assert bare_lead(example(system="Think within <think> </think> tags.")) == "<think></think>\\boxed{"


def model(seen: list[list[AnswerRow]]) -> ModelAccess:
    """A model that is more certain of an answer the longer its lead is."""

    def answer_nll(rows: list[AnswerRow]) -> list[float]:
        seen.append(list(rows))
        return [10.0 / len(row.lead) for row in rows]

    return ModelAccess(len, 100, answer_nll)


def test_a_batch_is_one_call_and_reads_each_bare_answer_once_per_run() -> None:
    seen: list[list[AnswerRow]] = []
    reward = perplexity_reward().bind(model(seen))
    group = [example("a")] * 3 + [example("b")] * 3
    scores = score_all(reward, Rollout(["", "a way", "a longer way"] * 2, group))
    assert scores[:3] == scores[3:]
    assert scores[0] == 0 < scores[1] < scores[2] < 1
    assert [len(rows) for rows in seen] == [8]
    assert score_with(reward, "a way", example("a")) == scores[1]
    assert [len(rows) for rows in seen] == [8, 1]
    assert {row.answer for row in seen[0]} == {"5}"}


def test_the_range_follows_from_the_options() -> None:
    reward = perplexity_reward("mine", low=-1.0, absolute=0.5)
    assert (reward.low, reward.high, reward.bind(model([])).high) == (-1.0, 1.5, 1.5)
    with pytest.raises(ValueError, match="low must be 0 or -1"):
        perplexity_reward(low=0.5)
