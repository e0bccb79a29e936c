"""Completions worth reading: one prompt's over time, and the best and the worst."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from lowmem_rl.reports.escape import marked, one_line, shown
from lowmem_rl.reports.run_record import LENIENT, STRICT, EvalRecord, RunRecord
from lowmem_rl.storage.run_dir import Row
from lowmem_rl.storage.run_reader import is_number

MOST_EVALUATIONS = 5
OF_A_KIND = 3
"""Best and worst completions that are shown."""
CHANGES = {(False, True): 2, (True, False): 2, (False, False): 1, (True, True): 1}
"""How many prompts are shown of each change from the first to the last evaluation (right then, right now)."""


@dataclass(frozen=True, slots=True)
class ShownCompletion:
    """A completion with what is known of it; `pieces` are its text, each with whether it is marked."""

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
    both = [key for key in first if key in last]
    found = []
    for change, most in CHANGES.items():
        keys = [key for key in both if (bool(first[key][LENIENT]), bool(last[key][LENIENT])) == change]
        found += [_over_time(key, rows, change) for key in keys[:most]]
    return found


def best_and_worst(record: RunRecord) -> tuple[int, list[ShownCompletion], list[ShownCompletion]]:
    """Returns the last step with samples, and its completions with the highest and with the lowest reward."""
    step = max((row["step"] for row in record.samples), default=0)
    ranked = sorted((row for row in record.samples if row["step"] == step), key=lambda row: row["reward"], reverse=True)
    best = _of_different_prompts(ranked)
    shown_already = {row["completion"] for row in best}
    worst = _of_different_prompts([row for row in reversed(ranked) if row["completion"] not in shown_already])
    return step, [_sample(row) for row in best], [_sample(row) for row in worst]


def _of_different_prompts(rows: Sequence[Row]) -> list[Row]:
    """Returns the first rows, one of a prompt and of a completion each."""
    found: list[Row] = []
    for row in rows:
        if not any(row["completion"] == one["completion"] or _prompt(row) == _prompt(one) for one in found):
            found.append(row)
        if len(found) == OF_A_KIND:
            break
    return found


def _prompt(row: Row) -> object:
    return row.get("example_id") or row.get("prompt")


def scores_text(row: Row) -> tuple[tuple[str, str], ...]:
    """Returns name and value of each score of a row."""
    scores = row.get("scores")
    pairs = scores.items() if isinstance(scores, dict) else ()
    return tuple((one_line(name, 40), _score_text(score)) for name, score in pairs)


def _score_text(score: object) -> str:
    return "skipped" if score is None else f"{score:g}" if is_number(score) else one_line(score, 20)


def _over_time(
    key: str, evaluations: Sequence[tuple[EvalRecord, dict[str, Row]]], change: tuple[bool, bool]
) -> FixedPrompt:
    present = [(evaluation, rows[key]) for evaluation, rows in evaluations if key in rows]
    completions, earlier = [], None
    for same in _runs_of_equal(present):
        row = same[0][1]
        text = shown(row.get("completion") or "")
        pieces = ((False, text),) if earlier is None else tuple(marked(earlier, text))
        completions.append(
            ShownCompletion(_about_item([evaluation.step for evaluation, _ in same], row), pieces, scores_text(row))
        )
        earlier = text
    first = present[0][1]
    title = shown(first.get("prompt") or key)
    return FixedPrompt(title, one_line(first.get("answer") or ""), _change_text(*change), tuple(completions))


def _runs_of_equal(present: Sequence[tuple[EvalRecord, Row]]) -> list[list[tuple[EvalRecord, Row]]]:
    """Returns neighbours together that say the same."""
    return [list(same) for _, same in groupby(present, key=lambda one: one[1].get("completion"))]


def _change_text(was_right: bool, is_right: bool) -> str:
    if was_right == is_right:
        return "stayed right" if is_right else "stayed wrong"
    return "became right" if is_right else "became wrong"


def _about_item(steps: Sequence[int], row: Row) -> str:
    form = "" if row[STRICT] or not row[LENIENT] else ", not in the asked form"
    right = f"{'right' if row[LENIENT] else 'wrong'}{form}"
    when = f"step {steps[0]}" if len(steps) == 1 else f"steps {', '.join(map(str, steps))}: the same"
    return " · ".join([when, right, *_size(row)])


def _sample(row: Row) -> ShownCompletion:
    about = " · ".join([f"reward {row['reward']:g}", *_size(row)])
    prompt, answer = shown(row.get("prompt") or "", 1000), one_line(row.get("answer") or "")
    return ShownCompletion(about, ((False, shown(row["completion"])),), scores_text(row), prompt, answer)


def _size(row: Row) -> list[str]:
    tokens = [f"{row['tokens']} tokens"] if is_number(row.get("tokens")) else []
    return [*tokens, "cut off"] if row.get("truncated") else tokens


def _spread(evaluations: Sequence[EvalRecord]) -> list[EvalRecord]:
    """Returns the first, the last and evenly spaced ones between."""
    last = len(evaluations) - 1
    if last < MOST_EVALUATIONS:
        return list(evaluations)
    return [evaluations[round(index * last / (MOST_EVALUATIONS - 1))] for index in range(MOST_EVALUATIONS)]
