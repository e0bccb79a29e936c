"""`RunRecord`: a run directory as the report shows it; everything but the configuration is optional."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from lowmem_rl.storage.run_dir import Row, RunDir
from lowmem_rl.storage.run_reader import Evaluations, RunReader, is_number, rows_in
from lowmem_rl.trainable.selection import LayerSelection

LENIENT, STRICT = "correct", "strict"
"""How an item is graded: the answer anywhere, or only in the requested format."""


@dataclass(frozen=True, slots=True)
class EvalRecord:
    """One evaluation: its entry in eval.json and its rows, which may be missing."""

    name: str
    result: Row
    items: tuple[Row, ...]

    @property
    def step(self) -> int:
        return int(self.result["step"])

    def shares(self, graded: str) -> dict[str, float]:
        """Returns for each item the share of its completions that is right, by `LENIENT` or `STRICT`."""
        rows: dict[str, list[float]] = defaultdict(list)
        for row in self.items:
            rows[row["example_id"]].append(float(row[graded]))
        return {key: fmean(values) for key, values in rows.items()}


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run, finished, running or killed."""

    path: Path
    preset: str | None
    config: Row
    """Nested, as in config.json."""
    origins: Mapping[str, str]
    machine: Row
    estimate: Row
    peak_bytes: int | None
    """The highest peak."""
    peak: Row
    """peak.json: what each phase held, if it was measured."""
    health: Row
    """What the audit found; empty until the run has ended."""
    metrics: tuple[Row, ...]
    """One row a step, in order."""
    samples: tuple[Row, ...]
    evaluations: tuple[EvalRecord, ...]
    """In the order of their steps."""
    eval_file: Evaluations
    controls: Row
    """What short runs with other rewards gained."""
    resumes: tuple[Row, ...]
    recoveries: tuple[Row, ...]
    lineage: tuple[Row, ...]
    """The stages before the run, oldest first."""
    selection: LayerSelection | None
    """The layers that learn, if the run has selected them."""
    has_ended: bool
    """The audit is the last file that a run writes, however it ends; a killed run has none."""

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
        """The last evaluation after a step of training."""
        return next((e for e in reversed(self.evaluations) if e.name != "before"), None)

    @property
    def best(self) -> EvalRecord | None:
        """The evaluation whose adapter is in `best`."""
        name = self.eval_file.best.get("name")
        return next((e for e in self.evaluations if e.name == name), None)

    def setting(self, key: str) -> Any:
        """Returns the value of a dotted key, None if the configuration lacks it."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return value


def read_record(path: Path) -> RunRecord:
    """Reads a run directory. Raises `RunDirError` if it is not one, or a file in it is damaged."""
    reader = RunReader(RunDir(path))
    metrics, found, health = reader.metrics, reader.evaluations, reader.health
    return RunRecord(
        path=path,
        preset=reader.preset,
        config=reader.config,
        origins=reader.origins,
        machine=reader.machine,
        estimate=reader.estimate,
        peak_bytes=reader.peak_bytes,
        peak=reader.peak,
        health=health,
        metrics=metrics,
        samples=reader.samples,
        evaluations=tuple(_eval_records(reader)),
        eval_file=found,
        controls=reader.controls,
        resumes=reader.resumes,
        recoveries=reader.recoveries,
        lineage=tuple(rows_in(reader.config_file, "lineage")),
        selection=_selection(reader),
        has_ended=bool(found.after) or (bool(metrics) and health.get("step") == metrics[-1]["step"]),
    )


def _selection(reader: RunReader) -> LayerSelection | None:
    if not any(row["step"] == 0 for row in reader.trainable):
        return None
    with reader.parsing(reader.run_dir.trainable, "does not hold a selection of layers"):
        return LayerSelection.from_row(next(row for row in reader.trainable if row["step"] == 0))


def _eval_records(reader: RunReader) -> Iterator[EvalRecord]:
    found = reader.evaluations
    during = [(f"step-{result['step']:06d}", result) for result in found.during]
    for name, result in [("before", found.before), *during, ("after", found.after)]:
        if is_number(result.get("step")):
            yield EvalRecord(name, result, reader.eval_items(name))
