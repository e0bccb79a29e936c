"""`RunRecord`: what a run directory holds, all of it optional but the configuration."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from sys import float_info
from typing import Any, TypeGuard

from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.run_dir import Row, RunDir, read_json, read_rows

LENIENT, STRICT = "correct", "strict"
"""How an item is judged: the answer wherever it stands, or in the asked form."""
ITEM = {"example_id": str, LENIENT: bool, STRICT: bool}
"""What a row of an evaluation holds at least."""


@dataclass(frozen=True, slots=True)
class EvalRecord:
    """One evaluation: its entry in eval.json and its rows, which may be missing."""

    name: str
    result: Row
    items: tuple[Row, ...]

    @property
    def step(self) -> int:
        return int(self.result["step"])

    def shares(self, judged: str) -> dict[str, float]:
        """Returns for each item how much of its completions is right, by `LENIENT` or `STRICT`."""
        rows: dict[str, list[float]] = defaultdict(list)
        for row in self.items:
            rows[row["example_id"]].append(float(row[judged]))
        return {key: fmean(values) for key, values in rows.items()}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as its directory tells it: whole, half-written or cut short."""

    path: Path
    preset: str | None
    config: Row
    """Nested, as in config.json."""
    origins: Mapping[str, str]
    machine: Row
    estimate: Row
    peak_bytes: int | None
    peak: Row
    """peak.json: what each phase held, where it was measured."""
    health: Row
    """What the audit found; nothing before the run has ended."""
    metrics: tuple[Row, ...]
    """One row a step, in order; where a step was run again after a resume, its last row."""
    samples: tuple[Row, ...]
    evaluations: tuple[EvalRecord, ...]
    """In the order of their steps."""
    told: Row
    """eval.json, whole."""
    controls: Row
    """What short runs with other rewards say of the gain."""
    resumes: tuple[Row, ...]
    """One row each time that the run went on behind a checkpoint."""
    recoveries: tuple[Row, ...]
    """One row each time that memory ran out."""
    has_ended: bool
    """The audit is the last that a run writes, however it ends; one that is killed has none."""

    @property
    def name(self) -> str:
        return self.path.resolve().name

    @property
    def last_step(self) -> int:
        return int(self.metrics[-1]["step"]) if self.metrics else 0

    @property
    def planned_steps(self) -> int | None:
        steps = self.setting("grpo.steps")
        return steps if isinstance(steps, int) else None

    @property
    def is_finished(self) -> bool:
        return any(evaluation.name == "after" for evaluation in self.evaluations)

    @property
    def before(self) -> EvalRecord | None:
        return next((e for e in self.evaluations if e.name == "before"), None)

    @property
    def latest(self) -> EvalRecord | None:
        """The last evaluation behind a step of training."""
        return next((e for e in reversed(self.evaluations) if e.name != "before"), None)

    @property
    def best(self) -> EvalRecord | None:
        """The evaluation whose adapter is in `best`."""
        name = part(self.told, "best").get("name")
        return next((e for e in self.evaluations if e.name == name), None)

    def setting(self, key: str) -> Any:
        """Returns the value of a dotted key, None where the configuration lacks it."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def read_record(path: Path) -> RunRecord:
    """Reads a run directory. Raises `RunDirError` where it is none or a file in it is damaged."""
    run = RunDir(path)
    if not path.is_dir():
        raise RunDirError(f"{path} is no directory.", hint="`train` prints where a run is.")
    if not run.config.is_file():
        raise RunDirError(f"{path} is no run directory: it has no config.json.", hint="`train` prints where a run is.")
    resolved, peak, told, health = (_object(path) for path in (run.config, run.peak, run.evaluations, run.health))
    rows = {row["step"]: row for row in _rows(run.metrics, step=int)}
    metrics = tuple(sorted(rows.values(), key=lambda row: row["step"]))
    return RunRecord(
        path=path,
        preset=preset if isinstance(preset := resolved.get("preset"), str) else None,
        config=part(resolved, "config"),
        origins=part(resolved, "origins"),
        machine=_object(run.machine),
        estimate=_object(run.estimate),
        peak_bytes=_highest([peak, *metrics]),
        peak=peak,
        health=health,
        metrics=metrics,
        samples=tuple(_rows(run.samples, step=int, completion=str, reward=float)),
        evaluations=tuple(_evaluations(run, told)),
        told=told,
        controls=_object(run.controls),
        resumes=tuple(_rows(run.resumes, step=int)),
        recoveries=tuple(_rows(run.recoveries, step=int)),
        has_ended=bool(told.get("after")) or (bool(metrics) and health.get("step") == metrics[-1]["step"]),
    )


def is_number(value: object) -> TypeGuard[int | float]:
    """True for what can be drawn and added: no truth value, and neither NaN nor 400 digits, which Python reads."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= float_info.max


def _highest(rows: Iterable[Row]) -> int | None:
    """Returns the highest peak; a run that is cut short has written peak.json after its first step alone."""
    return max((int(row["peak_bytes"]) for row in rows if is_number(row.get("peak_bytes"))), default=None)


def part(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Returns the object under a key, empty where there is none: a file may be older, newer or damaged."""
    found = row.get(key)
    return found if isinstance(found, dict) else {}


def numbers(found: object) -> dict[str, float]:
    """Returns what in a table is a number."""
    return {key: value for key, value in found.items() if is_number(value)} if isinstance(found, dict) else {}


def rows_in(row: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Returns the tables of the list under a key."""
    found = row.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _evaluations(run: RunDir, told: Row) -> list[EvalRecord]:
    ends = {name: part(told, name) for name in ("before", "after")}
    during = [result for result in rows_in(told, "during") if isinstance(result.get("step"), int)]
    named = [("before", ends["before"]), *((f"step-{e['step']:06d}", e) for e in during), ("after", ends["after"])]
    return [
        EvalRecord(name, result, tuple(_rows(run.eval_items(name), **ITEM)))
        for name, result in named
        if is_number(result.get("step"))
    ]


def _object(path: Path) -> Row:
    """Returns what a whole file holds, nothing where the run did not come to write it. Raises `RunDirError`."""
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise RunDirError(f"{path} holds no JSON object.", hint="Remove it, or take the run's own file.")
    return content


def _rows(path: Path, **needed: type) -> list[Row]:
    """Returns the rows of a file. Raises `RunDirError` where one lacks what is needed, or has it in another form."""
    rows = list(read_rows(path))
    for number, row in enumerate(rows, 1):
        if not (isinstance(row, dict) and all(_is_a(kind, row.get(key)) for key, kind in needed.items())):
            raise RunDirError(f"{path}, line {number}, lacks {', '.join(needed)}.", hint="Remove that line.")
    return rows


def _is_a(kind: type, value: object) -> bool:
    return is_number(value) if kind is float else type(value) is kind
