"""Is a task fit for training: decided from its examples and rewards alone, before a model is loaded.

Its perfect completions must earn the most that the rewards pay, spoiled ones less; prompts must be within the limit;
no question may occur twice, least of all in both splits. Whether a reward itself is sound is decided in
`rewards/reward_check.py`.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lowmem_rl.example import Example
from lowmem_rl.rewards.isolated import isolated
from lowmem_rl.rewards.reward import Reward, RewardSet, score_with
from lowmem_rl.rewards.reward_registry import REWARDS
from lowmem_rl.tasks.gold_check import check_gold_texts, reading_notes
from lowmem_rl.tasks.hub_task import VERIFIED
from lowmem_rl.tasks.lengths import CountTokens, PromptLengths, check_lengths, measure_lengths
from lowmem_rl.tasks.select import draw_examples, gold_completion_of
from lowmem_rl.tasks.task import Selection, Split, Task
from lowmem_rl.tasks.task_finding import TOLERATED_SHARE, TaskFinding, level_of
from lowmem_rl.verify.equal import equal_answers

_MOST_EXAMPLES = 1_000_000
"""Of one split that are checked."""
_MOST_GOLDS = 1000
"""Of each split that are read as texts."""
_LUCKY_SHARE = 0.05
"""Of cut-off completions that may be paid in full: a lenient reading can find the answer in half of the work."""
_MOST_TRIED = 20
"""Neighbours among which an example with another answer is searched for."""
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class TaskReport:
    """What was checked, and the findings."""

    task: str
    examples: dict[Split, int]
    golds: int
    """Perfect completions that were scored."""
    rewards: tuple[str, ...]
    levels: dict[float, int]
    """Training examples of each level."""
    commonest_answer: tuple[str, float]
    """The best constant answer, and the share of held-out examples for which it is right."""
    lengths: PromptLengths
    findings: tuple[TaskFinding, ...]

    @property
    def errors(self) -> list[TaskFinding]:
        return [finding for finding in self.findings if finding.level == "error"]

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        findings = [{"level": one.level, "what": one.what, "cure": one.fix} for one in self.findings]
        return asdict(self) | {"findings": findings}


@dataclass(frozen=True, slots=True)
class CheckLimits:
    """How much is checked, and how long a prompt may be."""

    golds: int = 1000
    max_prompt_tokens: int = 512
    levels: tuple[float, ...] = ()
    seed: int = 0


def check_task(
    task: Task, rewards: RewardSet, limits: CheckLimits, count_tokens: CountTokens, *, exact: bool = False
) -> TaskReport:
    """Returns the findings on a task. Raises `TaskError` or `SetupError` for data that cannot be read."""
    # A task that generates its problems has no end: as many as are scored.
    most = _MOST_EXAMPLES if getattr(task, "has_data", False) else limits.golds
    splits: tuple[Split, ...] = ("train", "test")
    train, test = (draw_examples(task, Selection(split, None, limits.levels, limits.seed), most) for split in splits)
    lengths = measure_lengths([*train, *test], limits.max_prompt_tokens, count_tokens, exact=exact)
    found = [
        *check_golds(rewards, train, test),
        *check_examples(task, rewards, train, test, limits.golds),
        *check_lengths(lengths, len(train) + len(test)),
        *check_left_out(task),
    ]
    answers = Counter(example.answer for example in test)
    answer, times = answers.most_common(1)[0] if answers else ("", 0)
    return TaskReport(
        task=getattr(task, "name", type(task).__name__),
        examples={"train": len(train), "test": len(test)},
        golds=len(_spread(train, limits.golds)) + len(_spread(test, limits.golds)),
        rewards=tuple(reward.name for reward in rewards.rewards),
        levels=dict(sorted(Counter(e.level for e in train if e.level is not None).items())),
        commonest_answer=(answer, times / max(1, len(test))),
        lengths=lengths,
        findings=tuple(found),
    )


def check_golds(rewards: RewardSet, train: Sequence[Example], test: Sequence[Example]) -> list[TaskFinding]:
    """Returns how the golds were read, and which of them nobody can answer if the rewards compare answers."""
    compares = VERIFIED & {reward.name for reward in rewards.rewards}
    sample = [*_spread(train, _MOST_GOLDS), *_spread(test, _MOST_GOLDS)] if compares else []
    return [*reading_notes([*train, *test]), *check_gold_texts(sample)]


def check_examples(
    task: Task, rewards: RewardSet, train: Sequence[Example], test: Sequence[Example], golds: int
) -> list[TaskFinding]:
    """Returns the findings on examples that are already drawn; up to `golds` of each split are scored."""
    sample = [*_spread(train, golds), *_spread(test, golds)]
    with isolated(rewards) as tried:
        scored = [*_check_golds(task, tried, sample), *check_spoiled(task, tried, sample)]
    return [
        *_check_splits(train, test),
        *check_answer_rewards(task, rewards),
        *scored,
        *_check_duplicates(train, "train"),
        *_check_duplicates(test, "test"),
        *_check_leaks(train, test),
    ]


def _spread(examples: Sequence[Example], most: int) -> Sequence[Example]:
    """Returns up to `most` examples at equal distances."""
    return examples[:: max(1, math.ceil(len(examples) / most))]


def _check_splits(train: Sequence[Example], test: Sequence[Example]) -> Iterator[TaskFinding]:
    """Yields an error for a split without examples, and if all answers are equal: the question need not be read."""
    for split, examples in (("train", train), ("test", test)):
        if not examples:
            fix = "Choose other levels, raise task.eval_share, or give more data, such as a file of held-out rows."
            yield TaskFinding("error", f"there are no {split} examples", fix)
    if len(train) > 1 and len({example.answer for example in train}) == 1:
        what = f"each of {len(train)} train answers is {train[0].answer!r:.60}"
        yield TaskFinding("error", what, "Name the column that holds the answers, or choose other rows.")


def check_answer_rewards(task: Task, rewards: RewardSet) -> Iterator[TaskFinding]:
    """Yields an error if none of the rewards verifies this task's answers."""
    verifying: Sequence[str] = getattr(task, "rewards", ())
    used = {reward.name for reward in rewards.rewards}
    if verifying and used <= REWARDS.keys() and not used & set(verifying):  # a user's own reward may do it
        what = f"none of the rewards verifies the answers: {', '.join(sorted(used)) or 'none'}"
        yield TaskFinding("error", what, f"Pay {' or '.join(verifying)}: --reward {verifying[0]}=1")


