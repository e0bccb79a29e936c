"""Selects sampled completions."""

import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lowmem_rl.errors import ConfigError
from lowmem_rl.reports.run_record import RunRecord
from lowmem_rl.storage.run_dir import Row
from lowmem_rl.storage.run_reader import is_number

_REWARD = "reward"
"""The weighted total, where a score can be named."""
_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
}
_CONDITION = re.compile(r"(?P<name>[^<>=]+?)\s*(?P<sign><=|>=|=|<|>)\s*(?P<limit>[-+\d.eE]+)")
_STEPS = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+))?")


@dataclass(frozen=True, slots=True)
class Condition:
    """What a score must be, such as `boxed_answer<1`; a skipped score meets none."""

    name: str
    sign: str
    limit: float

    def holds(self, row: Row) -> bool:
        score = score_of(row, self.name)
        return is_number(score) and _SIGNS[self.sign](score, self.limit)


@dataclass(frozen=True, slots=True)
class SampleFilter:
    """What must hold for a completion to be shown."""

    conditions: tuple[Condition, ...] = ()
    steps: tuple[int, int] | None = None
    """The first and the last one."""
    truncated: bool | None = None

    def holds(self, row: Row) -> bool:
        in_steps = self.steps is None or self.steps[0] <= row["step"] <= self.steps[1]
        as_cut = self.truncated is None or bool(row.get("truncated")) == self.truncated
        return in_steps and as_cut and all(condition.holds(row) for condition in self.conditions)


def filter_samples(record: RunRecord, wanted: SampleFilter) -> list[Row]:
    """Returns the samples that match, the latest step first. Raises `ConfigError` for a score that none has."""
    names = {_REWARD, *(name for row in record.samples for name in row.get("scores") or {})}
    for condition in wanted.conditions:
        if record.samples and condition.name not in names:
            raise ConfigError(
                f"--score {condition.name}: no sample has such a score.", hint=f"There are {', '.join(sorted(names))}."
            )
    return sorted(filter(wanted.holds, record.samples), key=lambda row: -row["step"])


def best_and_worst_of_prompts(rows: Sequence[Row]) -> list[tuple[Row, Row]]:
    """Returns the completions with the highest and the lowest reward of each prompt at each step, if these differ."""
    groups: dict[tuple[int, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["step"], str(row.get("example_id"))), []).append(row)
    by_reward = operator.itemgetter(_REWARD)
    pairs = [(max(group, key=by_reward), min(group, key=by_reward)) for group in groups.values()]
    return [(best, worst) for best, worst in pairs if best[_REWARD] != worst[_REWARD]]


def score_of(row: Row, name: str) -> Any:
    """Returns a score of a sample, or its reward."""
    return row[_REWARD] if name == _REWARD else (row.get("scores") or {}).get(name)


def read_condition(text: str) -> Condition:
    """Reads `NAME<VALUE` and the like. Raises `ConfigError`."""
    found = _CONDITION.fullmatch(text.strip())
    try:
        if found:
            return Condition(found["name"], found["sign"], float(found["limit"]))
    except ValueError:
        pass
    raise ConfigError(
        f"--score {text!r} is not NAME, a sign and a number.", hint="Write --score 'boxed_answer<1' or 'reward>=1.2'."
    )


def read_steps(text: str) -> tuple[int, int]:
    """Reads a step or a range of steps. Raises `ConfigError`."""
    found = _STEPS.fullmatch(text.strip())
    if not found:
        raise ConfigError(f"--step {text!r} is neither a step nor a range.", hint="Write --step 40 or --step 10-40.")
    return int(found["first"]), int(found["last"] or found["first"])
