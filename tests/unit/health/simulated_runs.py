"""Simulated runs without a model: healthy ones, and ones with a fault from some step on.

A healthy run has prompts of uneven difficulty, a pass rate that rises or stays, a format that is learned, lengths that
grow with success, entropy that falls with it, and the noise that so many completions a step have.
"""

import json
import math
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.health.history import EvalPoint, RunHistory, Sample
from lowmem_rl.storage.run_dir import Row

SAMPLES_EVERY = 10
WORDS = [
    "first",
    "we",
    "add",
    "tens",
    "then",
    "carry",
    "over",
    "each",
    "apple",
    "that",
    "remains",
    "half",
    "of",
    "what",
]


@dataclass
class Policy:
    """What the run is like at one step; a fault changes it."""

    pass_rate: float
    form: float
    tokens: float
    entropy: float
    grad_norm: float = 0.1
    unevenness: float = 3.0
    hacked: float = 0.0
    """Extra reward of a completion, however wrong it is."""
    extra: dict[str, Any] = field(default_factory=dict)
    write: Callable[[random.Random, str, str], str] | None = None


Fault = Callable[[Policy, int], None]
"""Changes the policy, given the steps since its onset."""


def some_config(rng: random.Random, **grpo: Any) -> RunConfig:
    group_size, prompts = rng.choice((4, 8, 16)), rng.choice((1, 2, 4, 8, 16))
    tokens = rng.randint(20, 600)
    chosen = {"group_size": group_size, "prompts_per_step": prompts, "max_completion_tokens": int(tokens * 4)} | grpo
    return RunConfig.model_validate({"grpo": chosen})


def simulate(
    seed: int,
    steps: int = 40,
    *,
    config: RunConfig | None = None,
    start: float | None = None,
    fault: Fault | None = None,
    onset: int = 1,
) -> RunHistory:
    rng = random.Random(seed)
    config = config or some_config(rng)
    start = rng.uniform(0.2, 0.7) if start is None else start
    end = min(0.97, start + rng.uniform(0.0, 0.4))
    form, tokens = rng.uniform(0.3, 1.0), config.grpo.max_completion_tokens / 4
    entropy, growth = rng.uniform(0.1, 0.6), rng.uniform(0.9, 1.8)
    rows: list[Row] = []
    samples: list[Sample] = []
    evaluations = [_evaluation(rng, 0, start, tokens, 500)]
    for step in range(1, steps + 1):
        learned = 1 / (1 + math.exp(-12 * (step / steps - 0.5)))
        rate = start + (end - start) * learned
        policy = Policy(
            pass_rate=rate,
            form=form + (0.99 - form) * learned,
            tokens=tokens * (1 + (growth - 1) * learned * (end - start) / 0.4),
            entropy=entropy * (1 - rate) / (1 - start) + 0.005,
        )
        if fault is not None and step >= onset:
            fault(policy, step - onset)
        row, kept = _step(rng, step, config, policy)
        rows.append(row)
        samples += kept if (step - 1) % SAMPLES_EVERY == 0 else []
        if step % 10 == 0:
            evaluations.append(_evaluation(rng, step, policy.pass_rate, policy.tokens, 100))
    return RunHistory(config, tuple(rows), tuple(samples), tuple(evaluations))


def _step(rng: random.Random, step: int, config: RunConfig, policy: Policy) -> tuple[Row, list[Sample]]:
    groups, samples = [], []
    lengths, right_ones, forms, cut = [], 0, 0, 0
    for _ in range(config.grpo.prompts_per_step):
        rate = _draw_rate(rng, policy)
        question, answer = _question(rng)
        rewards = []
        for _ in range(config.grpo.group_size):
            length = policy.tokens * rng.lognormvariate(0, 0.3)
            truncated = length > config.grpo.max_completion_tokens
            right, formed = not truncated and rng.random() < rate, rng.random() < policy.form
            rewards.append(
                config.rewards.get("boxed_answer", 0.0) * max(float(right), policy.hacked)
                + config.rewards.get("think_format", 0.0) * formed
            )
            lengths.append(min(length, config.grpo.max_completion_tokens))
            right_ones, forms, cut = right_ones + right, forms + formed, cut + truncated
            text = (policy.write or _working)(rng, question, answer if right else str(rng.randrange(1000)))
            samples.append(Sample(step, question, question, answer, text, truncated))
        groups.append(rewards)
    count = len(lengths)
    paid = [reward for group in groups for reward in group]
    row: Row = {
        "step": step,
        "loss": rng.gauss(0, 0.1),
        "grad_norm": policy.grad_norm * rng.lognormvariate(0, 0.4),
        "learning_rate": config.optimizer.learning_rate,
        "reward": sum(paid) / count,
        "reward_std": _deviation(paid),
        "entropy": policy.entropy * rng.lognormvariate(0, 0.1),
        "completion_tokens": sum(lengths) / count,
        "truncated_share": cut / count,
        "rollout_gap_nats": rng.lognormvariate(-5, 0.5),
        "kl": 0.1 * rng.random(),
        "scores/boxed_answer": max(right_ones / count, policy.hacked),
        "scores/think_format": forms / count,
        "accuracy": right_ones / count,
        "informative_share": sum(max(group) > min(group) for group in groups) / len(groups),
    }
    return row | policy.extra, samples


def _draw_rate(rng: random.Random, policy: Policy) -> float:
    if policy.pass_rate in (0.0, 1.0):
        return policy.pass_rate
    return rng.betavariate(policy.unevenness * policy.pass_rate, policy.unevenness * (1 - policy.pass_rate))


def _question(rng: random.Random) -> tuple[str, str]:
    a, b = rng.randrange(100, 1000), rng.randrange(2, 10)
    return f"What is {a} * {b}?", str(a * b)


def _working(rng: random.Random, question: str, answer: str) -> str:
    return f"<think>{question[8:-1]}: {' '.join(rng.choices(WORDS, k=rng.randint(3, 40)))}</think>\\boxed{{{answer}}}"


def _evaluation(rng: random.Random, step: int, rate: float, tokens: float, examples: int) -> EvalPoint:
    right = sum(rng.random() < rate for _ in range(examples))
    return EvalPoint(step, right / examples, examples, tokens * rng.uniform(0.97, 1.03))


def _deviation(values: list[float]) -> float:
    mean = sum(values) / len(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))


def write_run(path: Path, record: RunHistory) -> Path:
    """Writes a record as a run directory has it."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.json").write_text(json.dumps({"preset": "x", "config": record.config.model_dump(mode="json")}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in record.rows))
    (path / "samples.jsonl").write_text("".join(json.dumps(asdict(sample)) + "\n" for sample in record.samples))
    before, *during = map(asdict, record.evaluations)
    (path / "eval.json").write_text(json.dumps({"before": before, "during": during}))
    return path
