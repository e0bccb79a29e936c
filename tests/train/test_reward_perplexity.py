"""The perplexity reward on the embedded model: its ranking, its cost, and the state that it leaves."""

from dataclasses import replace
from statistics import mean

import pytest
import torch

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.logprobs import answer_nll, view_of
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.example import Example
from lowmem_rl.rewards.model_reward import AnswerRow, ModelAccess
from lowmem_rl.rewards.perplexity import perplexity_reward
from lowmem_rl.rewards.reward import Reward, Rollout, score_all
from lowmem_rl.tasks.arithmetic import ARITHMETIC
from lowmem_rl.tasks.task import Selection

EXAMPLES = list(ARITHMETIC("bare").examples(Selection("test", limit=64, levels=(3,))))
CONFIG = resolve(preset="tiny-cpu", settings=["memory.checkpointing=none"]).config


@pytest.fixture(scope="module")
def policy() -> Policy:
    device = Device("cpu", "float32")
    prepare_process(CONFIG, device)
    return load_policy(CONFIG, device)


def chain(example: Example, slip: int | None = None) -> str:
    """Multiplies digit by digit as the embedded model was taught; `slip` is the digit of a wrong product."""
    left, _, right = example.question.removeprefix("What is ").rstrip("?").split()
    lines, carry = [], 0
    for i, digit in enumerate(reversed(left)):
        product = int(digit) * int(right) + carry
        product += (1 if product % 10 < 9 else -1) * (i == slip)
        lines.append(f"{digit}*{right}+{carry}={product}")
        carry = product // 10
    return "<think>" + "\n".join(lines) + "</think>"


def signed(view: ModelAccess) -> Reward:
    return perplexity_reward(low=-1.0).bind(view)


def test_a_right_chain_ranks_above_a_wrong_one_above_none(policy: Policy) -> None:
    reward = signed(view_of(policy, CONFIG))
    right, wrong, none = (
        score_all(reward, Rollout([write(example) for example in EXAMPLES], EXAMPLES))
        for write in (chain, lambda example: chain(example, slip=1), lambda example: "")
    )
    assert all(r > w for r, w in zip(right, wrong, strict=True))
    assert sum(w > n for w, n in zip(wrong, none, strict=True)) / len(EXAMPLES) > 0.9
    assert set(none) == {0.0}
    assert mean(right) > 0.95


def test_a_wrong_chain_is_worth_less_than_an_honest_guess(policy: Policy) -> None:
    reward = signed(view_of(policy, CONFIG))
    guess = score_all(reward, Rollout(["<think></think>\\boxed{1}"] * len(EXAMPLES), EXAMPLES))
    wrong = score_all(reward, Rollout([chain(example, slip=1) for example in EXAMPLES], EXAMPLES))
    assert mean(guess) > mean(wrong)


def test_a_likelihood_is_the_models_own_for_any_batch(policy: Policy) -> None:
    rows = [
        AnswerRow(e.prompt, chain(e)[: 20 + 5 * i] + "\\boxed{", e.answer + "}") for i, e in enumerate(EXAMPLES[:5])
    ]
    row = rows[3]
    before = policy.tokenize(row.prompt) + policy.tokenizer(row.lead)["input_ids"]
    answer = policy.tokenizer(row.answer)["input_ids"]
    with torch.no_grad(), policy.model.disable_adapter():
        logits = policy.model(torch.tensor([before + answer])).logits[0, len(before) - 1 : -1]
    expected = torch.nn.functional.cross_entropy(logits.float(), torch.tensor(answer)).item()
    for batch in (1, 2, 5):
        assert answer_nll(policy, rows, batch=batch)[3] == pytest.approx(expected, rel=1e-4)


def test_the_adapter_counts_for_nothing_and_is_on_again_afterwards(policy: Policy) -> None:
    rows = [AnswerRow(e.prompt, "\\boxed{", e.answer + "}") for e in EXAMPLES[:4]]
    before = answer_nll(policy, rows, batch=4)
    weights = [p for name, p in policy.model.named_parameters() if "lora_B" in name]
    with torch.no_grad():
        for weight in weights:
            weight.fill_(0.5)
    assert answer_nll(policy, rows, batch=4) == before
    prompt = torch.tensor([policy.tokenize(EXAMPLES[0].prompt)])
    with torch.no_grad():
        with_adapter = policy.model(prompt).logits
        for weight in weights:
            weight.zero_()
        assert not torch.allclose(with_adapter, policy.model(prompt).logits)
    assert policy.model.training


def test_a_group_costs_at_most_one_forward_a_completion(policy: Policy) -> None:
    reward, forwards = signed(view_of(policy, CONFIG)), []
    hook = policy.model.get_base_model().model.register_forward_hook(lambda *call: forwards.append(1))
    try:
        score_all(reward, Rollout([chain(EXAMPLES[0], slip) for slip in (None, 0, 1, 2)], [EXAMPLES[0]] * 4))
    finally:
        hook.remove()
    assert 1 <= len(forwards) <= 4


def test_a_model_that_is_generating_stays_in_that_mode(policy: Policy) -> None:
    with policy.inference() as model:
        answer_nll(policy, [AnswerRow(EXAMPLES[0].prompt, "\\boxed{", "5}")], batch=1)
        assert not model.training
    assert policy.model.training


def test_an_opening_that_the_template_gives_is_read_once(policy: Policy) -> None:
    opened = replace(policy, template=replace(policy.template, prefill="<think>\n"))
    view = view_of(opened, CONFIG)
    assert view.count_tokens("<think>\n2*3") == len(policy.tokenizer("2*3")["input_ids"])