def _check_golds(task: Task, rewards: RewardSet, examples: Sequence[Example]) -> Iterator[TaskFinding]:
    """Yields an error for each reward that does not pay every perfect completion in full."""
    golds = [(gold_completion_of(task, example), example) for example in examples]
    for reward in _merits(rewards):
        unpaid = [(gold, e) for gold, e in golds if not _is_full(score_with(reward, gold, e), reward)]
        if unpaid:
            gold, example = unpaid[0]
            paid = score_with(reward, gold, example)
            yield TaskFinding(
                "error",
                f"{reward.name} pays {paid} instead of {reward.high:g} for {len(unpaid)} of {len(golds)} gold answers, "
                f"such as {example.answer!r:.60} of {example.id!r}, completed as {gold[-80:]!r}",
                "Choose task.prompt and rewards that ask for the same form, or fix the answers.",
            )


def _is_full(score: float | None, reward: Reward) -> bool:
    # The range of a user's plain function is not known.
    return score is None or reward.high == math.inf or score >= reward.high - _TOLERANCE


def check_spoiled(task: Task, rewards: RewardSet, examples: Sequence[Example]) -> Iterator[TaskFinding]:
    """Yields an error for each way to spoil a perfect completion that costs nothing."""
    merits = _merits(rewards)
    golds = {example.id: gold_completion_of(task, example) for example in examples}
    paid = [e for e in examples if all(_is_full(score_with(r, golds[e.id], e), r) for r in merits)]
    spoils: dict[str, tuple[Callable[[Example], str | None], float]] = {
        "an empty completion": (lambda example: "", 0.0),
        "the answer to another question": (_shuffled(examples, golds), TOLERATED_SHARE),
        "a completion that is cut off": (lambda example: cut_off(golds[example.id]), _LUCKY_SHARE),
    }

    def total(completion: str, example: Example) -> float:
        return sum(score_with(reward, completion, example) or 0.0 for reward in merits)

    for name, (spoil, tolerated) in spoils.items() if merits else ():
        spoiled = [(example, text) for example in paid if (text := spoil(example)) is not None]
        equal = [e for e, text in spoiled if total(text, e) >= total(golds[e.id], e) - _TOLERANCE]
        if len(equal) > tolerated * len(spoiled):
            share = f"for {len(equal)} of {len(spoiled)} examples, such as {equal[0].id!r}"
            what = f"{name} earns as much as a perfect one {share}"
            yield TaskFinding("error", what, "Pay a reward that reads answers.")


