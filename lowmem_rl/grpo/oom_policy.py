"""What a run does when its memory runs out: half the rows together, the same work again, all of it recorded.

The group is never cut, and nothing is sampled or scored twice. Fewer rows together change no gradient: each row keeps
its weight in the step (`micro_batches`). So a repeated step is the step that would have been, to rounding, for every
loss; only dropout, which draws by shape, draws other numbers.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.oom import RowLimit, is_out_of_memory
from lowmem_rl.errors import TrainingError
from lowmem_rl.phases import Phase
from lowmem_rl.planning.overrides import as_text, divisors
from lowmem_rl.storage.run_dir import append_row

Cause = Literal["memory", "kernel"]
"""Of a row in recoveries.jsonl: an allocation that failed, or a kernel that failed Unsloth's own check."""
KEYS: dict[Phase, str] = {
    "rollout": "memory.rollout_rows",
    "logprobs": "memory.micro_batch",
    "backward": "memory.micro_batch",
    "evaluation": "eval.batch",
}
"""The setting that says how many rows are in memory together."""


class OomPolicy:
    """How many rows may be in memory together in each phase of a run."""

    def __init__(
        self,
        config: RunConfig,
        path: Path,
        report: Callable[[str], None],
        suggest_fix: Callable[[str, dict[str, int]], str],
        step: int = 0,
    ) -> None:
        """`path` gets a row each time; `suggest_fix` makes a hint of the phase and settings that failed for good."""
        self.config, self.path, self.report, self.suggest_fix = config, path, report, suggest_fix
        self.step = step
        """Optimizer steps that are done."""
        self.times = self.in_a_row = 0
        self.rows: dict[Phase, int] = {}
        self.has_stopped = False
        self.rollout = RowLimit(partial(self.halve_rows, "rollout"))
        self.logprobs = RowLimit(partial(self.halve_rows, "logprobs"))
        self.evaluation = RowLimit(partial(self.halve_rows, "evaluation"))
        self.free_memory: Callable[[], None] = lambda: None
        """Called at each failure: gives up what only saves time."""

    def halve_rows(self, phase: Phase, rows: int, why: str) -> int:
        """Returns about half of `rows`; one row stays one, which may find more memory another time.

        Raises `TrainingError` after too many failures in a row.
        """
        fewer = divisors(rows)[-2] if phase == "backward" and rows > 1 else max(rows // 2, 1)
        self._failed(phase, rows, fewer, why)
        self.rows[phase] = fewer
        return fewer

    def retry(self, phase: Phase, why: str) -> None:
        """Allows another try of work that holds no rows: what others held is free. Raises as `halve_rows` does."""
        self._failed(phase, None, None, why)

    def give_up(self, phase: Phase, why: str) -> TrainingError:
        """Records a failure in work that cannot be repeated; returns the error that ends the run."""
        self._counted(phase, None, None, why)
        self.has_stopped = True
        return TrainingError(
            f"Step {self.step + 1}: memory ran out in {phase}, after its row was begun: {why}",
            hint="Continue with --resume: from the last checkpoint, or from the beginning if there is none.",
        )

    def shortcuts_lost(self, news: Sequence[str], rows: int, fewer: int, *, is_short: bool) -> None:
        """Records which shortcuts Unsloth has given up in a step, and the rows in the next step's update.

        `is_short`: an allocation failed. Otherwise a check of its kernels did, which no setting prevents.
        """
        why = f"Unsloth: {'; '.join(news)}"
        self._record("backward", rows, fewer, why, cause="memory" if is_short else "kernel", exact=True)
        if fewer < rows:
            self.times, self.rows["backward"] = self.times + 1, fewer
        cause = "memory ran out" if is_short else "its check of a kernel failed; memory was not short"
        went = f"; {rows} rows together, now {fewer}" if fewer < rows else ""
        self.report(f"step {self.step + 1}: {why} ({cause}{went})")

    def step_succeeded(self) -> None:
        """Counts a step that is over; an optimizer step that the gradient scaler skipped is one, too."""
        self.step += 1
        self.in_a_row = 0

    def state_dict(self) -> dict[str, Any]:
        """Returns what a resumed run has to know, as plain JSON data."""
        return {"recovery": {"times": self.times, "rows": dict(self.rows)}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from such a state."""
        self.times, self.rows = state["recovery"]["times"], dict(state["recovery"]["rows"])
        self.rollout.rows = self.rows.get("rollout")
        self.logprobs.rows = self.rows.get("logprobs")
        self.evaluation.rows = self.rows.get("evaluation")

    @property
    def settings(self) -> dict[str, int]:
        """The present numbers of rows, as settings for a run that starts with them."""
        found: dict[str, int] = {}
        for phase, rows in self.rows.items():
            found[KEYS[phase]] = min(rows, found.get(KEYS[phase], rows))
        if "memory.micro_batch" in found:
            found["memory.micro_batch"] = divisors(self.config.rows_per_step, found["memory.micro_batch"])[-1]
        return found

    @contextlib.contextmanager
    def report_settings(self) -> Iterator[None]:
        """Reports, however training ends, the settings that fit from the start; raises as `raising_on_oom` does."""
        try:
            with self.raising_on_oom("between", lambda: f"Step {self.step + 1}"):
                yield
        finally:
            if self.settings and not self.has_stopped:
                times = "once" if self.times == 1 else f"{self.times} times"
                what = f"it fits from the start with --set {as_text(self.settings)}{self._but()}"
                self.report(f"memory ran out {times}; {what}")

    @contextlib.contextmanager
    def raising_on_oom(self, phase: Phase, where: Callable[[], str]) -> Iterator[None]:
        """Raises `TrainingError` if memory runs out outside of the phases that are repeated."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.has_stopped = True
            raise TrainingError(
                f"{where()}: memory ran out: {error}", hint=self.suggest_fix(phase, self.settings)
            ) from error

    def _failed(self, phase: Phase, rows: int | None, fewer: int | None, why: str) -> None:
        is_last = self.in_a_row >= self.config.memory.max_retries
        exact = self._counted(phase, rows, None if is_last else fewer, why)
        if is_last:
            self.has_stopped = True
            raise self._stop(phase, rows, why)
        went = f"{rows} rows together, now {fewer}" if rows != fewer else "tried again"
        inexact = "" if exact else "; dropout draws again, so the step is not the one it would have been"
        self.report(f"step {self.step + 1}: memory ran out in {phase} ({went}){inexact}")

    def _counted(self, phase: Phase, rows: int | None, next_rows: int | None, why: str) -> bool:
        """Counts and records a failure; returns whether the repeated work is what it would have been."""
        self.free_memory()
        self.times, self.in_a_row = self.times + 1, self.in_a_row + 1
        exact = phase != "backward" or not self.config.adapter.dropout
        self._record(phase, rows, next_rows, why, cause="memory", exact=exact)
        return exact

    def _record(
        self, phase: Phase, rows: int | None, next_rows: int | None, why: str, *, cause: Cause, exact: bool
    ) -> None:
        append_row(
            self.path,
            {"step": self.step + 1, "phase": phase, "rows": rows, "next_rows": next_rows}
            | {"exact": exact, "cause": cause, "why": why},
        )

    def _stop(self, phase: Phase, rows: int | None, why: str) -> TrainingError:
        last = "" if rows is None else f", at last with {rows} rows together"
        return TrainingError(
            f"Step {self.step + 1}: memory ran out {self.in_a_row} times in a row in {phase}{last}: {why}",
            hint=self.suggest_fix(phase, self.settings),
        )

    def _but(self) -> str:
        is_bnpo = self.config.grpo.loss == "bnpo" and "memory.micro_batch" in self.settings
        return " (bnpo averages over each micro-batch: its gradient changes with it)" if is_bnpo else ""
