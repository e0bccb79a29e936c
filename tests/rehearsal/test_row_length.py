"""Rows longer than those of training are read whole on a card, although Unsloth's forward cuts; and refused beyond."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.rehearsal.stage import Stage

if TYPE_CHECKING:
    from lowmem_rl.config.run_config import RunConfig
    from lowmem_rl.engine.policy import Policy
    from lowmem_rl.example import Message

CUT = "We shall truncate it ourselves"
"""Unsloth's warning."""
ROW = {"grpo.max_prompt_tokens": 24, "grpo.max_completion_tokens": 16}
"""Rows of 40 tokens: fewer than the sampler's trial has."""
PAID = {"grpo.max_prompt_tokens": 20, "grpo.max_completion_tokens": 8, "rollout.engine": "generate"}
"""Rows that leave no room for an answer after a full completion; without our engine there is no trial to give it."""
WIDE = {"grpo.max_prompt_tokens": 400, "grpo.max_completion_tokens": 200}
TRAIN = {"memory.micro_batch": 8, "grpo.prompts_per_step": 2, "eval.examples": 4, "eval.quick_examples": 4}
GSM8K = Path(__file__).parents[1] / "data" / "gsm8k"
LONG = {"question": f"What is left of {'7' * 1100} modulo 7?", "answer": "#### 0"}
"""A row of a data set that is longer than the 1,024 positions of the embedded model."""
THOUGHTS = "<think>" + "7*6+0=42\n" * 12 + "</think>"


def long_prompt() -> tuple[Message, ...]:
    return ({"role": "user", "content": "What is 417 * 6? " * 12},)


def load(row: dict[str, int], *, has_use: bool) -> tuple[RunConfig, Policy]:
    """Returns config and policy for rows of training, and for the long prompt if that is a use."""
    from lowmem_rl.engine.row_length import asking
    from tests.rehearsal import policies

    return policies.load(row, [asking("the test", [long_prompt()], 150)] if has_use else [])


def readings(policy: Policy) -> list[Any]:
    """Returns what is read of rows of about 200 tokens: an answer's likelihood, the distance from the base, an answer.

    A reading that is refused gives the two lines of its error instead.
    """
    from lowmem_rl.engine.hf_generate import answer
    from lowmem_rl.engine.logprobs import answer_nll, encode_turn, kl_from_base
    from lowmem_rl.engine.sampling import GREEDY
    from lowmem_rl.rewards.model_reward import AnswerRow

    row = AnswerRow(({"role": "user", "content": "What is 417 * 6?"},), THOUGHTS + "\\boxed{", "2502}")
    turn = encode_turn(policy, long_prompt(), THOUGHTS, truncated=False)
    return [
        result_of(lambda: answer_nll(policy, [row], batch=1)[0]),
        result_of(lambda: kl_from_base(policy, [turn], batch=8)),
        result_of(lambda: [found.text for found in answer(policy, [long_prompt()], GREEDY, max_tokens=16, batch=1)]),
    ]


def result_of(call: Any) -> Any:
    from lowmem_rl.errors import LowMemError

    try:
        found = call()
    except LowMemError as error:
        found = error
    return f"{found}\n{found.hint}" if isinstance(found, LowMemError) else found


def reads_as_a_wide_one() -> tuple[list[Any], list[Any]]:
    small, wide = load(ROW, has_use=True)[1], load(WIDE, has_use=False)[1]
    return readings(small), readings(wide)


def refuses() -> list[Any]:
    return readings(load(ROW, has_use=False)[1])


def tries_its_sampler() -> tuple[int, str]:
    """Returns the trial's longest row, and what it led to."""
    from lowmem_rl.engine.sampler import Sampler

    config, policy = load(ROW, has_use=False)
    return policy.longest_row or 0, Sampler(policy, config).backend.engine


def test_rows_shorter_than_the_samplers_trial_do_not_cut_it(a6000: Stage) -> None:
    longest, engine = a6000.call(tries_its_sampler)
    assert longest > sum(ROW.values())
    assert engine == "lowmem"


@pytest.mark.long
def test_what_loading_is_given_is_read_as_by_a_model_of_longer_rows(a6000: Stage) -> None:
    small, wide = a6000.call(reads_as_a_wide_one)
    assert small == wide


def test_what_loading_is_not_given_is_refused_in_two_lines(a6000: Stage) -> None:
    for refusal in a6000.call(refuses):
        what, _, fix = refusal.partition("\n")
        assert "tokens is longer than" in what
        assert fix


def test_a_run_with_a_perplexity_reward_cuts_no_row(a6000: Stage, tmp_path: Path) -> None:
    settings = [f"--set={key}={value}" for key, value in (PAID | TRAIN).items()]
    paid = ("--reward=perplexity=1.0", "--reward=boxed_answer=1.0", "--out", str(tmp_path / "run"))
    ended = a6000.lowmem("train", "--preset=tiny-cpu", "--steps=1", *settings, *paid)
    assert ended.code == 0, ended.output
    assert CUT not in ended.output + (tmp_path / "run" / "libraries.log").read_text()


@pytest.mark.long
def test_a_held_out_prompt_that_no_model_takes_is_left_out_of_every_evaluation(a6000: Stage, tmp_path: Path) -> None:
    shutil.copytree(GSM8K, data := tmp_path / "data")
    rows = (data / "test.jsonl").read_text()
    (data / "test.jsonl").write_text(json.dumps(LONG) + "\n" + rows)
    row = {"grpo.max_prompt_tokens": 512, "grpo.max_completion_tokens": 16, "task.levels": [], "task.path": str(data)}
    settings = [f"--set={key}={value}" for key, value in (TRAIN | row).items()]
    ended = a6000.lowmem(
        "train", "--preset=tiny-cpu", "--task=gsm8k", "--steps=1", *settings, "--out", str(tmp_path / "run")
    )
    assert ended.code == 0, ended.output
    assert "gsm8k: 1 of 4 prompts are left out" in " ".join(ended.output.split())
    written = json.loads((tmp_path / "run" / "eval.json").read_text())
    assert [written[when]["num_examples"] for when in ("before", "after")] == [3, 3]
    exported = a6000.lowmem("export", str(tmp_path / "run"), "--to", "adapter", "--examples", "4")
    assert exported.code == 0, exported.output
    assert "1 of 4 prompts are left out" in " ".join(exported.output.split())
    assert CUT not in ended.output + (tmp_path / "run" / "libraries.log").read_text()
