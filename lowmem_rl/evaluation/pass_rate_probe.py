"""The base model's pass rate per example: it decides which group size carries signal."""

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
    """How many of an example's samples are right (leniently)."""

    example_id: str
    passed: int
    samples: int
    interval: Interval


@dataclass(frozen=True, slots=True)
class PassRateProbe:
    """Pass rates of a base model on training examples; the unit of the interval is the example."""

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
    """Samples each example `samples` times as training would, and counts the right answers. `examples` is not empty."""
    prompts = [example.prompt for example in examples for _ in range(samples)]
    streams = [f"probe {config.seed}/{example.id}/{number}" for example in examples for number in range(samples)]
    passed, truncated = [0] * len(examples), 0
    batch = config.eval.batch
    params, limit = SamplingParams.of(config.rollout), config.grpo.max_completion_tokens
    answers = sampler.answers(prompts, params, max_tokens=limit, batch=batch, streams=streams)
    for number, (row, completion) in enumerate(answers, start=1):
        index = row // samples
        passed[index] += grader.is_right(completion.text, examples[index])
        truncated += completion.truncated
        if number % batch == 0 or number == len(prompts):
            on_progress(number)
    rate, interval = clustered_share(passed, samples)
    rates = tuple(
        ExampleRate(example.id, count, samples, wilson(count, samples))
        for example, count in zip(examples, passed, strict=True)
    )
    share = truncated / len(prompts)
    return PassRateProbe(config.model.name, config.task.name, samples, rate, interval, share, rates)
