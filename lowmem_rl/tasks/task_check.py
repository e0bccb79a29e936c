"""Is a task fit to be learnt: found out from its examples and rewards alone, before a model is loaded.

Its perfect completions must earn the most that the rewards pay, spoiled ones less; prompts must keep the
limit; no question may stand twice, least of all in both splits. Whether a reward is sound in itself is
`rewards/check.py`'s business.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from lowmem_rl.example import Example
from lowmem_rl.rewards.isolated import isolated
from lowmem_rl.rewards.reward import Reward, RewardSet, score_with
from lowmem_rl.rewards.reward_registry import REWARDS
from lowmem_rl.tasks.duplicates import check_duplicates, check_leaks
from lowmem_rl.tasks.lengths import CountTokens, PromptLengths, check_lengths, measure_lengths
from lowmem_rl.tasks.select import draw_examples, gold_completion_of
from lowmem_rl.tasks.task import Selection, Split, Task
from lowmem_rl.tasks.task_finding import TOLERATED_SHARE, TaskFinding
from lowmem_rl.verify.equal import equal_answers

MOST_EXAMPLES = 1_000_000
"""Of one split that are looked at."""
LUCKY_SHARE = 0.05
"""Of cut-off completions that may be paid in full: a lenient reading can find the answer in half of the work."""
CLOSE_TO = 1e-6


@dataclass(frozen=True, slots=True)
class TaskReport:
    """What was looked at, and what was found."""

    task: str
    examples: dict[Split, int]
    golds: int
    """Perfect completions that were scored."""
    rewards: tuple[str, ...]
    levels: dict[int, int]
    """Training examples of each level."""
    commonest_answer: tuple[str, float]
    """What a model would answer that knows nothing, and how often it would be right on the held-out examples."""
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
    """How much is looked at, and how long a prompt may be."""

    golds: int = 1000
    max_prompt_tokens: int = 512
    levels: tuple[int, ...] = ()
    seed: int = 0


def check_task(
    task: Task, rewards: RewardSet, limits: CheckLimits, count_tokens: CountTokens, *, exact: bool = False
) -> TaskReport:
    """Returns what is found. Raises `TaskError` or `SetupError` for data that cannot even be read."""
    train, test = (_drawn(task, split, limits) for split in ("train", "test"))
    lengths = measure_lengths([*train, *test], limits.max_prompt_tokens, count_tokens, exact=exact)
    found = [
        *check_examples(task, rewards, train, test, limits.golds),
        *check_lengths(lengths, len(train) + len(test)),
        *_left_out(task),
    ]
    return TaskReport(
        task=getattr(task, "name", type(task).__name__),
        examples={"train": len(train), "test": len(test)},
        golds=len(_spread(train, limits.golds)) + len(_spread(test, limits.golds)),
        rewards=tuple(reward.name for reward in rewards.rewards),
        levels=dict(sorted(Counter(e.level for e in train if e.level is not None).items())),
        commonest_answer=_commonest(test),
        lengths=lengths,
        findings=tuple(found),
    )


def check_examples(
    task: Task, rewards: RewardSet, train: Sequence[Example], test: Sequence[Example], golds: int
) -> list[TaskFinding]:
    """Returns what is found in examples that are already drawn; of each split up to `golds` are scored."""
    sample = [*_spread(train, golds), *_spread(test, golds)]
    with isolated(rewards) as tried:
        scored = [*check_golds(task, tried, sample), *check_spoiled(task, tried, sample)]
    return [
        *check_splits(train, test),
        *check_variety(train),
        *check_answer_rewards(task, rewards),
        *scored,
        *check_duplicates(train, "train"),
        *check_duplicates(test, "test"),
        *check_leaks(train, test),
    ]


def _drawn(task: Task, split: Split, limits: CheckLimits) -> list[Example]:
    """Returns all examples of a split; of a task that makes its own, as many as are scored."""
    most = MOST_EXAMPLES if getattr(task, "has_data", False) else limits.golds
    return draw_examples(task, Selection(split, None, limits.levels, limits.seed), most)


def _spread(examples: Sequence[Example], most: int) -> list[Example]:
    """Returns up to `most` examples from all over the list."""
    return list(islice(examples, 0, None, max(1, math.ceil(len(examples) / most))))


def check_splits(train: Sequence[Example], test: Sequence[Example]) -> Iterator[TaskFinding]:
    """Yields an error for a split without examples."""
    for split, examples in (("train", train), ("test", test)):
        if not examples:
            yield TaskFinding(
                "error",
                f"there are no {split} examples",
                "Choose other levels, or give more data: a file of held-out rows, or a longer one.",
            )


def check_variety(examples: Sequence[Example]) -> Iterator[TaskFinding]:
    """Yields an error where every answer is the same: it is learnt without reading the question."""
    if len(examples) > 1 and len({example.answer for example in examples}) == 1:
        what = f"each of {len(examples)} train answers is {examples[0].answer!r:.60}"
        yield TaskFinding("error", what, "Name the column that holds the answers, or choose other rows.")


def check_answer_rewards(task: Task, rewards: RewardSet) -> Iterator[TaskFinding]:
    """Yields an error where none of the rewards is one that judges this task's answers."""
    judges: Sequence[str] = getattr(task, "rewards", ())
    used = {reward.name for reward in rewards.rewards}
    if judges and used <= REWARDS.keys() and not used & set(judges):  # a user's own reward may do it
        what = f"none of the rewards judges the answers: {', '.join(sorted(used)) or 'none'}"
        yield TaskFinding("error", what, f"Pay {' or '.join(judges)}: --reward {judges[0]}=1")


