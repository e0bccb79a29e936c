"""What `tasks check` finds, on tasks with one fault each."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lowmem_rl.errors import RewardError, TaskError
from lowmem_rl.example import Example
from lowmem_rl.models.lookup import TINY, TINY_DIRECTORY
from lowmem_rl.prompts import conversation, perfect_completion
from lowmem_rl.rewards.reward import Reward, RewardSet
from lowmem_rl.rewards.reward_registry import load_reward_set
from lowmem_rl.tasks.lengths import estimate_tokens, exact_counter
from lowmem_rl.tasks.task import Selection, Split
from lowmem_rl.tasks.task_check import CheckLimits, TaskReport, check_examples, check_task, cut_off
from lowmem_rl.tasks.task_finding import refuse

ALL = CheckLimits(golds=200)


@dataclass
class Doubling:
    """`Double n?`, train 0 to 99, test 100 to 149; each part can be spoiled."""

    convention: str = "think_boxed"
    rewards: Sequence[str] = ("boxed_answer", "any_answer")
    spoil: Callable[[Example], Example] = lambda example: example
    gold: Callable[[Example], str] | None = None
    splits: dict[Split, range] = field(default_factory=lambda: {"train": range(100), "test": range(100, 150)})

    name = "doubling"
    summary = "twice a number"
    has_data = False

    def examples(self, selection: Selection) -> Iterator[Example]:
        for n in self.splits[selection.split]:
            prompt = conversation(f"Double {n}?", self.convention)
            yield self.spoil(Example(f"{selection.split}/{n}", prompt, str(2 * n), level=n % 2))

    def gold_completion(self, example: Example) -> str:
        return self.gold(example) if self.gold else perfect_completion(example.answer, self.convention)


def check(task: Doubling, rewards: RewardSet | None = None, limits: CheckLimits = ALL) -> TaskReport:
    return check_task(task, rewards or load_reward_set({"boxed_answer": 1.0}), limits, estimate_tokens)


def the_finding(report: TaskReport, level: str = "error") -> str:
    assert [finding.level for finding in report.findings] == [level]
    assert report.findings[0].fix
    return report.findings[0].what


def test_one_answer_to_every_question_is_nothing_to_learn() -> None:
    report = check(Doubling(spoil=lambda example: replace(example, answer="yes")))
    assert the_finding(report) == "each of 100 train answers is 'yes'"


def asked(question: str) -> Callable[[Example], Example]:
    return lambda example: replace(example, prompt=({"role": "user", "content": question},))


def test_a_sound_task_has_no_finding_and_tells_what_it_is() -> None:
    report = check(Doubling())
    assert (report.findings, report.examples) == ((), {"train": 100, "test": 50})
    assert (report.golds, report.levels) == (150, {0: 50, 1: 50})
    assert report.commonest_answer[1] == 1 / 50


@pytest.mark.parametrize("convention", ["bare", "boxed", "think_boxed", "r1_zero", "countdown", "hashes"])
def test_every_convention_is_paid_by_the_lenient_reading(convention: str) -> None:
    assert check(Doubling(convention), load_reward_set({"any_answer": 1.0})).findings == ()


def test_a_prompt_that_asks_for_another_form_than_the_rewards_pay_is_found() -> None:
    said = the_finding(check(Doubling("hashes"), load_reward_set({"boxed_answer": 1.0})))
    assert "boxed_answer pays 0.0 instead of 1 for 150 of 150 gold answers" in said


def test_a_single_gold_that_is_not_paid_is_found() -> None:
    task = Doubling(gold=lambda e: "\\boxed{7}" if e.id == "test/120" else f"\\boxed{{{e.answer}}}")
    assert "1 of 150 gold answers, such as '240' of 'test/120'" in the_finding(check(task))


def test_rewards_that_read_no_answer_are_found() -> None:
    report = check(Doubling(), load_reward_set({"think_format": 1.0}))
    text = " ".join(finding.what for finding in report.findings)
    assert "none of the rewards verifies the answers: think_format" in text
    assert "the answer to another question earns as much as a perfect one for 150 of 150" in text


def test_a_reward_that_pays_for_nothing_is_found() -> None:
    always = RewardSet((Reward("always", lambda completion, example: 1.0),), (1.0,))
    found = [finding.what for finding in check(Doubling(), always).findings]
    assert [what.partition(" earns")[0] for what in found] == [
        "an empty completion",
        "the answer to another question",
        "a completion that is cut off",
    ]


def test_a_users_plain_function_may_have_any_range() -> None:
    right = Reward("right", lambda completion, e: 3.0 * (f"{{{e.answer}}}" in completion), low=-9e9, high=float("inf"))
    assert check(Doubling(), RewardSet((right,), (1.0,))).findings == ()


def test_a_reward_that_ends_its_process_is_no_end_of_the_check(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import os\ndef pay(completion, example):\n    os._exit(0)\n")
    with pytest.raises(RewardError, match="ended the process that tried it"):
        check(Doubling(), load_reward_set({f"{tmp_path}/mine.py:pay": 1.0}))


def test_another_question_with_the_same_answer_is_not_another_answer() -> None:
    task = Doubling(spoil=lambda e: replace(e, answer="8" if e.level else "16/2"), gold=lambda e: "\\boxed{8}")
    assert not [f for f in check(task).findings if "another question" in f.what]


def test_overlong_prompts_are_an_error_unless_few() -> None:
    said = the_finding(check(Doubling(), limits=CheckLimits(200, max_prompt_tokens=10)))
    assert "about 150 of 150 prompts are longer than 10 tokens" in said
    one = Doubling(spoil=lambda e: asked("why " * 600)(e) if e.id == "train/0" else e)
    assert "about 1 of 150" in the_finding(check(one), "note")


def test_a_question_in_both_splits_is_a_leak_under_any_spaces_and_capitals() -> None:
    task = Doubling(
        spoil=lambda e: (
            asked("DOUBLE  7 ?" if e.id == "test/107" else "Double 7 ?")(e) if e.id in ("train/7", "test/107") else e
        )
    )
    assert "1 of 50 held-out questions are among the training questions, such as 'test/107'" in the_finding(check(task))


def test_duplicates_are_noted_and_contradictions_named() -> None:
    task = Doubling(spoil=lambda e: asked("Double 8?")(e) if e.id == "train/9" else e)
    findings = check(task).findings
    assert [finding.level for finding in findings] == ["note", "note"]
    assert "occur twice, such as 'train/8' and 'train/9'" in findings[0].what
    assert "with different answers" in findings[1].what
    many = Doubling(spoil=lambda e: asked("Double?")(e) if e.id.startswith("train") else e)
    assert check(many).errors


def test_an_empty_split_is_an_error() -> None:
    task = Doubling(splits={"train": range(100), "test": range(0)})
    assert the_finding(check(task)) == "there are no test examples"


def test_examples_that_are_drawn_already_are_checked_and_refused_with_the_first_error() -> None:
    task, rewards = Doubling("hashes"), load_reward_set({"boxed_answer": 1.0})
    train, test = (list(task.examples(Selection(split))) for split in ("train", "test"))
    findings = check_examples(task, rewards, train, test, golds=3)
    with pytest.raises(TaskError, match="Task 'doubling': boxed_answer pays 0.0 instead of 1") as caught:
        refuse("doubling", findings)
    assert caught.value.hint
    refuse("doubling", [])


def test_a_cut_leaves_the_thoughts_whole() -> None:
    assert cut_off("<think>ab</think>\\boxed{42}") == "<think>ab</think>\\boxe"
    assert cut_off("The answer is 42") == "The answ"


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded")
def test_tokens_are_counted_as_transformers_counts_them() -> None:
    pytest.importorskip("tokenizers")
    prompts = [conversation("What is 43 * 7?\n  So?", convention) for convention in ("bare", "think_boxed")]
    done = subprocess.run(
        [sys.executable, "-m", "tests.contracts.rendered"],
        cwd=Path(__file__).parents[3],
        input=json.dumps([str(TINY_DIRECTORY), prompts]),
        capture_output=True,
        text=True,
        check=True,
    )
    count = exact_counter(TINY)
    assert count
    theirs = [tokens for _, tokens in json.loads(done.stdout)]
    assert [count(prompt) for prompt in prompts] == theirs
    assert min(theirs) > 10


def test_tokens_of_the_embedded_model_are_counted_exactly() -> None:
    pytest.importorskip("tokenizers")
    count = exact_counter(TINY)
    assert count
    assert count(conversation("1", "bare")) + 1 == count(conversation("12", "bare"))


def test_a_model_that_is_not_here_has_no_counter() -> None:
    assert exact_counter("Qwen/Qwen2.5-1.5B-Instruct") is None
    assert exact_counter("/nowhere/at/all") is None


def test_an_estimate_grows_with_words_digits_and_turns() -> None:
    counts = [
        estimate_tokens(conversation(text, "bare")) for text in ("a", "a b", "a b 123", "a b 123 internationally")
    ]
    assert counts == sorted(set(counts))
    assert estimate_tokens(conversation("a", "boxed")) > counts[0]
