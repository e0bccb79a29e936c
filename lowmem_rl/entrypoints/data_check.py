"""Reads a run's data, renders its prompts and tries its rewards, as `train` does before it loads the model.

Nothing is fetched: data that is not on this disk is left to `train`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.entrypoints.preflight import (
    check_order,
    check_sample,
    check_scoring,
    control_notes,
    load_examples,
    other_model_notes,
)
from lowmem_rl.entrypoints.prompt_check import check_prompts
from lowmem_rl.errors import LowMemError, SetupError, TaskError
from lowmem_rl.evaluation.eval_set import another_task, held_out
from lowmem_rl.example import Example
from lowmem_rl.models.lookup import check_tokenizer
from lowmem_rl.rewards.adversarial_cases import general_cases
from lowmem_rl.rewards.reward import RewardSet
from lowmem_rl.rewards.reward_check import check_rewards
from lowmem_rl.tasks.curriculum import Rates
from lowmem_rl.tasks.task import Task
from lowmem_rl.tasks.task_check import check_left_out
from lowmem_rl.tasks.task_registry import load_task


@dataclass(slots=True)
class DataCheck:
    """What was found: the errors with which `train` would end, and what a user should know."""

    force: bool
    refusals: list[LowMemError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, check: Callable[[], Iterable[str] | None], *, overridable: bool = False) -> None:
        """Runs one check and keeps the notes that it returns, or the error that it raises."""
        try:
            self.notes += check() or ()
        except LowMemError as error:
            if overridable and self.force and isinstance(error, TaskError):
                self.notes.append(f"--force overrides: {error}")
            elif str(error) not in map(str, self.refusals):  # two checks can find the same reward failing
                self.refusals.append(error)


def check_data(config: RunConfig, rewards: RewardSet, task: Task, rates: Rates, *, force: bool = False) -> DataCheck:
    """Returns the findings of all checks; one that fails does not hide the others."""
    found = DataCheck(force)
    found.run(lambda: check_tokenizer(config.model.name, config.model.revision))
    try:
        train, test = _read(config, task, rates)
    except SetupError as error:
        found.notes.append(f"the data is neither read nor tried: {error}")
        found.run(lambda: check_prompts(config, ()))
        found.run(lambda: _tried_elsewhere(rewards))
    except LowMemError as error:
        found.refusals.append(error)
        found.run(lambda: check_prompts(config, ()))
    else:
        found.notes.append(f"read {len(train)} training examples and {len(test)} held-out ones of {config.task.name}")
        found.run(lambda: check_prompts(config, [*train, *test]))
        found.run(lambda: check_scoring(config, rewards, task, train), overridable=True)
        found.run(lambda: check_sample(config, rewards, task, train, test), overridable=True)
        found.run(lambda: [*check_order(config, train, rates), *control_notes(rewards, task, train)])
        found.run(lambda: [finding.what for finding in check_left_out(task)])
    found.run(lambda: other_model_notes(config))
    for name in dict.fromkeys(config.eval.tasks):
        if name != config.task.name:
            found.run(lambda name=name: _held_out_notes(config, name))  # type: ignore[misc]
    return found


def _read(config: RunConfig, task: Task, rates: Rates) -> tuple[Sequence[Example], Sequence[Example]]:
    """Returns the examples of both splits. Raises `SetupError` if they are not on this disk, `TaskError`."""
    if not getattr(task, "is_on_disk", True):
        raise SetupError(f"{getattr(task, 'source', task.name)} is not on this disk, and `train` fetches it.")
    return load_examples(config, task, rates)


def _tried_elsewhere(rewards: RewardSet) -> list[str]:
    """Returns a note on rewards that fail on built-in problems: their data may have what these problems lack."""
    failed = [one for one in check_rewards(rewards, general_cases()) if one.fault in ("fails", "hangs")]
    return [f"on built-in problems: {finding} {finding.fix}" for finding in failed]


def _held_out_notes(config: RunConfig, name: str) -> list[str]:
    task = load_task(another_task(config, name))
    if not getattr(task, "is_on_disk", True):
        return [f"the evaluation on {name} is not tried: its data is not on this disk"]
    held_out(config, another_task(config, name))
    return []
