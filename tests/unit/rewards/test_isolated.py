"""A user's reward runs where it can be killed: there is always a finding, and soon."""

import dataclasses
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from lowmem_rl.example import Example
from lowmem_rl.rewards.adversarial_cases import RewardCase, general_cases
from lowmem_rl.rewards.isolated import isolated
from lowmem_rl.rewards.reward import RewardFailed
from lowmem_rl.rewards.reward_check import check_reward
from lowmem_rl.rewards.reward_finding import RewardFinding
from lowmem_rl.rewards.reward_registry import load_reward, load_reward_set

LIMIT_S = 2.0
EXAMPLE = Example("one", ({"role": "user", "content": "?"},), "1")


def findings(tmp_path: Path, body: str, trials: tuple[RewardCase, ...] | None = None) -> list[RewardFinding]:
    (tmp_path / "mine.py").write_text(f"import os, re, time\ndef pay(completion, example):\n    {body}\n")
    return check_reward(load_reward(f"{tmp_path}/mine.py:pay"), trials or general_cases(), limit_s=LIMIT_S)


@pytest.mark.slow
@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(60)",
        "return 9**9**9**9",  # holds the interpreter's lock
        "return float(bool(re.search(r'boxed.(\\d+,?)+}', completion)))",
    ],
)
def test_a_reward_that_hangs_is_named_with_what_it_hangs_on(tmp_path: Path, body: str) -> None:
    began = time.monotonic()
    (finding,) = findings(tmp_path, body)
    assert (finding.reward, finding.fault) == ("pay", "hangs")
    assert "longer than 2 s for one completion (example 'general/0', completion '" in finding.what
    assert time.monotonic() - began < 10 * LIMIT_S


def test_a_reward_that_ends_its_process_ends_only_its_own(tmp_path: Path) -> None:
    (finding,) = findings(tmp_path, "os._exit(7)")
    assert finding.fault == "fails"
    assert "with exit code 7 (example 'general/0'" in finding.what


def test_what_a_reward_prints_is_no_report(tmp_path: Path) -> None:
    body = "print('{}'); return float(completion.endswith('{' + example.answer + '}\\n</answer>'))"
    assert findings(tmp_path, body) == []


def test_findings_are_those_of_the_reward_itself(tmp_path: Path) -> None:
    (finding,) = findings(tmp_path, "return 1.0")
    assert (finding.reward, finding.fault) == ("pay", "constant")


@pytest.mark.slow
def test_after_a_late_score_another_process_takes_the_next_one(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import time\ndef pay(completion, example):\n    time.sleep(60 * len(completion))\n    return 1\n"
    )
    with isolated(load_reward_set({f"{tmp_path}/mine.py:pay": 1.0}), limit_s=LIMIT_S) as rewards:
        with pytest.raises(RewardFailed, match="takes longer than 2 s"):
            rewards.score("late", EXAMPLE)
        assert rewards.score("", EXAMPLE).reward == 1.0


@pytest.mark.parametrize(
    ("body", "message"), [("input()", "EOFError: EOF"), ("raise ValueError('a\\nb')", "ValueError: a b ")]
)
def test_a_failure_is_reported_in_one_line_and_there_is_nothing_to_read(
    tmp_path: Path, body: str, message: str
) -> None:
    (tmp_path / "mine.py").write_text(f"def pay(completion, example):\n    {body}\n")
    rewards = load_reward_set({f"{tmp_path}/mine.py:pay": 1.0})
    with isolated(rewards) as tried, pytest.raises(RewardFailed, match=f"Reward 'pay' raised {message}"):
        tried.score("", EXAMPLE)


class Unpicklable:
    def __reduce__(self):
        raise TypeError


def test_examples_that_cannot_be_handed_over_are_tried_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = ModuleType("only_here")
    monkeypatch.setitem(sys.modules, "only_here", elsewhere)
    exec("class Note: pass", vars(elsewhere))
    for extra in (Unpicklable(), elsewhere.Note()):
        trials = tuple(
            dataclasses.replace(t, example=dataclasses.replace(t.example, extra={"note": extra}))
            for t in general_cases()
        )
        assert [finding.fault for finding in findings(tmp_path, "return 1.0", trials)] == ["constant"]
