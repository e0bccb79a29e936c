"""Finds a data set's rows: in a local file or folder, in the hub's cache on this disk, else on the hub."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lowmem_rl.errors import SetupError, TaskError
from lowmem_rl.models.hub import cached_snapshot, go_offline, refusal, why_no_hub
from lowmem_rl.tasks.files import READERS, ending_of, import_reader, numbered, read_files, stem_of
from lowmem_rl.tasks.source_row import SourceRow, roots_of
from lowmem_rl.tasks.task import Split

_FILE_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "test": ("test", "validation", "valid", "val", "dev", "eval"),
}
_MOST_NAMED = 8
"""Files that a message names."""
_DESCRIPTIONS = ("dataset_info", "dataset_infos", "dataset_dict", "state", "metadata", "README")
"""JSON files in folders of the hub and of `datasets` that hold no rows."""


@dataclass(frozen=True, slots=True)
class HubData:
    """A data set on the hub: repository, configuration, the names of its splits, the columns that are used."""

    repository: str
    configuration: str | None = None
    train: str = "train"
    test: str | None = "test"
    """None if the set has no held-out split."""
    columns: tuple[str, ...] = ()
    """All if empty. Files of lines are read whole anyway."""

    def split_name(self, split: Split) -> str | None:
        """Returns the set's own name of a split."""
        return self.train if split == "train" else self.test

    def file_names(self, split: Split) -> tuple[str, ...]:
        """Returns the possible names of a local file of a split, the set's own name first.

        HellaSwag's files are train, validation and a test without answers: its test split is `validation`.
        """
        own = self.split_name(split)
        return tuple(dict.fromkeys([own, *_FILE_NAMES[split]] if own else _FILE_NAMES[split]))


def load_rows(data: HubData, split: Split, path: str | None = None) -> Iterator[SourceRow]:
    """Yields all rows of a split: from `path` if given, else from the cache, else from the hub.

    Raises `TaskError` for data that cannot be used, `SetupError` for data that cannot be fetched.
    """
    rows = _local_rows(Path(path).expanduser(), data, split) if path else _hub_rows(data, split)
    first = next(rows, None)
    if first is None:
        raise TaskError(f"{path or data.repository} holds no {split} rows.", hint="Give a file with at least one row.")
    yield first
    yield from rows


def is_on_disk(data: HubData, split: Split, path: str | None = None) -> bool:
    """Returns whether `load_rows` reads a split from this disk, or refuses a `path` that holds none."""
    snapshot = cached_snapshot(data.repository, kind="datasets")
    return path is not None or (snapshot is not None and bool(_split_files(snapshot, data, split)))


def has_test_split(data: HubData, path: str | None = None) -> bool:
    """Returns whether the data has its own held-out rows; else some are chosen by a hash."""
    return data.test is not None or (path is not None and bool(_split_files(Path(path).expanduser(), data, "test")))


def _local_rows(path: Path, data: HubData, split: Split) -> Iterator[SourceRow]:
    if not path.exists():
        raise TaskError(f"task.path {str(path)!r} does not exist.", hint="Name a file, or a folder with train.jsonl.")
    files = _split_files(path, data, split)
    if not files:
        raise _no_split(path, data, split)
    return read_files(files, data.columns)


def _split_files(path: Path, data: HubData, split: Split) -> list[Path]:
    """Returns the files of a split: `train.jsonl` or the hub's own `main/train-00000-of-00001.parquet`.

    In a folder, a split may have a folder of its own, `train/math.parquet`. A single file is its own split, `train`
    unless its name says otherwise; the other split may be next to it. A folder's only file is `train` too, under any
    name.
    """

    def is_of_split(file: Path) -> bool:
        return (stem_of(file) in data.file_names("test")) == (split == "test")

    if path.is_file() and is_of_split(path):
        return [path]
    folder = path if path.is_dir() else path.parent
    # The hub's sets keep the files of a configuration at the top, under its name, or under data/.
    is_default = data.configuration in (None, "default")
    places = [folder, folder / "data", folder / "default"] if is_default else [folder, folder / str(data.configuration)]
    for place in places:
        found = _data_files(place)
        for name in data.file_names(split):
            parts = [file for file in found if _is_part(stem_of(file), name)]
            parts = parts or (_data_files(place / name) if path.is_dir() else [])
            for ending in READERS:
                if files := [file for file in parts if ending_of(file) == ending]:
                    return files
    files = _data_files(folder) if path.is_dir() else []
    return files if len(files) == 1 and is_of_split(files[0]) else []


def _data_files(folder: Path) -> list[Path]:
    files = folder.iterdir() if folder.is_dir() else ()
    return sorted(f for f in files if ending_of(f) in READERS and stem_of(f) not in _DESCRIPTIONS and f.is_file())


def _is_part(stem: str, name: str) -> bool:
    """Returns whether a file is a split or, as `train-00000-of-00002`, a part of it."""
    return stem == name or stem.startswith(f"{name}-")


def _no_split(path: Path, data: HubData, split: Split) -> TaskError:
    folder, name = path if path.is_dir() else path.parent, data.file_names(split)[0]
    found = ", ".join(file.name for file in _data_files(folder)[:_MOST_NAMED]) or "no data file"
    fix = f"Put the {split} rows into {folder / f'{name}.jsonl'}"
    if split == "train":
        fix += ", or let task.path name the file, which must not be called as a held-out one"
    what = (
        f"task.path {str(path)!r} has no {split} split: {folder} holds {found}, and no {name}.jsonl, .csv or .parquet."
    )
    return TaskError(what, hint=f"{fix}.")


def _hub_rows(data: HubData, split: Split) -> Iterator[SourceRow]:
    """Reads what `hf download` left in the cache, which `datasets` does not read when offline, or else the hub."""
    snapshot = cached_snapshot(data.repository, kind="datasets")
    if snapshot and (files := _split_files(snapshot, data, split)):
        return read_files(files, data.columns)
    if why_no_hub():
        go_offline()  # else `datasets` tries for half a minute before it reads its own cache
    datasets = import_reader("datasets", "Data from the hub needs the package datasets.")
    name = data.split_name(split)
    try:
        records = datasets.load_dataset(data.repository, data.configuration, split=name)
    except Exception as error:  # the hub's client raises OSErrors, ValueErrors and its own kinds
        reason = str(error).partition("\n")[0].rstrip(".")
        part = "/".join(filter(None, [data.configuration, name]))
        raise refusal(data.repository, error) or SetupError(
            f"{data.repository} ({part}) is not cached and could not be fetched: {reason}.",
            hint=f"Fetch it on a machine with a network: hf download {data.repository} --repo-type dataset. "
            "Or set task.path to a local folder with train.jsonl and test.jsonl.",
        ) from error
    used = roots_of(data.columns, records.column_names)
    return numbered(records.select_columns(used) if used else records, f"{data.repository} {split}")
