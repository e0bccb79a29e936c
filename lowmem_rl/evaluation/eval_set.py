"""`EvalSet`: the questions of an evaluation, and what grades the answers."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b

from lowmem_rl.config.run_config import RunConfig, TaskConfig
from lowmem_rl.engine.row_length import SequenceUse, asking
from lowmem_rl.engine.sampling_params import GREEDY, SamplingParams
from lowmem_rl.errors import TaskError
from lowmem_rl.evaluation.eval_items import Key
from lowmem_rl.evaluation.grader import Grader, grader_of
from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import RewardSet
from lowmem_rl.tasks.select import draw_examples
from lowmem_rl.tasks.task import Selection, Task
from lowmem_rl.tasks.task_registry import load_task

_NO_REWARDS = RewardSet((), ())


@dataclass(frozen=True, slots=True)
class EvalSet:
    """Held-out examples of one task, each answered once greedily and `samples` times by sampling."""

    task: TaskConfig
    examples: Sequence[Example]
    grader: Grader
    max_tokens: int
    batch: int
    samples: int = 0
    params: SamplingParams = GREEDY
    """Sampling parameters of the samples."""
    seed: int = 0
    rewards: RewardSet = _NO_REWARDS
    """Scored too, but not part of the grades."""
    in_domain: bool | None = None
    """True if the run learns this task; None if there is no run."""

    @property
    def total(self) -> int:
        """Number of completions."""
        return len(self.examples) * (1 + self.samples)

    @property
    def greedy(self) -> list[Key]:
        return [(example.id, 0) for example in self.examples]

    @property
    def sampled(self) -> list[Key]:
        return [(example.id, number) for example in self.examples for number in range(1, self.samples + 1)]

    @property
    def use(self) -> SequenceUse:
        """The sequences that the model reads for it."""
        prompts = [example.prompt for example in self.examples]
        return asking(f"the evaluation on {self.task.name}", prompts, self.max_tokens)

    def digest(self, weights: str, params: SamplingParams) -> str:
        """Returns a key of all that decides an answer except the example itself: answers under it can be combined."""
        scored = [reward.name for reward in self.rewards.rewards]
        settings = json.dumps([self.task.model_dump(mode="json"), self.max_tokens, self.seed, asdict(params), scored])
        return blake2b(f"{weights} {settings}".encode(), digest_size=8).hexdigest()


def eval_set_of(
    config: RunConfig, task: TaskConfig, examples: Sequence[Example], grader: Grader, rewards: RewardSet = _NO_REWARDS
) -> EvalSet:
    """Returns the full evaluation of a run on a task."""
    return EvalSet(
        task=task,
        examples=examples,
        grader=grader,
        max_tokens=config.grpo.max_completion_tokens,
        batch=config.eval.batch,
        samples=config.eval.samples,
        params=SamplingParams.of(config.rollout),
        seed=config.seed,
        rewards=rewards,
        in_domain=task.name == config.task.name,
    )


def held_out(config: RunConfig, task_config: TaskConfig) -> EvalSet:
    """Returns the full evaluation on a task's held-out examples. Raises `UnknownName`, `TaskError`, `SetupError`."""
    task = load_task(task_config)
    grader = grader_of(task)
    return eval_set_of(config, task_config, held_out_examples(task, task_config, config.eval.examples), grader)


def held_out_examples(task: Task, config: TaskConfig, most: int) -> list[Example]:
    """Returns the first `most` examples that training never draws. Raises `TaskError` if there are none."""
    examples = draw_examples(task, Selection("test", most, config.levels), most)
    if not examples:
        where = config.path or config.hub
        rows = "Give more rows, or raise task.eval_share: without it one row in 20 is held out."
        raise TaskError(
            f"Task {config.name!r}{f' on {where!r}' if where else ''} has no held-out examples.",
            hint=rows if config.name == "table" else "Choose other levels or data.",
        )
    return examples


def another_task(config: RunConfig, name: str) -> TaskConfig:
    """Returns the settings of a further task of a run: the run's prompt, the task's own data and levels."""
    return TaskConfig(name=name, prompt=config.task.prompt)
