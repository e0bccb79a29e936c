"""Scores a file of completions, one JSON object a line, without a model."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example, Message
from lowmem_rl.rewards.reward import Reward, score_with

LONGEST_LINE = 10_000_000
"""Characters; a longer line is no completion, and is never held whole."""

_ONE_A_LINE = 'One object a line: {"answer": "42", "completion": "..."}.'


def score_lines(lines: Iterable[str], reward: Reward, name: str) -> Iterator[dict[str, Any]]:
    """Yields each row with its `score`; `name` is what messages call the file.

    Raises `TaskError` for a row that is none and `RewardError` for a reward that fails, with the line number.
    """
    for number, line in enumerate(lines, start=1):
        if line.strip():
            where = f"{name} line {number}"
            row = _row(line, where)
            yield row | {"score": score_with(reward, row["completion"], _example(row, where))}


def read_lines(file: Any) -> Iterator[str]:
    """Yields an open file's lines, cut off just behind `LONGEST_LINE` characters. Raises `TaskError` for no text."""
    try:
        while line := file.readline(LONGEST_LINE + 1):
            yield line
    except UnicodeDecodeError as error:
        raise TaskError(f"{file.name} is no text: {error}.", hint="Save it as UTF-8.") from error


def _row(line: str, where: str) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise TaskError(f"{where} has more than {LONGEST_LINE} characters.", hint=_ONE_A_LINE)
    try:
        row = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{where} is not JSON: {error}.", hint=_ONE_A_LINE) from error
    if not isinstance(row, dict):
        raise TaskError(f"{where} holds {type(row).__name__}, not an object.", hint=_ONE_A_LINE)
    for column in ("answer", "completion"):
        if column not in row:
            raise TaskError(f"{where} has no {column!r}; it has {', '.join(row) or 'nothing'}.", hint=_ONE_A_LINE)
        if not isinstance(row[column], str):
            raise TaskError(f"{where}: {column!r} is {type(row[column]).__name__}, not text.", hint=_ONE_A_LINE)
    if not row["answer"].strip():
        raise TaskError(f"{where}: 'answer' is empty.", hint="An empty answer is never paid: leave the row out.")
    return row


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON number")


def _example(row: Mapping[str, Any], where: str) -> Example:
    """Returns the row as an example: its other fields, and those in its `extra`, are what a task would give."""
    extra = row.get("extra")
    return Example(where, _prompt(row), row["answer"], extra={**row, **(extra if isinstance(extra, dict) else {})})


def _prompt(row: Mapping[str, Any]) -> tuple[Message, ...]:
    asked = next((row[key] for key in ("prompt", "question", "problem") if isinstance(row.get(key), str)), "")
    return ({"role": "user", "content": asked},)
