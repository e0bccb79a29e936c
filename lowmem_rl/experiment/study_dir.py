"""`StudyDir`: the files of a study's directory. What is done is in its run directories; here is what was decided."""

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from lowmem_rl._version import __version__
from lowmem_rl.config.places import absolute_values
from lowmem_rl.errors import ConfigError, RunDirError
from lowmem_rl.experiment.node import TOKEN
from lowmem_rl.experiment.study import Study, parse_study
from lowmem_rl.experiment.trials import Trial
from lowmem_rl.reports.escape import one_line
from lowmem_rl.storage.disk import write_file
from lowmem_rl.storage.lock import is_locked
from lowmem_rl.storage.run_dir import Row, RunDir, append_row, read_json, read_rows, write_json
from lowmem_rl.storage.run_reader import number

_FORMAT = 1
_MAY_CHANGE = ("seeds", "run", "text")
_HINT = "Restore the study's own file."


class StudyDir:
    """A study's directory. `create` makes one, the constructor opens an existing one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.study_file = path / "study.toml"
        self.decided = path / "study.json"
        self.trials = path / "trials.jsonl"
        self.results, self.table = path / "results.json", path / "results.csv"
        self.report, self.pareto = path / "report.html", path / "pareto.svg"
        self.lock = path / ".lock"

    @classmethod
    def create(cls, path: Path, study: Study) -> "StudyDir":
        """Makes the directory of a new study. Raises `RunDirError` unless it is new or empty."""
        made = cls(path)
        if made.decided.is_file():
            hint = f"Continue it: --resume --out {path}   (or give another directory)"
            raise RunDirError(f"{path} holds a study.", hint=hint)
        RunDir.create(path)
        made.write(study, {})
        return made

    def undo(self) -> None:
        """Removes a study of which nothing has run, and its directory if nothing else is in it."""
        for path in (self.decided, self.study_file, self.path / TOKEN):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def read(self) -> Study:
        """Returns the study in the directory. Raises `RunDirError` if there is none."""
        if not self.decided.is_file():
            hint = "`experiment run STUDY.toml --out DIR` makes one."
            raise RunDirError(f"{self.path} holds no study: it has no study.json.", hint=hint)
        if not self.study_file.is_file():  # reading a pipe may never end
            raise RunDirError(f"{self.path} holds no study: it has no study.toml.", hint=_HINT)
        try:
            study = parse_study(self.study_file.read_text("utf-8"), str(self.study_file))
        except (OSError, UnicodeDecodeError) as error:
            raise RunDirError(f"{self.study_file} cannot be read.", hint=_HINT) from error
        except ConfigError as error:
            raise RunDirError(str(error), hint=_HINT) from error
        self._check_unchanged(study)
        return study

    def _check_unchanged(self, study: Study) -> None:
        """Raises `RunDirError` if study.toml is not as it was when runs were made: each would pass for another's."""
        decided = read_json(self.decided)
        known = decided if isinstance(decided, dict) else {}
        seeds = known.get("seeds")
        is_less = isinstance(seeds, list) and not all(seed in study.seeds for seed in seeds)
        is_other = known.get("version") == __version__ and known.get("digest", digest_of(study)) != digest_of(study)
        if is_less or is_other:
            hint = (
                "Restore it, and run a changed study in a new directory; further seeds: --resume STUDY.toml --out DIR."
            )
            raise RunDirError(f"{self.study_file} has changed since the study began.", hint=hint)

    def write(self, study: Study, choices: Mapping[str, int]) -> None:
        """Writes the study, and by "TASK/ARM" the number of the setting that tuning chose."""
        write_file(self.study_file, study.text.encode())
        about = {"format": _FORMAT, "name": study.name, "version": __version__}
        fixed = {"digest": digest_of(study), "seeds": study.seeds, "choices": dict(choices)}
        place = {"from": str(Path.cwd())} if _names_files(study) else {}
        write_json(self.decided, about | fixed | place)

    def choices(self, study: Study) -> dict[str, int]:
        """Returns what tuning chose, empty before. Raises `RunDirError` for a file that this study cannot have."""
        found = read_json(self.decided)
        choices = found.get("choices") if isinstance(found, dict) and found.get("format") == _FORMAT else None
        possible = {f"{task}/{arm.name}": len(arm.choices) for task in study.tasks for arm in study.arms}
        if not isinstance(choices, dict) or not all(
            key in possible and type(number) is int and 0 <= number < possible[key] for key, number in choices.items()
        ):
            raise RunDirError(f"{self.decided} is damaged, or of another version.", hint=_HINT)
        return choices

    def check_place(self) -> None:
        """Raises `RunDirError` if the study names files as they are seen from another directory than this one."""
        found = read_json(self.decided)
        place = found.get("from") if isinstance(found, dict) else None
        if isinstance(place, str) and place != str(Path.cwd()):
            what = f"The study in {self.path} names files relative to {one_line(place, 200)}, where it was started."
            raise RunDirError(what, hint="Continue it from there: others of that name may be here.")

    def changed(self, study: Study) -> Study:
        """Returns the study as it is to continue: that of the directory, or a new file with further seeds.

        Raises `ConfigError` if anything else has changed: the runs that are done would be those of another study.
        """
        old = self.read()
        missing = [seed for seed in old.seeds if seed not in study.seeds]
        same = replace(old, seeds=study.seeds, text=study.text, run=study.run)
        for field in Study.__dataclass_fields__:
            if getattr(same, field) != getattr(study, field):
                what = f"The study in {self.path} differs in {field}{_first_difference(old, study, field)}."
                raise ConfigError(what, hint="Only seeds may be added; run the changed study in a new directory.")
        if missing:
            what = f"The study in {self.path} has runs of seed {missing[0]}, which the file lacks."
            raise ConfigError(what, hint="Seeds may be added, not taken out.")
        return study

    def attempts(self) -> dict[str, list[Row]]:
        """Returns the rows of trials.jsonl by the name of the trial. Raises `RunDirError` for a damaged file."""
        found: dict[str, list[Row]] = {}
        for row in read_rows(self.trials):
            found.setdefault(str(row.get("trial")), []).append(row)
        return found

    def minutes(self, task: str, arm: str) -> float:
        """Returns what an arm took on a task: all attempts of all its runs, those to tune it, too."""
        places = tuple(f"{kind}/{task}/{arm}/" for kind in ("runs", "tune"))
        rows = [row for name, rows in self.attempts().items() if name.startswith(places) for row in rows]
        return sum(number(row, "seconds") or 0.0 for row in rows) / 60

    def append(self, trial: Trial, **facts: Any) -> None:
        """Records an attempt."""
        append_row(self.trials, {"trial": trial.name, **facts})

    def is_in_use(self, trial: Trial) -> bool:
        """Returns whether a process trains there or is about to: it may outlive the study's own."""
        return is_locked(RunDir(self.path / trial.place).lock) or is_locked(self.log(trial))

    def log(self, trial: Trial) -> Path:
        """Where a trial's commands print."""
        return self.path / "logs" / f"{trial.name}.log"


def _names_files(study: Study) -> bool:
    """Returns whether a setting is a file or folder that is named relative to the working directory."""
    arms = [settings for arm in study.arms for settings in (arm.settings, *arm.choices)]
    return any(absolute_values(settings) != dict(settings) for settings in (study.common, *study.tasks.values(), *arms))


def digest_of(study: Study) -> str:
    """Returns a digest of what may not change while a study runs: all but its seeds, its text and where it runs."""
    fixed = {name: getattr(study, name) for name in Study.__dataclass_fields__ if name not in _MAY_CHANGE}
    return sha256(repr(fixed).encode("utf-8", "replace")).hexdigest()


def _first_difference(old: Study, new: Study, field: str) -> str:
    """Returns which arm it is that is other, new or gone, if arms differ."""
    arms, others = ({arm.name: arm for arm in study.arms} for study in (old, new))
    name = next((name for name in {**arms, **others} if arms.get(name) != others.get(name)), None)
    return f": {name}" if field == "arms" and name else ""
