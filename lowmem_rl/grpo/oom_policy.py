"""What a run does when its memory runs out: half the rows together, the same work again, all of it written down.

The group is never cut, and nothing is sampled or scored anew that was there already. Fewer rows together change no
gradient: each row keeps its weight in the step, whatever stands beside it (`batching`). So a step that is done again
is the step that would have been, to rounding, for every loss; only dropout, which draws by shape, draws otherwise.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.oom import RowLimit, is_out_of_memory
from lowmem_rl.errors import TrainingError
from lowmem_rl.planning.overrides import as_text, divisors
from lowmem_rl.storage.run_dir import append_row

Phase = Literal["rollout", "advantages", "logprobs", "backward", "optimizer", "evaluation", "between"]
"""Phases of the memory estimate, the forward in `backward`; and two that hold next to nothing of their own:
`advantages`, from the sampled completions to the micro-batches, and `between` two steps."""
Cause = Literal["memory", "kernel"]
"""Of a row in recoveries.jsonl: an allocation that failed, or a kernel that failed Unsloth's own check."""
KEYS: dict[Phase, str] = {
    "rollout": "memory.rollout_rows",
    "logprobs": "memory.micro_batch",
    "backward": "memory.micro_batch",
    "evaluation": "eval.batch",
}
"""What says in the config how many rows stand together."""


class OomPolicy:
    """The rows that may stand together in each phase of a run, and how they came to be fewer."""

    def __init__(
        self, config: RunConfig, path: Path, tell: Callable[[str], None], cure: Callable[[str, dict[str, int]], str]
    ) -> None:
        """`path` gets a row each time; `cure` makes a hint of phase and settings in which memory ran out for good."""
        self.config, self.path, self.tell, self.cure = config, path, tell, cure
        self.step = 0
        """Optimizer steps that are done."""
        self.times = self.in_a_row = 0
        self.rows: dict[Phase, int] = {}
        self.has_stopped = False
        self.rollout = RowLimit(partial(self.half, "rollout"))
        self.logprobs = RowLimit(partial(self.half, "logprobs"))
        self.evaluation = RowLimit(partial(self.half, "evaluation"))

    def half(self, phase: Phase, rows: int, why: str) -> int:
        """Returns about half of `rows`; the same where there is one alone, which may find more room another time.

        Raises `TrainingError` after too many failures in a row.
        """
        fewer = divisors(rows)[-2] if phase == "backward" and rows > 1 else max(rows // 2, 1)
        self._failed(phase, rows, fewer, why)
        self.rows[phase] = fewer
        return fewer

    def again(self, phase: Phase, why: str) -> None:
        """Allows another try of work that holds no rows: what others held is free. Raises as `half` does."""
        self._failed(phase, None, None, why)

    def cannot_go_on(self, phase: Phase, why: str) -> TrainingError:
        """Takes note of a shortage in work that cannot be done again; returns the error that ends the run."""
        self._counted(phase, None, None, why)
        self.has_stopped = True
        return TrainingError(
            f"Step {self.step + 1}: memory ran out in {phase}, after its row was begun: {why}",
            hint="Go on with --resume: from the last checkpoint, or from the beginning if there is none.",
        )

    def goes_without(self, news: Sequence[str], rows: int, fewer: int, *, is_short: bool) -> None:
        """Takes note of what Unsloth has given up by itself in a step, and of the rows in the next one's update.

        `is_short`: an allocation had failed. Otherwise a check of its kernels did, which no setting prevents.
        """
        why = f"Unsloth: {'; '.join(news)}"
        self._write_down("backward", rows, fewer, why, cause="memory" if is_short else "kernel", exact=True)
        if fewer < rows:
            self.times, self.rows["backward"] = self.times + 1, fewer
        cause = "memory ran out" if is_short else "its check of a kernel failed; memory was not short"
        went = f"; {rows} rows together, now {fewer}" if fewer < rows else ""
        self.tell(f"step {self.step + 1}: {why} ({cause}{went})")

    def went_on(self) -> None:
        """Takes note of a step that is over; an optimizer step that the gradient scaler skipped is one, too."""
        self.step += 1
        self.in_a_row = 0

    def counts(self) -> dict[str, Any]:
        """Returns what a run that goes on has to know, as plain JSON data."""
        return {"times": self.times, "rows": dict(self.rows)}

    def go_on(self, counts: Mapping[str, Any]) -> None:
        """Takes up what `counts` has told."""
        self.times, self.rows = counts["times"], dict(counts["rows"])
        self.rollout.rows = self.rows.get("rollout")
        self.logprobs.rows = self.rows.get("logprobs")
        self.evaluation.rows = self.rows.get("evaluation")

    @property
    def settings(self) -> dict[str, int]:
        """What the run goes on with, as settings of a run that begins with it."""
        found: dict[str, int] = {}
        for phase, rows in self.rows.items():
            found[KEYS[phase]] = min(rows, found.get(KEYS[phase], rows))
        if "memory.micro_batch" in found:
            found["memory.micro_batch"] = divisors(self.config.rows_per_step, found["memory.micro_batch"])[-1]
        return found

    @contextlib.contextmanager
    def told_at_the_end(self) -> Iterator[None]:
        """Offers, however training ends, the settings that would have spared what happened; raises as `stopped`."""
        try:
            with self.stopped("between", lambda: f"Step {self.step + 1}"):
                yield
        finally:
            self._tell_what_fits()

    @contextlib.contextmanager
    def stopped(self, phase: Phase, where: Callable[[], str]) -> Iterator[None]:
        """Raises `TrainingError` where memory ran out outside of the phases that are done again."""
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.has_stopped = True
            raise TrainingError(f"{where()}: memory ran out: {error}", hint=self.cure(phase, self.settings)) from error

    def _tell_what_fits(self) -> None:
        if self.settings and not self.has_stopped:
            times = "once" if self.times == 1 else f"{self.times} times"
            self.tell(
                f"memory ran out {times}; it fits from the start with --set {as_text(self.settings)}{self._but()}"
            )

    def _failed(self, phase: Phase, rows: int | None, fewer: int | None, why: str) -> None:
        is_last = self.in_a_row >= self.config.memory.max_retries
        exact = self._counted(phase, rows, None if is_last else fewer, why)
        if is_last:
            self.has_stopped = True
            raise self._stop(phase, rows, why)
        went = f"{rows} rows together, now {fewer}" if rows != fewer else "tried again"
        inexact = "" if exact else "; dropout draws anew, so the step is not the one it would have been"
        self.tell(f"step {self.step + 1}: memory ran out in {phase} ({went}){inexact}")

    def _counted(self, phase: Phase, rows: int | None, next_rows: int | None, why: str) -> bool:
        """Counts a shortage and writes it down; says whether the work that is done again is what it would have been."""
        self.times, self.in_a_row = self.times + 1, self.in_a_row + 1
        exact = phase != "backward" or not self.config.adapter.dropout
        self._write_down(phase, rows, next_rows, why, cause="memory", exact=exact)
        return exact

    def _write_down(
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
            hint=self.cure(phase, self.settings),
        )

    def _but(self) -> str:
        is_bnpo = self.config.grpo.loss == "bnpo" and "memory.micro_batch" in self.settings
        return " (bnpo averages over each micro-batch: its gradient changes with it)" if is_bnpo else ""
