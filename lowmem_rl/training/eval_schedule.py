"""The evaluations of one run: before, during and after; written to eval.json; the best one's adapter kept.

All of it can be read back: a run that was stopped in the middle of an evaluation continues there.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from hashlib import blake2b
from re import sub
from typing import Any

from lowmem_rl.checkpointing.trainer_state import TrainerLike
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.rng import preserved_rng
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.errors import RewardError
from lowmem_rl.evaluation.eval_items import read_items
from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.evaluation.eval_set import EvalSet
from lowmem_rl.evaluation.evaluate import EvalFiles, evaluate
from lowmem_rl.evaluation.prompt_limit import eval_set_with_room
from lowmem_rl.evaluation.summary import compare
from lowmem_rl.stats import wilson
from lowmem_rl.storage.disk import write_dir_atomic
from lowmem_rl.storage.lock import exclusive
from lowmem_rl.storage.run_dir import Row, RunDir, write_json
from lowmem_rl.storage.run_reader import RunReader
from lowmem_rl.telemetry.events import EvalEnded, EvalProgressed, Listener, Note

Protect = Callable[[Callable[[], str]], AbstractContextManager[None]]

BEFORE, AFTER = "before", "after"
OPTIMISTIC = "the highest of several figures on these items: expect less on others"


@dataclass(frozen=True, slots=True)
class BestCheckpoint:
    """The evaluation whose adapter is kept, by lenient greedy accuracy on the items that all evaluations share.

    Of equal ones it is the earlier, which has drifted less from the base model.
    """

    step: int
    name: str
    pass_at_1: float
    num_examples: int
    chosen_of: int
    """Evaluations it was chosen from."""

    def to_json(self) -> Row:
        """Returns plain JSON data with the interval, and with a warning if there was a choice."""
        interval = wilson(self.pass_at_1 * self.num_examples, self.num_examples)
        reported = asdict(self) | {"pass_at_1_interval": asdict(interval)}
        return reported | ({"note": OPTIMISTIC} if self.chosen_of > 1 else {})

    @classmethod
    def from_json(cls, reported: Row) -> "BestCheckpoint":
        """Returns what `to_json` has written. Raises KeyError or TypeError for anything else."""
        return cls(**{name: reported[name] for name in ("step", "name", "pass_at_1", "num_examples", "chosen_of")})


class EvalSchedule:
    """Evaluates a run, and keeps eval.json and best/ up to date."""

    def __init__(
        self,
        run_dir: RunDir,
        config: RunConfig,
        sampler: Sampler,
        own: EvalSet,
        further: Sequence[EvalSet] = (),
        listen: Listener = lambda event: None,
        protect: Protect = lambda where: nullcontext(),
    ) -> None:
        """`protect` surrounds an evaluation between two steps: memory may run out in it."""
        self.protect = protect
        self.run_dir, self.config, self.sampler, self.listen = run_dir, config, sampler, listen
        self.own, *self.further = (
            eval_set_with_room(sampler.policy, asked, lambda text: listen(Note(text))) for asked in (own, *further)
        )
        self.reported = RunReader(run_dir).evaluations_to_extend()

    @property
    def best(self) -> BestCheckpoint | None:
        """The best evaluation so far."""
        return BestCheckpoint.from_json(self.reported["best"]) if self.reported["best"] else None

    def before(self) -> EvalResult:
        """Evaluates fully before training, if that is not done already.

        Raises `RewardError` if rewards fail on more completions than health.max_reward_error_share.
        """
        if self.reported[BEFORE]:
            return EvalResult.from_json(self.reported[BEFORE])
        result = self._evaluate(self.own, BEFORE, step=0)
        self._keep_best(BEFORE, 0)
        self._evaluate_further(BEFORE, step=0)
        self._write(before=result.to_json())  # last: it says that all of this is done
        return result

    def at_boundary(self, trainer: TrainerLike) -> None:
        """Evaluates if it is due after this step."""
        self.evaluate_if_due(trainer.step)

    def evaluate_if_due(self, step: int) -> None:
        """Evaluates after `step` unless that is done already; the last step is evaluated fully by `after`."""
        every = self.config.eval.every
        if every and step % every == 0 and step != self.config.grpo.steps and not self.has(step):
            self.during(step)

    def during(self, step: int) -> EvalResult:
        """Evaluates cheaply between two steps, and leaves training's random numbers as they are."""
        with preserved_rng(), self.protect(lambda: f"In the evaluation after step {step}"):
            return self._evaluate_few(step)

    def _evaluate_few(self, step: int) -> EvalResult:
        name = f"step-{step:06d}"
        few = self.own.examples[: self.config.eval.quick_examples]
        result = self._evaluate(replace(self.own, examples=few, samples=0), name, step=step)
        earlier = [other for other in self.reported["during"] if other["step"] != step]
        self.reported["during"] = sorted([*earlier, result.to_json()], key=lambda other: other["step"])
        self._keep_best(name, step)  # it writes both: an evaluation that counts as done was compared here
        return result

    def after(self) -> EvalResult:
        """Evaluates fully after training, and compares with before."""
        step = self.config.grpo.steps
        result = self._evaluate(self.own, AFTER, step=step)
        gained = self._gained(EvalResult.from_json(self.reported[BEFORE]), result)
        self._keep_best(AFTER, step)
        self._evaluate_further(AFTER, step=step)
        self._write(after=result.to_json(), comparison=gained)  # last: it says that all of this is done
        return result

    def has(self, step: int) -> bool:
        """Returns whether the cheap evaluation of a step is done."""
        return any(result["step"] == step for result in self.reported["during"])

    def forget_after(self, step: int) -> None:
        """Drops what was evaluated after the step from which the run continues."""
        during = [result for result in self.reported["during"] if result["step"] <= step]
        further = {task: {BEFORE: found.get(BEFORE)} for task, found in self.reported["out_of_domain"].items()}
        self._write(during=during, out_of_domain=further, after=None, comparison=None)

    def _evaluate(self, asked: EvalSet, name: str, *, step: int) -> EvalResult:
        failed: list[RewardError] = []
        result = evaluate(
            self.sampler,
            asked,
            EvalFiles.of(self.run_dir, name),
            step=step,
            on_progress=lambda done: self.listen(EvalProgressed(name, done, asked.total)),
            on_failure=failed.append,
        )
        self._report_failures(failed, asked.total, is_first=step == 0)
        self.listen(EvalEnded(name, result))
        return result

    def _report_failures(self, failed: Sequence[RewardError], scored: int, *, is_first: bool) -> None:
        """Notes rewards that failed. Too many stop a run before training; later they must not cost what was learned."""
        for error in failed:
            self.listen(Note(str(error)))
        if is_first and len(failed) > self.config.health.max_reward_error_share * scored:
            raise failed[-1]

    def _evaluate_further(self, when: str, *, step: int) -> None:
        for asked in self.further:
            found: Row = dict(self.reported["out_of_domain"].get(asked.task.name) or {})
            if found.get(when):
                continue
            found[when] = (result := self._evaluate(asked, f"{when}-{file_name(asked.task.name)}", step=step)).to_json()
            if when == AFTER and found.get(BEFORE):
                found["comparison"] = self._gained(EvalResult.from_json(found[BEFORE]), result, asked.task.name)
            self._write(out_of_domain=self.reported["out_of_domain"] | {asked.task.name: found})

    def _gained(self, before: EvalResult, after: EvalResult, task: str | None = None) -> Row:
        suffix = f"-{file_name(task)}" if task else ""
        rows = (read_items(self.run_dir.eval_items(f"{when}{suffix}")) for when in (BEFORE, AFTER))
        return compare(before, after, *rows)

    def _keep_best(self, name: str, step: int) -> None:
        """Saves the adapter if this evaluation is better than all before it."""
        share, total = self._quick_accuracy(name)
        best, seen = self.best, 1 + len(self.reported["during"]) + (name == AFTER)
        if best is None or share > best.pass_at_1:
            write_dir_atomic(self.run_dir.best, self.sampler.policy.save_adapter)
            best = BestCheckpoint(step, name, share, total, seen)
        self._write(best=replace(best, chosen_of=seen).to_json())

    def _quick_accuracy(self, name: str) -> tuple[float, int]:
        """Returns the lenient accuracy on the items of the cheap evaluations, and their number."""
        few = {example.id for example in self.own.examples[: self.config.eval.quick_examples]}
        right = [item.correct for item in read_items(self.run_dir.eval_items(name)) if item.example_id in few]
        return sum(right) / len(right), len(right)

    def _write(self, **parts: Any) -> None:
        with exclusive(self.run_dir.path):  # what `lowmem-rl eval` has added in the meantime stays
            later = RunReader(self.run_dir).evaluations_to_extend().get("later")
            self.reported |= parts | ({"later": later} if later else {})
            write_json(self.run_dir.evaluations, self.reported)


def file_name(task: str) -> str:
    """Returns a task's name as a part of a file's; a user's own, FILE.py:CLASS, with a mark of its path."""
    plain = sub(r"[^\w-]+", "_", task.rpartition(":")[2])
    return plain if plain == task else f"{plain}-{blake2b(task.encode(), digest_size=3).hexdigest()}"
