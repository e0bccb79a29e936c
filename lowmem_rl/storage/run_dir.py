"""`RunDir`: the files of a run, by name, and how they are read and written.

Whole files replace the old ones at once; rows are appended a line at a time. A reader of a half-written run finds each
whole file complete or missing, and skips a torn last row.
"""

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.disk import append, write_file

Row = dict[str, Any]


class _Entry:
    """A file or directory of a run, by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run_dir: "RunDir", owner: type) -> Path:
        return run_dir.path / self.name


class RunDir:
    """A run directory. `create` makes one for a new run, the constructor opens an existing one."""

    config = _Entry("config.json")
    machine = _Entry("machine.json")
    estimate = _Entry("estimate.json")
    """What was predicted before the run."""
    engine = _Entry("engine.json")
    """What sampled, and why."""
    peak = _Entry("peak.json")
    metrics = _Entry("metrics.jsonl")
    samples = _Entry("samples.jsonl")
    order = _Entry("order.jsonl")
    """Which examples each round of sampling took, and how many of their completions were right."""
    recoveries = _Entry("recoveries.jsonl")
    """Each time that memory ran out: where, and how many rows at once the run continued with."""
    rollbacks = _Entry("rollbacks.jsonl")
    """Each time that the run returned to a healthy checkpoint: after which step, to which, and why."""
    trainable = _Entry("trainable.jsonl")
    """With `trainable.schedule`: which layers learned, from which step on. With `trainable.select`: at step 0 the
    selected ones, and the scores of all."""
    resumes = _Entry("resumes.jsonl")
    """One row each time the run was resumed."""
    health = _Entry("health.json")
    """What the audit of the run found."""
    evaluations = _Entry("eval.json")
    evaluated = _Entry("evaluated.json")
    """What was evaluated, in a directory with evaluations of a model that is not a run."""
    adapter = _Entry("adapter")
    weights = _Entry("weights")
    """Whole weights that learned, under Hugging Face's names."""
    best = _Entry("best")
    """The adapter of the best evaluation so far."""
    checkpoints = _Entry("checkpoints")
    controls = _Entry("controls.json")
    """What short runs with other rewards gained."""
    report = _Entry("report.html")
    log = _Entry("libraries.log")
    """What the libraries printed."""
    trackers = _Entry("trackers")
    lock = _Entry(".lock")
    """Held by the process that trains here."""
    eval_lock = _Entry(".eval.lock")
    """Held by the process that evaluates here, perhaps during a training."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> "RunDir":
        """Makes the directory, which must be new or empty. Raises `RunDirError`."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                other = f"Give another one: --out {_free_neighbour(path)}"
                resume = "   (or continue the run in it: --resume)" if cls(path).config.exists() else ""
                raise RunDirError(f"{path} is not empty.", hint=other + resume)
            tempfile.TemporaryFile(dir=path).close()
        except (OSError, ValueError) as error:  # a NUL in the path is a ValueError
            reason = getattr(error, "strerror", None) or error
            raise RunDirError(
                f"{path} cannot be a run directory: {reason}.", hint="Give another with --out."
            ) from error
        return cls(path)

    @classmethod
    def create_new(cls, path: Path) -> "RunDir":
        """Makes a directory of that name, or with a number after it: never one that exists. Raises `RunDirError`."""
        try:
            return cls.create(_new_path(path, lambda free: free.mkdir(parents=True)))
        except OSError as error:
            what = f"{path} cannot be a run directory: {error.strerror}."
            raise RunDirError(what, hint="Give another with --out.") from error

    def undo(self) -> None:
        """Removes what a run writes before its first step, and the directory if nothing else is in it."""
        tables = (self.config, self.machine, self.estimate, self.engine, self.evaluations)
        for path in (*tables, self.log, self.recoveries, self.trainable, self.lock):
            path.unlink(missing_ok=True)
        for folder in (self.trackers, self.eval_items("before").parent, self.best):
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # a file of the user's is in it, or it is the working directory
            self.path.rmdir()

    def eval_items(self, name: str) -> Path:
        """One row per item of the evaluation called `name`."""
        return self.path / "eval" / f"{name}.jsonl"

    def eval_samples(self, name: str) -> Path:
        """One row per sampled completion of the evaluation called `name`."""
        return self.path / "eval" / "sampled" / f"{name}.jsonl"

    def checkpoint(self, step: int) -> Path:
        """The directory of a checkpoint."""
        return self.checkpoints / f"step-{step:06d}"

    def control(self, name: str) -> Path:
        """The run directory of the control called `name`."""
        return self.path / "controls" / name

    def export(self, form: str) -> Path:
        """The run's model in the format called `form`."""
        return self.path / "export" / form


def default_path(preset: str) -> Path:
    """Returns `runs/<preset>-<time>`, with the local time to the second."""
    return Path("runs") / f"{preset}-{time.strftime('%Y%m%d-%H%M%S')}"