def check_golds(task: Task, rewards: RewardSet, examples: Sequence[Example]) -> Iterator[TaskFinding]:
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
                "Choose task.prompt and rewards that ask for the same form, or mend the answers.",
            )


def _is_full(score: float | None, reward: Reward) -> bool:
    # Of a user's plain function the range is not known.
    return score is None or reward.high == math.inf or score >= reward.high - CLOSE_TO


def check_spoiled(task: Task, rewards: RewardSet, examples: Sequence[Example]) -> Iterator[TaskFinding]:
    """Yields an error for each way to spoil a perfect completion that costs nothing."""
    merits = _merits(rewards)
    golds = {example.id: gold_completion_of(task, example) for example in examples}
    paid = [e for e in examples if all(_is_full(score_with(r, golds[e.id], e), r) for r in merits)]
    spoils: dict[str, tuple[Callable[[Example], str | None], float]] = {
        "an empty completion": (lambda example: "", 0.0),
        "the answer to another question": (_shuffled(examples, golds), TOLERATED_SHARE),
        "a completion that is cut off": (lambda example: cut_off(golds[example.id]), LUCKY_SHARE),
    }
    for name, (spoil, tolerated) in spoils.items() if merits else ():
        spoiled = [(example, text) for example in paid if (text := spoil(example)) is not None]
        equal = [e for e, text in spoiled if _total(merits, text, e) >= _total(merits, golds[e.id], e) - CLOSE_TO]
        if len(equal) > tolerated * len(spoiled):
            share = f"for {len(equal)} of {len(spoiled)} examples, such as {equal[0].id!r}"
            yield TaskFinding(
                "error", f"{name} earns as much as a perfect one {share}", "Pay a reward that reads answers."
            )


def _merits(rewards: RewardSet) -> list[Reward]:
    """Returns the rewards that a perfect completion earns the most of, and that need no model."""
    pairs = zip(rewards.rewards, rewards.weights, strict=True)
    return [reward for reward, weight in pairs if reward.kind == "merit" and weight > 0]


def _total(rewards: Sequence[Reward], completion: str, example: Example) -> float:
    return sum(score_with(reward, completion, example) or 0.0 for reward in rewards)


def _shuffled(examples: Sequence[Example], golds: dict[str, str]) -> Callable[[Example], str | None]:
    """Returns what gives an example the perfect completion of the next one that has another answer."""
    number = {example.id: n for n, example in enumerate(examples)}

    def spoil(example: Example) -> str | None:
        start = number[example.id] + 1
        others = (examples[(start + step) % len(examples)] for step in range(MOST_TRIED))
        return next((golds[e.id] for e in others if not equal_answers(e.answer, example.answer)), None)

    return spoil


MOST_TRIED = 20
"""Neighbours among which an example with another answer is looked for."""


def cut_off(completion: str) -> str:
    """Returns a completion that ends halfway through what stands behind its thoughts."""
    thoughts, close, visible = completion.rpartition("</think>")
    return thoughts + close + visible[: len(visible) // 2]


def _left_out(task: Task) -> Iterator[TaskFinding]:
    for split in ("train", "test"):
        mistakes: list[str] = task.left_out(split) if hasattr(task, "left_out") else []
        if mistakes:
            what = f"{len(mistakes)} {split} rows cannot be used and are left out: {mistakes[0]}"
            yield TaskFinding("note", what.rstrip("."), "Nothing, while they are few.")


def _commonest(examples: Sequence[Example]) -> tuple[str, float]:
    counts = Counter(example.answer for example in examples)
    answer, times = counts.most_common(1)[0] if counts else ("", 0)
    return answer, times / max(1, len(examples))
