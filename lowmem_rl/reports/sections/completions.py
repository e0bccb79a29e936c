"""Completions worth reading: of the same prompts over time, and the best and the worst."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from lowmem_rl.reports.escape import marked, one_line, shown
from lowmem_rl.reports.run_record import LENIENT, STRICT, EvalRecord, RunRecord
from lowmem_rl.storage.run_dir import Row
from lowmem_rl.storage.run_reader import is_number, part

_MOST_EVALUATIONS = 5
_OF_A_KIND = 3
"""Best and worst completions that are shown."""
_CHANGES = {
    (False, True): ("became right", 2),
    (True, False): ("became wrong", 2),
    (False, False): ("stayed wrong", 1),
    (True, True): ("stayed right", 1),
}
"""Changes from the first to the last evaluation (right then, right now), and how many prompts of each are shown."""


@dataclass(frozen=True, slots=True)
class ShownCompletion:
    """A completion and its facts; `pieces` are its text, each with whether it is marked."""

    about: str
    pieces: tuple[tuple[bool, str], ...]
    scores: tuple[tuple[str, str], ...]
    prompt: str = ""
    answer: str = ""


@dataclass(frozen=True, slots=True)
class FixedPrompt:
    """One held-out prompt with its completions at several steps."""

    title: str
    answer: str
    change: str
    completions: tuple[ShownCompletion, ...]


def fixed_prompts(record: RunRecord) -> list[FixedPrompt]:
    """Returns held-out prompts that changed, and some that did not; none unless two evaluations have rows."""
    evaluations = _spread([evaluation for evaluation in record.evaluations if evaluation.items])
    if len(evaluations) < 2:
        return []
    rows = [(evaluation, {row["example_id"]: row for row in evaluation.items}) for evaluation in evaluations]
    first, last = rows[0][1], rows[-1][1]
    found = []
    for change, (name, most) in _CHANGES.items():
        keys = [key for key in first if key in last and (first[key][LENIENT], last[key][LENIENT]) == change]
        over_time = ([(one.step, items[key]) for one, items in rows if key in items] for key in keys[:most])
        found += [_over_time(steps, name) for steps in over_time]
    return found


def best_and_worst(record: RunRecord) -> tuple[int, list[ShownCompletion], list[ShownCompletion]]:
    """Returns the last step with samples, and its completions with the highest and with the lowest reward."""
    step = max((row["step"] for row in record.samples), default=0)
    ranked = sorted((row for row in record.samples if row["step"] == step), key=lambda row: row["reward"], reverse=True)
    best = _of_different_prompts(ranked)
    already = {row["completion"] for row in best}
    worst = _of_different_prompts([row for row in reversed(ranked) if row["completion"] not in already])
    return step, [_sample(row) for row in best], [_sample(row) for row in worst]


def scores_text(row: Row) -> tuple[tuple[str, str], ...]:
    """Returns name and value of each score of a row."""
    return tuple(
        (
            one_line(name, 40),
            "skipped" if score is None else f"{score:g}" if is_number(score) else one_line(score, 20),
        )
        for name, score in part(row, "scores").items()
    )


def _spread(evaluations: Sequence[EvalRecord]) -> list[EvalRecord]:
    """Returns the first, the last and evenly spaced ones between."""
    last = len(evaluations) - 1
    if last < _MOST_EVALUATIONS:
        return list(evaluations)
    return [evaluations[round(index * last / (_MOST_EVALUATIONS - 1))] for index in range(_MOST_EVALUATIONS)]


def _over_time(rows: Sequence[tuple[int, Row]], change: str) -> FixedPrompt:
    """Returns one item at several steps; the same completion at neighbouring steps is shown once."""
    completions, earlier = [], None
    for _, group in groupby(rows, key=lambda one: one[1].get("completion")):
        same = list(group)
        row = same[0][1]
        text = shown(row.get("completion") or "")
        pieces = ((False, text),) if earlier is None else tuple(marked(earlier, text))
        about = _about_item([step for step, _ in same], row)
        completions.append(ShownCompletion(about, pieces, scores_text(row)))
        earlier = text
    first = rows[0][1]
    title = shown(first.get("prompt") or first["example_id"])
    return FixedPrompt(title, one_line(first.get("answer") or ""), change, tuple(completions))


def _about_item(steps: Sequence[int], row: Row) -> str:
    form = "" if row[STRICT] or not row[LENIENT] else ", not in the requested format"
    when = f"step {steps[0]}" if len(steps) == 1 else f"steps {', '.join(map(str, steps))}: the same"
    return " · ".join([when, f"{'right' if row[LENIENT] else 'wrong'}{form}", *_size(row)])


def _of_different_prompts(rows: Sequence[Row]) -> list[Row]:
    """Returns the first rows with different prompts and completions."""
    found: dict[object, Row] = {}
    for row in rows:
        prompt = str(row.get("example_id") or row.get("prompt"))
        if prompt not in found and all(row["completion"] != one["completion"] for one in found.values()):
            found[prompt] = row
    return list(found.values())[:_OF_A_KIND]


def _sample(row: Row) -> ShownCompletion:
    about = " · ".join([f"reward {row['reward']:g}", *_size(row)])
    prompt, answer = shown(row.get("prompt") or "", 1000), one_line(row.get("answer") or "")
    return ShownCompletion(about, ((False, shown(row["completion"])),), scores_text(row), prompt, answer)


def _size(row: Row) -> list[str]:
    tokens = [f"{row['tokens']} tokens"] if is_number(row.get("tokens")) else []
    return [*tokens, "cut off"] if row.get("truncated") else tokens