def default_probe_path(preset: str) -> Path:
    """Returns `runs/probe-<preset>-<time>.json`."""
    path = default_path(f"probe-{preset}")
    return path.with_name(f"{path.name}.json")


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yields a file of that name, or with a number after it, that nobody else has; removed if it stays empty.

    Raises `RunDirError` if it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        made = _new_path(path, lambda free: free.open("x").close())
    except OSError as error:
        raise RunDirError(f"{path} cannot be written: {error.strerror}.", hint="Give another with --out.") from error
    try:
        yield made
    finally:
        if made.is_file() and not made.stat().st_size:
            made.unlink()


def _new_path(path: Path, make: Callable[[Path], None]) -> Path:
    """Returns the first of `path`, `path-2`, ... that `make` could make: two processes never get the same one."""
    names = (path if number == 1 else _numbered(path, number) for number in count(1))
    for free in names:
        try:
            make(free)
        except FileExistsError:
            continue
        return free
    raise AssertionError  # the names have no end


def write_json(path: Path, content: object) -> None:
    """Writes a whole file, at once. Raises `ValueError` for NaN and infinity, which JSON lacks."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(path, text.encode("utf-8", _SURROGATES))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes a whole file of rows, at once."""
    write_file(path, b"".join(map(_as_line, rows)))


def append_row(path: Path, row: Row) -> None:
    """Appends one line of JSON. Raises `ValueError` for NaN and infinity, which JSON lacks."""
    append(path, _as_line(row))


def read_json(path: Path) -> Any:
    """Reads a whole file. Raises `RunDirError` if it is missing or damaged."""
    try:
        return json.loads(_read(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # the last for thousands of brackets
        reason = getattr(error, "strerror", None) or error
        raise RunDirError(f"{path} cannot be read: {reason}.", hint="Is this a run directory?") from error


def read_rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a file, none if it is missing; a torn last line is left out.

    Raises `RunDirError` for a damaged line before it, or if the file cannot be read.
    """
    for number, (line, is_torn) in enumerate(_lines(path), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # text that is not UTF-8 is a ValueError
            row = error
        if isinstance(row, dict):
            yield row
        elif not is_torn:
            raise RunDirError(f"{path}, line {number}, is damaged.", hint="Remove that line.")


def drop_rows_after(path: Path, step: int) -> None:
    """Truncates a file of rows after the last row of `step`, or of an earlier one; a torn last line goes, too.

    It needs no space on the disk. Raises `RunDirError` for a damaged row in between, and for a link.
    """
    _check_no_link(path)
    kept = 0
    for row in read_rows(path):
        if not isinstance(row.get("step"), int):
            raise RunDirError(f"{path} has a row without a step.", hint="Remove that line.")
        if row["step"] > step:
            break
        kept += 1
    if not path.exists():
        return
    end = sum(len(line) + 1 for line, _ in _lines(path)[:kept])
    if end > path.stat().st_size:  # edited by hand: the last line has no line break
        append(path, b"\n")
    os.truncate(path, end)


def drop_torn_row(path: Path) -> None:
    """Removes what follows the last line break: half a row, which the next one would continue.

    Raises `RunDirError` for a link.
    """
    _check_no_link(path)
    for line, is_torn in _lines(path)[-1:]:
        if is_torn:
            os.truncate(path, path.stat().st_size - len(line))


def _lines(path: Path) -> list[tuple[bytes, bool]]:
    """Returns the lines of a file, each with whether its line break is missing; none if the file is missing."""
    try:
        *lines, rest = _read(path).split(b"\n")  # splitlines would split at carriage returns, too
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunDirError(f"{path} cannot be read: {error.strerror}.", hint="Is this a run directory?") from error
    return [*((line, False) for line in lines), *([(rest, True)] if rest else [])]


def _check_no_link(path: Path) -> None:
    """A directory from elsewhere must not have other files of this machine truncated."""
    if path.is_symlink():
        raise RunDirError(
            f"{path} is a link, and a resumed run would write through it.", hint="Replace it with the file."
        )


def _read(path: Path) -> bytes:
    """Reads a file. Raises OSError for a pipe or a device, too: reading those may never end."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "It is not a file", str(path))
    return path.read_bytes()


def _as_line(row: Row) -> bytes:
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", _SURROGATES)


_SURROGATES = "replace"
"""A model may print half a character."""


def _free_neighbour(path: Path) -> Path:
    path = path.resolve() if path.name in ("", "..") else path
    return next(p for n in count(2) if not (p := _numbered(path, n)).exists())


def _numbered(path: Path, number: int) -> Path:
    name = path.name.removesuffix(".json")  # the dot in qwen1.5b begins no suffix
    return path.with_name(f"{name}-{number}{path.name.removeprefix(name)}")
