"""`StudyDir`: the files of a study's directory. What is done is in its run directories; here is what was decided."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lowmem_rl._version import __version__
from lowmem_rl.errors import ConfigError, RunDirError
from lowmem_rl.experiment.study import Study, parse_study
from lowmem_rl.experiment.trials import Trial
from lowmem_rl.storage.disk import write_file
from lowmem_rl.storage.run_dir import Row, RunDir, append_row, read_json, read_rows, write_json
from lowmem_rl.storage.run_reader import number

_FORMAT = 1
_HINT = "Restore the study's own file."


class StudyDir:
    """A study's directory. `create` makes one, the constructor opens an existing one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.study_file = path / "study.toml"
        self.decided = path / "study.json"
        self.trials = path / "trials.jsonl"
        self.results, self.table = path / "results.json", path / "results.csv"
        self.report = path / "report.html"
        self.lock = path / ".lock"

    @classmethod
    def create(cls, path: Path, study: Study) -> "StudyDir":
        """Makes the directory of a new study. Raises `RunDirError` unless it is new or empty."""
        RunDir.create(path)
        made = cls(path)
        made.write(study, {})
        return made

    def read(self) -> Study:
        """Returns the study in the directory. Raises `RunDirError` if there is none."""
        if not self.decided.is_file():
            hint = "`experiment run STUDY.toml --out DIR` makes one."
            raise RunDirError(f"{self.path} holds no study: it has no study.json.", hint=hint)
        try:
            return parse_study(self.study_file.read_text("utf-8"), str(self.study_file))
        except (OSError, UnicodeDecodeError) as error:
            raise RunDirError(f"{self.study_file} cannot be read.", hint=_HINT) from error

    def write(self, study: Study, choices: Mapping[str, int]) -> None:
        """Writes the study, and by "TASK/ARM" the number of the setting that tuning chose."""
        write_file(self.study_file, study.text.encode())
        decided = {"format": _FORMAT, "name": study.name, "version": __version__, "choices": dict(choices)}
        write_json(self.decided, decided)

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

    def changed(self, study: Study) -> Study:
        """Returns the study as it is to continue: that of the directory, or a new file with further seeds.

        Raises `ConfigError` if anything else has changed: the runs that are done would be those of another study.
        """
        old = self.read()
        missing = [seed for seed in old.seeds if seed not in study.seeds]
        same = replace(old, seeds=study.seeds, text=study.text, run=study.run)
        for field in Study.__dataclass_fields__:
            if getattr(same, field) != getattr(study, field):
                what = f"The study in {self.path} has other {field}."
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

    def log(self, trial: Trial) -> Path:
        """Where a trial's commands print."""
        return self.path / "logs" / f"{trial.name.replace('/', '-')}.log"
