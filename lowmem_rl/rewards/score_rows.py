"""Scores completions in rows, such as those of a file, without a model.

A row that cannot be scored costs only itself.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from lowmem_rl.errors import RewardError, TaskError
from lowmem_rl.example import Example, Message
from lowmem_rl.rewards.model_reward import ModelReward
from lowmem_rl.rewards.reward import Reward, RewardFailed, Rollout, try_all
from lowmem_rl.verify import late_verdicts

_LONGEST_LINE = 10_000_000
"""Characters; a longer line is not a completion and is never read as a whole."""
_BATCH = 16
"""Rows for one call of a reward that takes several: after that many, results are shown."""
_MOST_HANGS = 3
"""Rows that took too long, after which the others are not tried."""

_ONE_PER_LINE = 'One object per line: {"answer": "42", "completion": "..."}.'
_ANSWERS = (
    *("answer", "ground_truth", "reward_model.ground_truth", "final_answer", "expected_answer", "gold", "target"),
    *("answers", "label", "solution"),
)
_COMPLETIONS = (
    *("completion", "response", "output", "generation", "solution_str", "prediction", "text"),
    *("completions", "responses", "outputs", "generations"),
)
_QUESTIONS = ("prompt", "question", "problem")

Record = tuple[str, Mapping[str, Any] | TaskError]
"""A row's place, for messages, and its values or why it could not be read."""


@dataclass(frozen=True, slots=True)
class _Row:
    values: Mapping[str, Any]
    completion: str
    example: Example


def score_records(
    records: Iterable[Record],
    reward: Reward,
    on_failure: Callable[[TaskError], None],
    read_gold: Callable[[str], str] = str,
) -> Iterator[dict[str, Any]]:
    """Yields each row with its `score`, and `late` if a verdict took too long and counted as wrong.

    Why a row cannot be read or scored goes to `on_failure`; `read_gold` takes an answer out of a worked solution.

    Raises `RewardError` for a reward that needs a model, and for one that hangs on several rows.
    """
    if isinstance(reward, ModelReward):
        what = f"Reward {reward.name!r} needs the model, and none is loaded."
        raise RewardError(what, hint="It scores in `lowmem-rl train`; use a reward that needs only the text.")
    rows, hangs = _rows(records, on_failure, read_gold), 0
    while batch := list(islice(rows, _BATCH if reward.score_batch else 1)):
        late_before = late_verdicts()
        rollout = Rollout([row.completion for row in batch], [row.example for row in batch])
        scores = try_all(reward, rollout)
        late = {"late": True} if late_verdicts() > late_before else {}
        for row, score in zip(batch, scores, strict=True):
            if isinstance(score, RewardFailed):
                on_failure(score)
                hangs += score.fault == "hangs"
            else:
                yield {**row.values, "score": score, **late}
        if hangs >= _MOST_HANGS:
            what = f"Reward {reward.name!r} hangs on {hangs} rows; the others are not tried."
            raise RewardError(what, hint="Bound its work, or allow it more time with --timeout.")


def read_lines(file: Any) -> Iterator[str]:
    """Yields a file's lines, cut one past `_LONGEST_LINE` characters. Raises `TaskError` if it is not UTF-8."""
    try:
        while line := file.readline(_LONGEST_LINE + 1):
            yield line
    except UnicodeDecodeError as error:
        raise TaskError(f"{file.name} is not text: {error}.", hint="Save it as UTF-8.") from error


def parse_lines(lines: Iterable[str], name: str) -> Iterator[Record]:
    """Yields the rows of JSON Lines; `name` is the file's in messages."""
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{name} line {number}"
            try:
                yield where, _object(line, where)
            except TaskError as error:
                yield where, error


def _object(line: str, where: str) -> Mapping[str, Any]:
    if len(line) > _LONGEST_LINE:
        raise TaskError(f"{where} has more than {_LONGEST_LINE} characters.", hint=_ONE_PER_LINE)
    try:
        row = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{where} is not JSON: {error}.", hint=_ONE_PER_LINE) from error
    if not isinstance(row, dict):
        raise TaskError(f"{where} holds {type(row).__name__}, not an object.", hint=_ONE_PER_LINE)
    return row


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _rows(
    records: Iterable[Record], on_failure: Callable[[TaskError], None], read_gold: Callable[[str], str]
) -> Iterator[_Row]:
    for where, values in records:
        try:
            if isinstance(values, TaskError):
                raise values
            yield _row(values, where, read_gold)
        except TaskError as error:
            on_failure(error)


def _row(values: Mapping[str, Any], where: str, read_gold: Callable[[str], str]) -> _Row:
    """Returns a row as completion and example; its other fields, and those in its `extra`, are the example's extra."""
    completion = _completion(*_first(values, _COMPLETIONS, where), where)
    golds = tuple(map(read_gold, _answers(*_first(values, _ANSWERS, where), where)))
    extra = values.get("extra")
    more = {"accepted_answers": golds} if len(golds) > 1 else {}
    extra = {**values, **(extra if isinstance(extra, dict) else {}), **more}
    return _Row(values, completion, Example(where, _prompt(values), golds[0], extra=extra))


def _first(values: Mapping[str, Any], columns: tuple[str, ...], where: str) -> tuple[str, Any]:
    """Returns the first of the columns that a row has; a dot leads into a value."""
    for column in columns:
        head, _, member = column.partition(".")
        value = values.get(head)
        if member and isinstance(value, Mapping) and member in value:
            return column, value[member]
        if not member and head in values:
            return column, value
    has = ", ".join(values) or "nothing"
    raise TaskError(f"{where} has no {columns[0]!r}; it has {has}.", hint=_ONE_PER_LINE)


def _completion(column: str, value: Any, where: str) -> str:
    """Returns a completion from a text, or from messages as TRL has them: the content of the last one."""
    if isinstance(value, list) and value:
        last = value[-1]
        value = last.get("content") if isinstance(last, dict) else last if len(value) == 1 else value
    if not isinstance(value, str):
        raise TaskError(f"{where}: {column!r} is {type(value).__name__}, not text.", hint=_ONE_PER_LINE)
    return value


def _answers(column: str, value: Any, where: str) -> tuple[str, ...]:
    """Returns the gold answer, or those of a list, of which any is right: 27.0 is `27`."""
    golds = []
    for one in value if isinstance(value, list | tuple) and value else [value]:
        if isinstance(one, int | float) and not isinstance(one, bool) and math.isfinite(one):
            golds.append(str(int(one)) if one == int(one) else repr(one))
        elif not isinstance(one, str):
            raise TaskError(f"{where}: {column!r} is {type(one).__name__}, not text.", hint=_ONE_PER_LINE)
        elif not one.strip():
            raise TaskError(f"{where}: {column!r} is empty.", hint="An empty answer is never paid: leave the row out.")
        else:
            golds.append(one)
    return tuple(golds)


def _prompt(values: Mapping[str, Any]) -> tuple[Message, ...]:
    asked = next((values[name] for name in _QUESTIONS if isinstance(values.get(name), str | list)), "")
    if isinstance(asked, str):
        return ({"role": "user", "content": asked},)
    turns = [turn for turn in asked if isinstance(turn, dict)]
    return tuple({"role": str(turn.get("role", "user")), "content": str(turn.get("content", ""))} for turn in turns)
