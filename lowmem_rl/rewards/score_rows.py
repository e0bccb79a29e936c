"""Scores a file of completions, one JSON object a line, without a model."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import Reward, score_with

_LONGEST_LINE = 10_000_000
"""Characters; a longer line is not a completion and is never read as a whole."""

_ONE_PER_LINE = 'One object per line: {"answer": "42", "completion": "..."}.'


def score_lines(lines: Iterable[str], reward: Reward, name: str) -> Iterator[dict[str, Any]]:
    """Yields each row with its `score`; `name` is the file's name in messages.

    Raises `TaskError` for a bad row and `RewardError` for a reward that fails, with the line number.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{name} line {number}"
            row = _row(line, where)
            yield row | {"score": score_with(reward, row["completion"], _example(row, where))}


def read_lines(file: Any) -> Iterator[str]:
    """Yields a file's lines, cut one past `_LONGEST_LINE` characters. Raises `TaskError` if it is not UTF-8."""
    try:
        while line := file.readline(_LONGEST_LINE + 1):
            yield line
    except UnicodeDecodeError as error:
        raise TaskError(f"{file.name} is not text: {error}.", hint="Save it as UTF-8.") from error


def _row(line: str, where: str) -> dict[str, Any]:
    if len(line) > _LONGEST_LINE:
        raise TaskError(f"{where} has more than {_LONGEST_LINE} characters.", hint=_ONE_PER_LINE)
    try:
        row = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{where} is not JSON: {error}.", hint=_ONE_PER_LINE) from error
    if not isinstance(row, dict):
        raise TaskError(f"{where} holds {type(row).__name__}, not an object.", hint=_ONE_PER_LINE)
    for column in ("answer", "completion"):
        if column not in row:
            raise TaskError(f"{where} has no {column!r}; it has {', '.join(row) or 'nothing'}.", hint=_ONE_PER_LINE)
        if not isinstance(row[column], str):
            raise TaskError(f"{where}: {column!r} is {type(row[column]).__name__}, not text.", hint=_ONE_PER_LINE)
    if not row["answer"].strip():
        raise TaskError(f"{where}: 'answer' is empty.", hint="An empty answer is never paid: leave the row out.")
    return row


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a JSON number")


def _example(row: Mapping[str, Any], where: str) -> Example:
    """Returns the row as an example; its other fields, and those in its `extra`, are the example's extra."""
    asked = next((row[key] for key in ("prompt", "question", "problem") if isinstance(row.get(key), str)), "")
    extra = row.get("extra")
    extra = {**row, **(extra if isinstance(extra, dict) else {})}
    return Example(where, ({"role": "user", "content": asked},), row["answer"], extra=extra)
