"""The base model's pass rate, example by example: what decides which group size carries signal."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.engine.sampling import SamplingParams
from lowmem_rl.evaluation.grader import Grader
from lowmem_rl.example import Example
from lowmem_rl.stats import Interval, clustered_share, wilson


@dataclass(frozen=True, slots=True)
class ExampleRate:
    """How many of an example's samples were right (leniently)."""

    example_id: str
    passed: int
    samples: int
    interval: Interval


@dataclass(frozen=True, slots=True)
class PassRateProbe:
    """Pass rates of a base model on training examples; the interval takes the example as the unit."""

    model: str
    task: str
    samples: int
    pass_rate: float
    interval: Interval
    truncated_share: float
    examples: tuple[ExampleRate, ...]

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self)

    @property
    def counts(self) -> list[tuple[int, int]]:
        """(passed, samples) of each example."""
        return [(example.passed, example.samples) for example in self.examples]


def probe(
    sampler: Sampler,
    config: RunConfig,
    examples: Sequence[Example],
    grader: Grader,
    *,
    samples: int,
    on_progress: Callable[[int], None] = lambda done: None,
) -> PassRateProbe:
    """Samples each example `samples` times as training would, and counts the right answers."""
    prompts = [example.prompt for example in examples for _ in range(samples)]
    names = [f"probe {config.seed}/{example.id}/{number}" for example in examples for number in range(samples)]
    passed, truncated = [0] * len(examples), 0
    batch = config.eval.batch
    params, limit = SamplingParams.of(config.rollout), config.grpo.max_completion_tokens
    answers = sampler.answers(prompts, params, max_tokens=limit, batch=batch, names=names)
    for number, (row, completion) in enumerate(answers, start=1):
        index = row // samples
        passed[index] += grader.is_right(completion.text, examples[index])
        truncated += completion.truncated
        if number % batch == 0 or number == len(prompts):
            on_progress(number)
    return summarise_probe(config, examples, passed, samples, truncated / len(prompts))


def summarise_probe(
    config: RunConfig, examples: Sequence[Example], passed: Sequence[int], samples: int, truncated_share: float
) -> PassRateProbe:
    """Returns the rates with their intervals. `examples` is not empty."""
    rate, interval = clustered_share(passed, samples)
    rows = (
        ExampleRate(example.id, count, samples, wilson(count, samples))
        for example, count in zip(examples, passed, strict=True)
    )
    return PassRateProbe(config.model.name, config.task.name, samples, rate, interval, truncated_share, tuple(rows))