def _merits(rewards: RewardSet) -> list[Reward]:
    """Returns the rewards that a perfect completion earns the most of, and that need no model."""
    pairs = zip(rewards.rewards, rewards.weights, strict=True)
    return [reward for reward, weight in pairs if reward.kind == "merit" and weight > 0]


def _shuffled(examples: Sequence[Example], golds: dict[str, str]) -> Callable[[Example], str | None]:
    """Returns a function from an example to the perfect completion of the next one with another answer."""
    number = {example.id: n for n, example in enumerate(examples)}

    def spoil(example: Example) -> str | None:
        start = number[example.id] + 1
        others = (examples[(start + step) % len(examples)] for step in range(_MOST_TRIED))
        return next((golds[e.id] for e in others if not equal_answers(e.answer, example.answer)), None)

    return spoil


def cut_off(completion: str) -> str:
    """Returns a completion that ends halfway through the text after its thoughts."""
    thoughts, close, visible = completion.rpartition("</think>")
    return thoughts + close + visible[: len(visible) // 2]


def _check_duplicates(examples: Sequence[Example], split: Split) -> Iterator[TaskFinding]:
    """Yields a finding for questions that occur more than once, and for those with different answers."""
    first: dict[str, Example] = {}
    twins = [(twin, e) for e in examples if (twin := first.setdefault(_normalized(e), e)) is not e]
    conflicts = [(a, b) for a, b in twins if a.answer != b.answer and not equal_answers(b.answer, a.answer)]
    for found, pairs in (("occur twice", twins), ("occur twice with different answers", conflicts)):
        if pairs:
            pair = f"such as {pairs[0][0].id!r} and {pairs[0][1].id!r}"
            what = f"{len(pairs)} of {len(examples)} {split} questions {found}, {pair}"
            yield TaskFinding(level_of(len(pairs), len(examples)), what, "Leave one out.")


def _check_leaks(train: Sequence[Example], test: Sequence[Example]) -> Iterator[TaskFinding]:
    """Yields an error for held-out questions that are in the training split."""
    trained = {_normalized(example): example.id for example in train}
    leaks = [(example.id, trained[words]) for example in test if (words := _normalized(example)) in trained]
    if leaks:
        pair = f"such as {leaks[0][0]!r}, which is {leaks[0][1]!r}"
        what = f"{len(leaks)} of {len(test)} held-out questions are among the training questions, {pair}"
        yield TaskFinding("error", what, "Take them out of one of the splits.")


def _normalized(example: Example) -> str:
    """Returns a question without differences in spaces and capitals."""
    return " ".join(example.question.casefold().split())


def check_left_out(task: Task) -> Iterator[TaskFinding]:
    """Yields a note for each split that has rows which cannot be used, and are few enough to be left out."""
    for split in ("train", "test"):
        problems: list[str] = task.left_out(split) if hasattr(task, "left_out") else []
        if problems:
            rows = f"{len(problems)} {split} rows cannot be used and are" if problems[1:] else f"one {split} row is"
            what = f"{rows} left out: {problems[0]}"
            yield TaskFinding("note", what.rstrip("."), "Nothing, while they are few.")
