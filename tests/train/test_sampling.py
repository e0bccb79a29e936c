"""Tokens are drawn from the distribution that transformers' settings define."""

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from lowmem_rl.engine.sampling import GREEDY, SamplingParams, sample_token, uniform_noise

DRAWS = 40_000
LOGITS = torch.randn(1, 24, generator=torch.Generator().manual_seed(3)) * 2
SEEN = torch.tensor([[1, 5, 5, 9]])


@pytest.mark.parametrize(
    ("params", "processors"),
    [
        (SamplingParams(), []),
        (SamplingParams(temperature=0.6), [TemperatureLogitsWarper(0.6)]),
        (SamplingParams(top_k=5), [TopKLogitsWarper(5)]),
        (SamplingParams(top_p=0.8), [TopPLogitsWarper(0.8)]),
        (SamplingParams(min_p=0.1), [MinPLogitsWarper(0.1)]),
        (SamplingParams(repetition_penalty=1.5), [RepetitionPenaltyLogitsProcessor(1.5)]),
        (
            SamplingParams(temperature=1.4, top_p=0.9, top_k=10, min_p=0.02, repetition_penalty=1.2),
            [
                RepetitionPenaltyLogitsProcessor(1.2),
                TemperatureLogitsWarper(1.4),
                TopKLogitsWarper(10),
                TopPLogitsWarper(0.9),
                MinPLogitsWarper(0.02),
            ],
        ),
    ],
)
def test_frequencies_are_transformers_probabilities(params: SamplingParams, processors: list) -> None:
    expected = LogitsProcessorList(processors)(SEEN, LOGITS).softmax(-1)[0]
    noise = torch.rand(DRAWS, generator=torch.Generator().manual_seed(0))
    tokens, _ = sample_token(LOGITS.expand(DRAWS, -1), noise, params, SEEN.expand(DRAWS, -1))
    counts = torch.bincount(tokens, minlength=24).double()
    assert counts[expected == 0].sum() == 0
    possible = expected > 0
    # Pearson's chi-squared; its 99.9 % point is below degrees + 3.3 sqrt(2 degrees) + 6.
    chi = ((counts - DRAWS * expected)[possible] ** 2 / (DRAWS * expected[possible])).sum()
    degrees = int(possible.sum()) - 1
    assert chi < degrees + 3.3 * (2 * degrees) ** 0.5 + 6


def test_log_probs_are_taken_before_anything_is_filtered_out() -> None:
    tokens, log_probs = sample_token(LOGITS, torch.tensor([0.5]), SamplingParams(temperature=0.5, top_k=2))
    assert log_probs[0] == pytest.approx(float((LOGITS / 0.5).log_softmax(-1)[0, tokens[0]]))


def test_log_probs_are_the_models_own_whatever_is_penalised() -> None:
    params = SamplingParams(temperature=0.5, repetition_penalty=1.5)
    tokens, log_probs = sample_token(LOGITS, torch.tensor([0.5]), params, SEEN)
    assert log_probs[0] == pytest.approx(float((LOGITS / 0.5).log_softmax(-1)[0, tokens[0]]))


def test_greedy_takes_the_likeliest() -> None:
    tokens, _ = sample_token(LOGITS, torch.tensor([0.999]), GREEDY)
    assert tokens[0] == LOGITS.argmax()


def test_the_ends_of_the_noise_never_sample_an_impossible_token() -> None:
    logits = torch.tensor([[-torch.inf, 0.0, 0.0, -torch.inf]]).expand(2, -1)
    tokens, _ = sample_token(logits, torch.tensor([0.0, 1 - 2**-24]), SamplingParams())
    assert tokens.tolist() == [1, 2]


def test_noise_belongs_to_the_stream_and_not_to_the_place() -> None:
    one, two = uniform_noise(["a", "b"], 50), uniform_noise(["b", "a", "c"], 60)
    assert torch.equal(one[0], two[1, :50])
    assert torch.equal(one[1], two[0, :50])
    assert not torch.equal(two[0], two[2])
    assert 0 <= float(two.min()) <= float(two.max()) < 1
