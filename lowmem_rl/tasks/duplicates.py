"""Questions that occur twice: in one split, with different answers, or worst of all in both splits."""

from collections.abc import Iterator, Sequence

from lowmem_rl.example import Example
from lowmem_rl.tasks.task import Split
from lowmem_rl.tasks.task_finding import TaskFinding, level_of
from lowmem_rl.verify.equal import equal_answers


def check_duplicates(examples: Sequence[Example], split: Split) -> Iterator[TaskFinding]:
    """Yields a finding for questions that occur more than once, and for those with different answers."""
    first: dict[str, Example] = {}
    twins = [(twin, e) for e in examples if (twin := first.setdefault(_words(e), e)) is not e]
    conflicts = [(a, b) for a, b in twins if a.answer != b.answer and not equal_answers(b.answer, a.answer)]
    for found, pairs in (("occur twice", twins), ("occur twice with different answers", conflicts)):
        if pairs:
            pair = f"such as {pairs[0][0].id!r} and {pairs[0][1].id!r}"
            what = f"{len(pairs)} of {len(examples)} {split} questions {found}, {pair}"
            yield TaskFinding(level_of(len(pairs), len(examples)), what, "Leave one out.")


def check_leaks(train: Sequence[Example], test: Sequence[Example]) -> Iterator[TaskFinding]:
    """Yields an error for held-out questions that are in the training split."""
    trained = {_words(example): example.id for example in train}
    leaks = [(example.id, trained[words]) for example in test if (words := _words(example)) in trained]
    if leaks:
        pair = f"such as {leaks[0][0]!r}, which is {leaks[0][1]!r}"
        what = f"{len(leaks)} of {len(test)} held-out questions are among the training questions, {pair}"
        yield TaskFinding("error", what, "Take them out of one of the splits.")


def _words(example: Example) -> str:
    """Returns a question without differences in spaces and capitals."""
    return " ".join(example.question.casefold().split())
