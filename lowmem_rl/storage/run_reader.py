"""`RunReader`: the files of a run directory, read and checked in one place.

The run may be half-written, from another version or from a stranger. A file that is missing is empty, and a torn last
row is left out; whatever else is damaged raises `RunDirError` with the name of the file. The values in a table stay
untrusted: `part`, `rows_in`, `number` and `numbers` return those of the expected type.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from sys import float_info
from typing import Any, TypeGuard, TypeVar

from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.run_dir import Row, RunDir, read_json, read_rows

_T = TypeVar("_T")

_HINT = "Remove it, or restore the run's own file."
_ITEM = {"example_id": str, "correct": bool, "strict": bool}
"""What a row of an evaluation holds at least."""
_BEST = ("step", "name", "pass_at_1", "num_examples", "chosen_of")
"""What eval.json holds about the best evaluation at least."""


@dataclass(frozen=True, slots=True)
class Evaluations:
    """eval.json by its parts. A part that is missing, or of another type, is empty."""

    before: Row
    during: tuple[Row, ...]
    """In the order of the file; each has an integer `step`."""
    after: Row
    comparison: Row
    best: Row
    out_of_domain: dict[str, Row]
    """By task: `before`, `after` and `comparison`, untrusted."""
    later: tuple[Row, ...]
    """Those by `lowmem-rl eval`."""


def _table(name: str) -> cached_property[Row]:
    """Returns a property for the JSON object in a file of `RunDir`, empty if the file is missing."""
    return cached_property(lambda reader: reader.table(getattr(reader.run_dir, name)))


def _rows(name: str, **needed: type) -> cached_property[tuple[Row, ...]]:
    """Returns a property for the rows of a file of `RunDir`, none if the file is missing."""
    return cached_property(lambda reader: reader.rows(getattr(reader.run_dir, name), **needed))


class RunReader:
    """Reads each file when it is first asked for, and once; `hint` is the fix that its errors offer."""

    def __init__(self, run_dir: RunDir, hint: str = _HINT) -> None:
        self.run_dir, self.hint = run_dir, hint

    @property
    def is_run(self) -> bool:
        """True if config.json is that of a run; a model's lacks origins. Raises `RunDirError` if it is damaged."""
        found = read_json(self.run_dir.config) if self.run_dir.config.is_file() else None
        return isinstance(found, dict) and isinstance(found.get("config"), dict) and "origins" in found

    @cached_property
    def config_file(self) -> Row:
        """config.json, whole. Raises `RunDirError` if this is not a run directory."""
        path, hint = self.run_dir.path, "`train` prints where a run is."
        if not path.is_dir():
            raise RunDirError(f"{path} is not a directory.", hint=hint)
        if not self.run_dir.config.is_file():
            raise RunDirError(f"{path} is not a run directory: it has no config.json.", hint=hint)
        try:
            return self.table(self.run_dir.config)
        except RunDirError as error:
            needed = "Restore the run's own file: without it this is not a run directory."
            raise RunDirError(str(error), hint=needed if self.hint == _HINT else self.hint) from error

    @property
    def config(self) -> Row:
        """The configuration, nested and not validated: `config.saved_config` returns a `RunConfig`."""
        return part(self.config_file, "config")

    @property
    def origins(self) -> Row:
        """Where the value of each dotted key came from."""
        return part(self.config_file, "origins")

    @property
    def preset(self) -> str | None:
        return found if isinstance(found := self.config_file.get("preset"), str) else None

    @property
    def card(self) -> str | None:
        """The card that the preset is made for."""
        return found if isinstance(found := self.config_file.get("card"), str) else None

    machine, estimate, peak = _table("machine"), _table("estimate"), _table("peak")
    health, controls = _table("health"), _table("controls")
    eval_file = _table("evaluations")
    """eval.json, whole."""
    samples = _rows("samples", step=int, completion=str, reward=float)
    order = _rows("order", step=int)
    rollbacks = _rows("rollbacks", step=int, to=int)
    resumes = _rows("resumes", step=int)
    """One row each time the run was continued from a checkpoint."""
    trainable = _rows("trainable", step=int, layers=list)
    """One row each time that other layers began to learn; at step 0 those that were selected."""
    recoveries = _rows("recoveries", step=int)
    """One row each time that memory ran out."""

    @property
    def evaluations(self) -> Evaluations:
        """eval.json by its parts, for readers that show what there is."""
        found = self.eval_file
        tasks = part(found, "out_of_domain")
        return Evaluations(
            before=part(found, "before"),
            during=tuple(row for row in rows_in(found, "during") if type(row.get("step")) is int),
            after=part(found, "after"),
            comparison=part(found, "comparison"),
            best=part(found, "best"),
            out_of_domain={task: row for task, row in tasks.items() if isinstance(row, dict)},
            later=tuple(rows_in(found, "later")),
        )

    def evaluations_to_extend(self) -> Row:
        """Returns eval.json with every part, for the writer that adds to it and writes it back.

        Raises `RunDirError` if a part is not of its type: it would be lost, or could not be written again.
        """
        parts: Row = {"before": None, "during": [], "after": None, "comparison": None, "best": None}
        found = parts | {"out_of_domain": {}} | self.eval_file
        with self.parsing(self.run_dir.evaluations, "holds no evaluations of a run"):
            tables = [found[name] for name in ("before", "after", "comparison", "best") if found[name]]
            tasks, best = found["out_of_domain"].values(), found["best"]
            _check(all(isinstance(one, dict) for one in [*tables, *tasks]))
            _check(all(type(one["step"]) is int for one in found["during"]))
            _check(not best or all(name in best for name in _BEST))
            json.dumps(found, allow_nan=False)  # NaN and infinity can be read, but not written
        return found

    @cached_property
    def metrics(self) -> tuple[Row, ...]:
        """One row a step, by ascending step; of a step that was trained again after a resume, the last row."""
        by_step = {row["step"]: row for row in self.rows(self.run_dir.metrics, step=int)}
        return tuple(by_step[step] for step in sorted(by_step))

    def eval_items(self, name: str) -> tuple[Row, ...]:
        """Returns the rows of the evaluation called `name`, each with example_id, correct and strict."""
        return self.rows(self.run_dir.eval_items(name), **_ITEM)

    @property
    def peak_bytes(self) -> int | None:
        """The highest peak, also of a run that was killed: its peak.json is that of the first step."""
        rows = [self.peak, *self.metrics]
        return max((int(row["peak_bytes"]) for row in rows if is_number(row.get("peak_bytes"))), default=None)

    def table(self, path: Path, *, required: bool = False) -> Row:
        """Returns the JSON object in a file, empty if the file is missing and not required. Raises `RunDirError`."""
        if not (required or path.exists()):
            return {}
        try:
            content = read_json(path)
        except RunDirError as error:
            raise RunDirError(str(error), hint=self.hint) from error
        if not isinstance(content, dict):
            raise RunDirError(f"{path} does not hold a JSON object.", hint=self.hint)
        return content

    def rows(self, path: Path, **needed: type) -> tuple[Row, ...]:
        """Returns the rows of a file. Raises `RunDirError` if one lacks a needed value, or has it in another type."""
        rows = tuple(read_rows(path))
        for number, row in enumerate(rows, 1):
            if not all(_is_a(kind, row.get(key)) for key, kind in needed.items()):
                raise RunDirError(f"{path}, line {number}, lacks {', '.join(needed)}.", hint="Remove that line.")
        return rows

    def parsed(self, path: Path, parse: Callable[[Row], _T]) -> list[_T]:
        """Returns what `parse` makes of each row of a file.

        Raises `RunDirError`, with the line, if it raises LookupError, TypeError or ValueError.
        """
        found = []
        for number, row in enumerate(read_rows(path), 1):
            try:
                found.append(parse(row))
            except (LookupError, TypeError, ValueError) as error:
                raise RunDirError(f"{path}, line {number}, cannot be used.", hint="Remove that line.") from error
        return found

    @contextmanager
    def parsing(self, path: Path, problem: str) -> Iterator[None]:
        """Raises `RunDirError` with the path and the problem if what is read in this context cannot be parsed."""
        try:
            yield
        except (AttributeError, LookupError, TypeError, ValueError, RecursionError) as error:
            raise RunDirError(f"{path} {problem}.", hint=self.hint) from error


def is_number(value: object) -> TypeGuard[int | float]:
    """True if a value can be drawn and added: not a bool, not NaN, not one of the 400-digit integers JSON allows."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= float_info.max


def number(row: Mapping[str, Any], key: str) -> float | None:
    """Returns the number under a key, None if there is none."""
    value = row.get(key)
    return float(value) if is_number(value) else None


def numbers(found: object) -> dict[str, float]:
    """Returns the numbers in a table."""
    return {key: value for key, value in found.items() if is_number(value)} if isinstance(found, dict) else {}


def part(row: Mapping[str, Any], key: str) -> dict[str, Any]:
    """Returns the table under a key, empty if there is none."""
    found = row.get(key)
    return found if isinstance(found, dict) else {}


def rows_in(row: Mapping[str, Any], key: str) -> list[dict[str, Any]]:
    """Returns the tables in the list under a key."""
    found = row.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _is_a(kind: type, value: object) -> bool:
    return is_number(value) if kind is float else type(value) is kind


def _check(holds: bool) -> None:
    if not holds:
        raise TypeError
