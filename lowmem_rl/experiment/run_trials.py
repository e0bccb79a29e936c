"""Runs trials to their end: starts what is missing, resumes what was cut off, repeats what may work next time."""

import shutil
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lowmem_rl.config.places import absolute_values
from lowmem_rl.config.toml_text import toml_value
from lowmem_rl.config.user_code import names_code
from lowmem_rl.errors import RunDirError
from lowmem_rl.experiment.launch import Ended, Job, Launcher
from lowmem_rl.experiment.study import Study
from lowmem_rl.experiment.study_dir import StudyDir
from lowmem_rl.experiment.trial_configs import Choices, resolve_trial, settings_of
from lowmem_rl.experiment.trials import State, Trial, state_of
from lowmem_rl.storage.run_dir import RunDir

_FINAL = frozenset({2, 4, 6, 7, 8})
"""Exit codes that another attempt cannot change: configuration, memory, data, directory, no signal."""
_IN_USE_S = 5.0
"""Between looks at a run whose process outlived the study's."""

Report = Callable[[str], None]


@dataclass(slots=True)
class TrialRunner:
    """Runs the trials of a study in its directory."""

    study: Study
    directory: StudyDir
    launcher: Launcher
    report: Report
    choices: Choices = field(default_factory=dict)
    """What tuning chose."""
    force: bool = False
    _lost: dict[str, int] = field(default_factory=dict)
    """By trial, attempts in a row that did not come further."""
    _reached: dict[str, int] = field(default_factory=dict)
    """By trial, the step of its newest checkpoint when its last attempt began."""
    _began: dict[str, float] = field(default_factory=dict)
    """By trial, when its last attempt began."""

    def run(self, trials: Iterable[Trial]) -> None:
        """Returns when each trial is done or has failed. However it ends, running jobs save first."""
        waiting, running = deque(trials), dict[str, Trial]()
        try:
            while waiting or running:
                self._fill(waiting, running)
                if running:
                    ended = self.launcher.wait()
                    trial = running.pop(ended.name)
                    if self._is_to_repeat(trial, ended):
                        waiting.appendleft(trial)
        finally:
            self.launcher.stop()
            for trial in running.values():
                self._record(trial, 128 + signal.SIGINT, None, failed=False)

    def _fill(self, waiting: "deque[Trial]", running: dict[str, Trial]) -> None:
        """Starts trials that nobody else trains while there is room; waits a moment if there is nothing to do."""
        while waiting and len(running) < self.launcher.jobs:
            trial = next((one for one in waiting if not self.directory.is_in_use(one)), None)
            if trial is None:
                if not running:
                    time.sleep(_IN_USE_S)
                return
            waiting.remove(trial)
            if self._start(trial):
                running[trial.name] = trial

    def _start(self, trial: Trial) -> bool:
        """Starts or resumes a trial; returns False if it is done."""
        path, composed = self.directory.path.resolve() / trial.place, resolve_trial(self.study, trial, self.choices)
        state = state_of(self.directory.path, trial, composed.config.grpo.steps)
        if state == State.DONE:
            return False
        self._reached[trial.name], self._began[trial.name] = self._step(trial), time.monotonic()
        allow = ["--allow-code"] if names_code(composed.config) else []
        if state == State.STARTED:
            arguments = ["train", "--resume", *allow, "--out", str(path)]
        else:
            self._remove(path)  # no config.json: killed before it could be resumed
            settings = absolute_values(settings_of(self.study, trial, self.choices))
            sets = [f"--set={key}={toml_value(value)}" for key, value in settings.items()]
            arguments = ["train", "--preset", self.study.preset, *sets, "--out", str(path)]
        arguments += ["--force"] if self.force else []
        self.launcher.start(Job(trial.name, tuple(arguments), self.directory.log(trial).resolve()))
        self.report(f"{trial.name}: {'resumed' if state == State.STARTED else 'started'}")
        return True

    def _remove(self, path: Path) -> None:
        """Raises `RunDirError` for a link on the way: a directory from elsewhere must not have others emptied."""
        if path.resolve() != path:
            hint = "Replace the link with a directory; the whole study may be in a linked one."
            raise RunDirError(f"{path} leads through a link to {path.resolve()}.", hint=hint)
        shutil.rmtree(path, ignore_errors=True)

    def _step(self, trial: Trial) -> int:
        checkpoints = RunDir(self.directory.path / trial.place).checkpoints.glob("step-[0-9]*")
        return max((int(path.name.removeprefix("step-")) for path in checkpoints), default=0)

    def _is_to_repeat(self, trial: Trial, ended: Ended) -> bool:
        """Records an attempt and returns whether another one follows: after an error, unless none came further."""
        code, name = ended.exit_code, trial.name
        came_further = self._step(trial) > self._reached[name]
        self._lost[name] = 0 if came_further else self._lost.get(name, 0) + 1
        is_refused = code == RunDirError.exit_code and self.directory.is_in_use(trial)  # another process trains there
        failed = code != 0 and not is_refused and (code in _FINAL or self._lost[name] > self.study.run.retries)
        self._record(trial, code, ended.machine, failed=failed)
        if failed:
            self.report(f"{name}: failed with exit code {code}; its output is in {self.directory.log(trial)}")
        else:
            self.report(f"{name}: done" if code == 0 else f"{name}: ended with {code}, is resumed")
        return code != 0 and not failed

    def _record(self, trial: Trial, code: int | None, machine: str | None, *, failed: bool) -> None:
        seconds = time.monotonic() - self._began[trial.name]
        facts = {"exit_code": code, "machine": machine, "failed": failed, "time": time.time()}
        self.directory.append(trial, **facts, seconds=seconds)
