"""Where a data set's rows are: in a local file or folder, in the hub's cache on this disk, else on the hub."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.errors import LowMemError, SetupError, TaskError
from lowmem_rl.models.lookup import cached_snapshot, why_no_hub
from lowmem_rl.tasks.files import READERS, numbered, read_files
from lowmem_rl.tasks.source_row import SourceRow
from lowmem_rl.tasks.task import Split


@dataclass(frozen=True, slots=True)
class HubData:
    """A data set on the hub: repository, configuration, what its splits are called, which columns are used."""

    repository: str
    configuration: str | None = None
    train: str = "train"
    test: str | None = "test"
    """None where the set has no held-out split."""
    columns: tuple[str, ...] = ()
    """All where empty. Files of lines are read whole anyway."""

    def split_name(self, split: Split) -> str | None:
        """Returns what the set itself calls a split."""
        return self.train if split == "train" else self.test

    def file_names(self, split: Split) -> tuple[str, ...]:
        """Returns what a local file of a split may be called, the set's own word first.

        HellaSwag's files are train, validation and a test without answers: its test split is `validation`.
        """
        return tuple(dict.fromkeys(name for name in (self.split_name(split), split) if name))


def load_rows(data: HubData, split: Split, path: str | None = None) -> Iterator[SourceRow]:
    """Yields all rows of a split: from `path` where given, else from the cache, else from the hub.

    Raises `TaskError` for data that cannot be used, `SetupError` for data that cannot be fetched.
    """
    rows = _local_rows(Path(path).expanduser(), data, split) if path else _hub_rows(data, split)
    first = next(rows, None)
    if first is None:
        raise TaskError(f"{path or data.repository} holds no {split} rows.", hint="Give a file with at least one row.")
    yield first
    yield from rows


def has_test_split(data: HubData, path: str | None = None) -> bool:
    """Says whether the data brings its own held-out rows; else some are set apart by a hash."""
    return data.test is not None or (path is not None and bool(_split_files(Path(path).expanduser(), data, "test")))


def _local_rows(path: Path, data: HubData, split: Split) -> Iterator[SourceRow]:
    if not path.exists():
        raise TaskError(f"task.path {str(path)!r} does not exist.", hint="Name a file, or a folder with train.jsonl.")
    files = _split_files(path, data, split)
    if not files:
        folder, name = path if path.is_dir() else path.parent, data.file_names(split)[0]
        raise TaskError(
            f"task.path {str(path)!r} has no {split} split: {folder} holds no {name}.jsonl, .json, .csv or .parquet.",
            hint=f"Put the {split} rows into {folder / f'{name}.jsonl'}.",
        )
    return read_files(files, data.columns)


def _split_files(path: Path, data: HubData, split: Split) -> list[Path]:
    """Returns the files of a split: `train.jsonl` or the hub's own `main/train-00000-of-00001.parquet`.

    One file given alone is its own split, and `train` where its name says nothing; the other split
    may lie beside it. A folder's only file is `train`, too, whatever it is called.
    """
    if path.is_file() and split == _split_of(path, data):
        return [path]
    folder = path if path.is_dir() else path.parent
    for place in _places(folder, data):
        for name in data.file_names(split):
            for suffix in READERS:
                if files := sorted([*place.glob(f"{name}{suffix}"), *place.glob(f"{name}-*{suffix}")]):
                    return files
    files = [file for file in folder.iterdir() if file.suffix in READERS] if path.is_dir() else []
    return files if len(files) == 1 and split == _split_of(files[0], data) else []


def _places(folder: Path, data: HubData) -> list[Path]:
    """Returns where the hub's data sets keep the files of a configuration: at the top, under its name, under data/."""
    if data.configuration in (None, "default"):
        return [folder, folder / "data", folder / "default"]
    return [folder, folder / str(data.configuration)]


def _split_of(file: Path, data: HubData) -> Split:
    return "test" if file.stem in data.file_names("test") else "train"


def _hub_rows(data: HubData, split: Split) -> Iterator[SourceRow]:
    """Reads what `hf download` left in the cache; `datasets` itself does not look there when offline."""
    snapshot = cached_snapshot(data.repository, kind="datasets")
    if snapshot and (files := _split_files(snapshot, data, split)):
        return read_files(files, data.columns)
    if why_no_hub():
        # Read when the client is imported; unset, it tries for half a minute before it looks into its own cache.
        os.environ["HF_HUB_OFFLINE"] = "1"
    datasets = _import_datasets()
    try:
        records = datasets.load_dataset(data.repository, data.configuration, split=data.split_name(split))
    except Exception as error:  # the hub's client raises OSErrors, ValueErrors and its own kinds
        raise _not_fetched(data, split, error) from error
    used = [column for column in records.column_names if column in data.columns]
    return numbered(records.select_columns(used) if used else records, f"{data.repository} {split}")


def _import_datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise SetupError(
            "Data from the hub needs the package datasets.",
            hint="Install lowmem-rl[train], or give JSON Lines in task.path.",
        ) from error
    return datasets


def _not_fetched(data: HubData, split: Split, error: Exception) -> LowMemError:
    first_line = str(error).partition("\n")[0]
    part = "/".join(filter(None, [data.configuration, data.split_name(split)]))
    return SetupError(
        f"{data.repository} ({part}) is not cached and could not be fetched: {first_line.rstrip('.')}.",
        hint=f"Fetch it where there is a network: hf download {data.repository} --repo-type dataset. "
        "Or set task.path to a local folder with train.jsonl and test.jsonl.",
    )
