"""Which of several runs learned more: the same items, paired, and "not distinguishable" if that is the result."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import flatten
from lowmem_rl.config.places import without_folder
from lowmem_rl.errors import ConfigError, RunDirError
from lowmem_rl.reports.escape import one_line
from lowmem_rl.reports.run_record import LENIENT, STRICT, EvalRecord, RunRecord, read_record
from lowmem_rl.reports.sections.curves import learning_curve
from lowmem_rl.stats import SIGNIFICANT, PairedDifference, compare_shared, holm

_TASK_DATA = ("name", "path", "hub", "subset", "levels")
"""Keys of `task` that decide which items are held out."""
UNSET = "unset"


@dataclass(frozen=True, slots=True)
class RunPair:
    """Two runs on the items that both were evaluated on; the differences are the second less the first.

    The p-values are adjusted for the number of pairs in the comparison.
    """

    first: str
    second: str
    lenient: PairedDifference
    strict: PairedDifference
    lenient_p: float
    strict_p: float

    @property
    def is_distinguishable(self) -> bool:
        return self.lenient_p < SIGNIFICANT

    @property
    def verdict(self) -> str:
        """What can be said of the second run."""
        if not self.is_distinguishable:
            return "not distinguishable"
        return "better" if self.lenient.gain > 0 else "worse"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Runs and their last evaluations; each later run is paired with the first."""

    names: tuple[str, ...]
    records: tuple[RunRecord, ...]
    evaluations: tuple[EvalRecord, ...]
    pairs: tuple[RunPair, ...]
    differences: dict[str, tuple[Any, ...]]
    """The settings that are not the same in all runs, with a value for each run."""

    @property
    def results(self) -> tuple[dict[str, Any], ...]:
        return tuple(evaluation.result for evaluation in self.evaluations)

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data, with each run's learning curve by step, tokens and seconds."""
        runs = [
            {
                "name": name,
                "path": str(record.path),
                "evaluation": evaluation.name,
                "result": evaluation.result,
                "curve": [point.to_json() for point in learning_curve(record)],
            }
            for name, record, evaluation in zip(self.names, self.records, self.evaluations, strict=True)
        ]
        pairs = [asdict(pair) | {"distinguishable": pair.is_distinguishable} for pair in self.pairs]
        return {"runs": runs, "pairs": pairs, "config": {key: list(found) for key, found in self.differences.items()}}


def compare_runs(paths: Sequence[Path]) -> Comparison:
    """Compares each later run with the first.

    Raises `ConfigError` for a single run, `RunDirError` if runs were not evaluated on the same task, or not at all.
    """
    if len(paths) < 2:
        raise ConfigError("One run has nothing to be compared with.", hint="Name two or more run directories.")
    records = tuple(read_record(path) for path in paths)
    evaluations = tuple(map(_evaluation_of, records))
    base, *others = zip(records, evaluations, strict=True)
    for other in others:
        _check_same_task(base, other)
    # The folders' names, or the paths as they were given if names repeat.
    names = [one_line(path.resolve().name) for path in paths]
    names = names if len(set(names)) == len(names) else list(map(one_line, paths))
    found = [(_paired(base, other, LENIENT), _paired(base, other, STRICT)) for other in others]
    lenient, strict = (holm([pair[which].p_value for pair in found]) for which in (0, 1))
    rows = zip(names[1:], found, lenient, strict, strict=True)
    pairs = tuple(RunPair(names[0], name, *pair, easy, hard) for name, pair, easy, hard in rows)
    return Comparison(
        tuple(names), records, evaluations, pairs, _config_differences([record.config for record in records])
    )


def paired_difference(first: EvalRecord, second: EvalRecord, graded: str) -> PairedDifference | None:
    """Returns how much better the second is on the items that both have, None if there are none."""
    return compare_shared(first.shares(graded), second.shares(graded))


def _config_differences(configs: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Returns the dotted keys whose values are not the same in all configurations."""
    flat = [flatten(config) for config in configs]
    keys = dict.fromkeys(key for config in flat for key in config)
    found = {key: tuple(config.get(key, UNSET) for config in flat) for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def _evaluation_of(record: RunRecord) -> EvalRecord:
    evaluation = record.latest
    if evaluation is None:
        raise RunDirError(
            f"{record.path} has no evaluation after a step of training.",
            hint="It ended too early; leave it out, or train it again with a smaller eval.every.",
        )
    if not evaluation.items:
        raise RunDirError(
            f"{record.path / 'eval' / evaluation.name}.jsonl has no rows: items cannot be paired.",
            hint="Restore the file, or leave the run out.",
        )
    return evaluation


def _check_same_task(*runs: tuple[RunRecord, EvalRecord]) -> None:
    held_out = [
        {key: _without_folder(key, record.setting(f"task.{key}")) for key in _TASK_DATA}
        | {key: _without_folder(key, evaluation.result.get(key)) for key in ("task", "split")}
        for record, evaluation in runs
    ]
    for key, (first, other) in _config_differences(held_out).items():
        raise RunDirError(
            f"{runs[0][0].path} and {runs[1][0].path} were not evaluated on the same task: "
            f"{key} is {first} there and {other} here.",
            hint="Compare runs that were evaluated on the same task and split.",
        )


def _without_folder(key: str, value: Any) -> Any:
    """The same files have other places on other machines; that the items are the same is checked next."""
    if not isinstance(value, str):
        return value
    return Path(value).name if key == "path" else without_folder(value)


def _paired(first: tuple[RunRecord, EvalRecord], other: tuple[RunRecord, EvalRecord], graded: str) -> PairedDifference:
    difference = paired_difference(first[1], other[1], graded)
    if difference is None:
        raise RunDirError(
            f"{first[0].path} and {other[0].path} have no evaluated item in common.",
            hint="Compare runs with the same task and the same held-out items.",
        )
    return difference
