"""`RunDir`: what a run leaves. The one place that knows its file names.

Whole files are written aside and renamed; row files are appended a line at a time. A reader
of a half-written run finds each whole file complete or absent, and skips a torn last row.
"""

import contextlib
import errno
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.disk import append, write_file

Row = dict[str, Any]


class RunDir:
    """A run directory. `create` makes one for a new run, the constructor opens one that is there."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> "RunDir":
        """Makes the directory, which must be new or empty. Raises `RunDirError`."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()):
                other = f"Give another one: --out {_free_neighbour(path)}"
                on = "   (or go on with the run in it: --resume)" if cls(path).config.exists() else ""
                raise RunDirError(f"{path} is not empty.", hint=other + on)
            tempfile.TemporaryFile(dir=path).close()
        except (OSError, ValueError) as error:  # a NUL in the path is a ValueError
            reason = getattr(error, "strerror", None) or error
            raise RunDirError(
                f"{path} cannot be a run directory: {reason}.", hint="Give another with --out."
            ) from error
        return cls(path)

    def undo(self) -> None:
        """Removes what a run writes before its first step, and the directory where nothing else is in it."""
        for path in (
            self.config,
            self.machine,
            self.estimate,
            self.engine,
            self.log,
            self.evaluations,
            self.recoveries,
            self.lock,
        ):
            path.unlink(missing_ok=True)
        for folder in (self.trackers, self.eval_items("before").parent, self.best):
            shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # something of the user's is in it, or it is where they stand
            self.path.rmdir()

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def machine(self) -> Path:
        return self.path / "machine.json"

    @property
    def estimate(self) -> Path:
        """What was predicted before the run."""
        return self.path / "estimate.json"

    @property
    def engine(self) -> Path:
        """What sampled, and why."""
        return self.path / "engine.json"

    @property
    def health(self) -> Path:
        """What the audit of the run found."""
        return self.path / "health.json"

    @property
    def peak(self) -> Path:
        return self.path / "peak.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def recoveries(self) -> Path:
        """Each time that memory ran out: where, and with how many rows together it went on."""
        return self.path / "recoveries.jsonl"

    @property
    def samples(self) -> Path:
        return self.path / "samples.jsonl"

    @property
    def order(self) -> Path:
        """Which examples each round of sampling took, and how many of their completions were right."""
        return self.path / "order.jsonl"

    @property
    def rollbacks(self) -> Path:
        """Each time that the run went back to a healthy checkpoint: after which step, to which, and why."""
        return self.path / "rollbacks.jsonl"

    @property
    def evaluations(self) -> Path:
        return self.path / "eval.json"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def best(self) -> Path:
        """The adapter of the best evaluation so far."""
        return self.path / "best"

    @property
    def evaluated(self) -> Path:
        """What was evaluated, in a directory that holds evaluations of a model and no run."""
        return self.path / "evaluated.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def log(self) -> Path:
        """What the libraries printed."""
        return self.path / "libraries.log"

    @property
    def trackers(self) -> Path:
        return self.path / "trackers"

    def eval_items(self, name: str) -> Path:
        """One row an item of the evaluation called `name`."""
        return self.path / "eval" / f"{name}.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def eval_samples(self, name: str) -> Path:
        """One row a sampled completion of the evaluation called `name`."""
        return self.path / "eval" / "sampled" / f"{name}.jsonl"

    @property
    def controls(self) -> Path:
        """What short runs under other rewards gained."""
        return self.path / "controls.json"

    def control(self, name: str) -> Path:
        """The run directory of the control called `name`."""
        return self.path / "controls" / name

    def export(self, form: str) -> Path:
        """The run's model as others take it, in the format called `form`."""
        return self.path / "export" / form

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:06d}"

    @property
    def resumes(self) -> Path:
        """One row each time the run went on."""
        return self.path / "resumes.jsonl"

    @property
    def lock(self) -> Path:
        """Held by the process that is at work here."""
        return self.path / ".lock"

    @property
    def eval_lock(self) -> Path:
        """Held by the process that evaluates here, be it beside a training."""
        return self.path / ".eval.lock"


def default_path(preset: str) -> Path:
    """Returns `runs/<preset>-<time>`, with the local time to the second."""
    return Path("runs") / f"{preset}-{time.strftime('%Y%m%d-%H%M%S')}"


def default_probe_path(preset: str) -> Path:
    """Returns `runs/probe-<preset>-<time>.json`."""
    return default_path(f"probe-{preset}").with_suffix(".json")


def write_json(path: Path, content: object) -> None:
    """Writes one whole file: aside first, then renamed over the old one."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_file(path, text.encode(_UTF8, _SURROGATES))


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes a whole file of rows: aside first, then renamed over the old one."""
    write_file(path, b"".join(map(_as_line, rows)))


def append_row(path: Path, row: Row) -> None:
    """Appends one line of JSON; NaN and infinity, which JSON lacks, are refused with a ValueError."""
    append(path, _as_line(row))


def read_json(path: Path) -> Any:
    """Reads a whole file. Raises `RunDirError` where it is missing or damaged."""
    try:
        return json.loads(_read(path).decode(_UTF8))
    except (OSError, ValueError, RecursionError) as error:  # the last for brackets by the thousand
        reason = getattr(error, "strerror", None) or error
        raise RunDirError(f"{path} cannot be read: {reason}.", hint="Is this a run directory?") from error


def read_rows(path: Path) -> Iterator[Row]:
    """Yields the rows of a file, none where it is missing; a torn last line is left out.

    Raises `RunDirError` for a damaged line further up, or where the file cannot be read.
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
    """Cuts a file of rows off behind the last row of `step`, or of an earlier one; a torn last line goes, too.

    It needs no room on the disk. Raises `RunDirError` for a damaged row in between, and for a link.
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
    if end > path.stat().st_size:  # edited by hand: the last line is not ended
        append(path, b"\n")
    os.truncate(path, end)


def _lines(path: Path) -> list[tuple[bytes, bool]]:
    """Returns the lines of a file, and of each whether no line break ends it; none where the file is missing."""
    try:
        *lines, rest = _read(path).split(b"\n")  # splitlines would cut at carriage returns too
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunDirError(f"{path} cannot be read: {error.strerror}.", hint="Is this a run directory?") from error
    return [*((line, False) for line in lines), *([(rest, True)] if rest else [])]


def drop_torn_row(path: Path) -> None:
    """Cuts off what stands behind the last line break: half a row, which the next one would else continue.

    Raises `RunDirError` for a link.
    """
    _check_no_link(path)
    for line, is_torn in _lines(path)[-1:]:
        if is_torn:
            os.truncate(path, path.stat().st_size - len(line))


def _check_no_link(path: Path) -> None:
    """A directory from elsewhere must not have other files of this machine cut short."""
    if path.is_symlink():
        raise RunDirError(f"{path} is a link, and going on would write through it.", hint="Put the file itself there.")


def _read(path: Path) -> bytes:
    """Reads a file. Raises OSError, for a pipe or a device too: reading those may never end."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise OSError(errno.EINVAL, "It is no file", str(path))
    return path.read_bytes()


def _as_line(row: Row) -> bytes:
    return (json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n").encode(_UTF8, _SURROGATES)


_UTF8 = "utf-8"
_SURROGATES = "replace"  # a model may print half a character


def _free_neighbour(path: Path) -> Path:
    path = path.resolve() if path.name in ("", "..") else path
    return next(p for n in range(2, 10_000) if not (p := path.with_name(f"{path.name}-{n}")).exists())
