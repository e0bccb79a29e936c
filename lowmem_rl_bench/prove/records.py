"""Records by preset: those that came with lowmem-rl, and those that a user names."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowmem_rl.errors import ConfigError

if TYPE_CHECKING:
    from lowmem_rl_bench.prove.replay import CheckedRecord

MOST_FILES = 1000
Report = Callable[[str], None]


def shipped_folder() -> Path:
    """Returns the folder of the records that came with lowmem-rl: in a wheel, or in the checkout."""
    packaged = Path(str(files("lowmem_rl_bench") / "_records"))
    return packaged if packaged.is_dir() else Path(__file__).resolve().parents[2] / "benchmarks" / "records" / "prove"


def load_records(named: Sequence[Path] = (), report: Report = lambda line: None) -> "list[CheckedRecord]":
    """Returns the shipped records and the `named` files, or those in named folders; the oldest first.

    A shipped record that is refused is reported and left out. Raises `ConfigError` for a named one.
    """
    paths = dict.fromkeys(path.resolve() for path in _named(named))
    shipped = [path for path in _in_folder(shipped_folder()) if path.resolve() not in paths]
    found = [*_holding(shipped, report), *map(_checked, paths)]
    return sorted(found, key=lambda checked: checked.record.date)


def _holding(paths: Iterable[Path], report: Report) -> "Iterator[CheckedRecord]":
    for path in paths:
        try:
            yield _checked(path)
        except ConfigError as error:
            report(str(error))


def _checked(path: Path) -> "CheckedRecord":
    from lowmem_rl_bench.prove.record import read_record
    from lowmem_rl_bench.prove.replay import check

    return check(read_record(path), str(path))


def _named(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise ConfigError(f"There is no file or folder {str(path)!r}.", hint="--records takes what `prove` wrote.")
        found = [path] if not path.is_dir() else _in_folder(path)
        if not found:
            raise ConfigError(f"Folder {str(path)!r} has no *.json.", hint="--records takes what `prove` wrote.")
        yield from found


def _in_folder(folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.json")) if folder.is_dir() else []
    if len(found) > MOST_FILES:
        raise ConfigError(f"Folder {str(folder)!r} has more than {MOST_FILES} records.", hint="Name fewer.")
    return found


def of_preset(records: "Iterable[CheckedRecord]", preset: str) -> "list[CheckedRecord]":
    """Returns the records in which a step of the preset was measured."""
    return [one for one in records if one.record.measured and one.record.measured.preset == preset]


def facts_of(checked: "CheckedRecord") -> dict[str, Any]:
    """Returns what `presets --json` prints of a record; None for what was not measured."""
    record, measured = checked.record, checked.record.measured
    memory, step = (measured.memory, measured.step) if measured else (None, None)
    return {
        "card": record.card.key,
        "gpu": record.machine.gpu,
        "simulated": record.machine.is_simulated,
        "driver": record.machine.driver,
        "date": record.date.isoformat(),
        "version": record.machine.versions.get("lowmem-rl"),
        "commit": record.machine.commit,
        "weights": measured.weights if measured else None,
        "predicted_bytes": checked.predicted_bytes if memory else None,
        "measured_bytes": memory.measured_bytes if memory else None,
        "step_seconds": step.ours.median if step else None,
        "unsloth_step_seconds": step.unsloth.median if step else None,
        "ratio": step.ratio.model_dump() if step else None,
        "checks": {one.name: one.status for one in record.checks},
    }
