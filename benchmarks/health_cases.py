"""The runs of `health_failures.py`: failures, with how each is provoked, and healthy runs."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

from lowmem_rl.engine import backend
from lowmem_rl.engine.decoder import Decoder
from lowmem_rl.engine.decoder_weights import merged
from lowmem_rl.storage.run_dir import Row
from lowmem_rl.telemetry.metrics import diverged

REWARDS = Path(__file__).with_name("health_rewards.py")

Onset = Callable[[Sequence[Row]], int | None]
"""Returns the step since which the rows show a failure, None if they never do."""
Spoil = Callable[[Path], None]
"""Changes a copy of the model's folder so that it has a mistake."""
Sabotage = Callable[[], AbstractContextManager[object]]
"""Patches a mistake into this library for the length of a block."""


def from_the_start(rows: Sequence[Row]) -> int | None:
    """Returns the first step, whose completions already show it."""
    return rows[0]["step"] if rows else None


def since(metric: str, has_gone_wrong: Callable[[float, float], bool]) -> Onset:
    """Returns a rule: the first three consecutive steps (fewer at the end) whose mean has gone wrong.

    It is compared with the mean of the run's first two steps.
    """

    def onset(rows: Sequence[Row]) -> int | None:
        values = [row.get(metric) or 0.0 for row in rows]
        before = fmean(values[:2])
        moments = (i for i in range(2, len(values)) if has_gone_wrong(before, fmean(values[i : i + 3])))
        return next((rows[i]["step"] for i in moments), None)

    return onset


def without_a_number(rows: Sequence[Row]) -> int | None:
    """Returns the first step whose loss or gradient is not a number."""
    return next((row["step"] for row in rows if diverged(row)), None)


def halved(metric: str) -> Onset:
    """Returns a rule: less than half of what it was."""
    return since(metric, lambda before, now: now < before / 2)


def risen(metric: str, by: float) -> Onset:
    """Returns a rule: more than it was by a fixed amount."""
    return since(metric, lambda before, now: now > before + by)


def change_end_of_turn(folder: Path) -> None:
    """Declares another token as the end of a turn."""
    for name, key, value in (
        ("generation_config.json", "eos_token_id", 0),
        ("config.json", "eos_token_id", 0),
        ("tokenizer_config.json", "eos_token", "<|endoftext|>"),
    ):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps(content | {key: value}))


def open_think_tag(folder: Path) -> None:
    """Makes the chat template write the tag, as those of reasoning models do."""
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant\n{% endif %}", "assistant\n<think>{% endif %}"))


@contextmanager
def keeps_its_first_weights() -> Iterator[None]:
    """Makes the sampler keep its first copy of the weights, as a separate engine without synchronisation would."""
    copies: dict[int, Decoder] = {}

    def first_copy(model: Any, places: int, kept: object) -> Decoder:
        return copies.setdefault(places, merged(model, places))

    with patch.object(backend, "merged", first_copy):
        yield


@dataclass(frozen=True, slots=True)
class Case:
    """One run. A failure has expected findings, a healthy run has none."""

    name: str
    about: str
    expected: tuple[str, ...] = ()
    """Any of these findings counts."""
    settings: tuple[str, ...] = ()
    rewards: tuple[str, ...] = ()
    onset: Onset = from_the_start
    task: str = "arithmetic"
    spoil: Spoil | None = None
    sabotage: Sabotage = nullcontext
    steps: int = 30


def wrong(function: str) -> str:
    """Returns the setting of a reward of health_rewards.py with weight 1."""
    return f"{REWARDS}:{function}=1.0"


FAILURES = (
    Case(
        "learning rate 100x",
        "5e-2 instead of 5e-4",
        ("learning_rate_too_high",),
        ("optimizer.learning_rate=0.05",),
        onset=halved("accuracy"),
        steps=20,
    ),
    Case(
        "learning rate climbs too far",
        "a warm-up of 20 steps to 2e-2",
        ("learning_rate_too_high",),
        ("optimizer.learning_rate=0.02", "optimizer.warmup_steps=20"),
        onset=since("accuracy", lambda before, now: now < before / 2),
        steps=30,
    ),
    Case(
        "learning rate near zero",
        "5e-9 instead of 5e-4, with a tiny KL term to measure the KL",
        ("learning_rate_too_low",),
        ("optimizer.learning_rate=5e-9", "grpo.beta=1e-6"),
        steps=22,
    ),
    Case(
        "no number",
        "gradients of any norm at a rate of 1, under a KL term that overflows",
        ("not_a_number",),
        ("optimizer.learning_rate=1.0", "optimizer.max_grad_norm=1e30", "grpo.beta=1e30"),
        onset=without_a_number,
        steps=5,
    ),
    Case(
        "completions too short",
        "16 tokens for answers of 40 to 70",
        ("truncation_wall",),
        ("grpo.max_completion_tokens=16",),
        task="program_synthesis",
        steps=10,
    ),
    Case(
        "dead reward",
        "a reward for words that the model never writes",
        ("dead_reward",),
        rewards=(wrong("deaf"),),
        steps=14,
    ),
    Case(
        "reward that breaks down",
        "a reward that pays nothing from about the tenth step on",
        ("dead_reward",),
        rewards=(wrong("breaks_down"),),
        onset=since("reward", lambda before, now: now == 0),
        steps=26,
    ),
    Case(
        "pairs on a hard task",
        "groups of 2 on two digits times two, of which the model can do few",
        ("dead_groups", "dead_reward"),
        (
            "grpo.group_size=2",
            "grpo.pairwise=true",
            "grpo.scale_rewards=none",
            "memory.micro_batch=16",
            "task.levels=[5]",
        ),
        ("boxed_answer=1.0",),
        steps=14,
    ),
    Case(
        "prefilled think tag",
        "the template opens the tag, the format reward requires it on a separate line",
        ("template_mismatch",),
        rewards=("boxed_answer=1.0", f"{REWARDS}:format_on_lines_of_its_own=0.5"),
        spoil=open_think_tag,
        steps=14,
    ),
    Case(
        "no end of turn",
        "the model folder names another token as the end of a turn",
        ("template_mismatch",),
        spoil=change_end_of_turn,
        steps=6,
    ),
    Case(
        "hacked reward",
        "one digit is paid, anywhere in the box",
        ("reward_hacking",),
        ("optimizer.learning_rate=1.5e-3",),
        (wrong("mostly_sevens"),),
        onset=risen("reward", 0.15),
        steps=35,
    ),
    Case(
        "format alone",
        "a format is paid that only careless completions have",
        ("format_gain",),
        rewards=(wrong("format_without_thoughts"),),
        onset=risen("reward", 0.1),
        steps=30,
    ),
    Case(
        "one answer for all",
        "the digit of the hacked reward is paid at 2e-3, until the model writes nothing else",
        ("input_agnostic", "entropy_collapse"),
        ("optimizer.learning_rate=2e-3", "optimizer.schedule=constant"),
        (wrong("mostly_sevens"),),
        onset=since("reward", lambda before, now: now > 0.9),
        steps=50,
    ),
    Case(
        "far from the base",
        "a learning rate of 2e-2 with a KL term that is too weak for it",
        ("kl_blowup",),
        ("optimizer.learning_rate=0.02", "grpo.beta=1e-6"),
        onset=since("kl", lambda before, now: now > 2.0),
        steps=24,
    ),
    Case(
        "ever longer",
        "length is paid, with any content",
        ("length_explosion",),
        ("grpo.max_completion_tokens=160", "optimizer.learning_rate=2e-3"),
        (wrong("longer_is_better"),),
        onset=since("completion_tokens", lambda before, now: now > 1.5 * before),
        task="program_synthesis",
        steps=40,
    ),
    Case(
        "ever shorter",
        "brevity is paid, with any content",
        ("length_collapse",),
        ("optimizer.learning_rate=2e-3",),
        rewards=(wrong("shorter_is_better"),),
        onset=since("completion_tokens", lambda before, now: now < before / 1.5),
        task="program_synthesis",
        steps=60,
    ),
    Case(
        "old weights",
        "the sampler keeps the weights of the first step",
        ("sampler_mismatch",),
        sabotage=keeps_its_first_weights,
        steps=6,
    ),
    Case(
        "too hot",
        "a temperature of 4",
        ("gibberish",),
        ("rollout.temperature=4.0",),
        steps=6,
    ),
)

HEALTHY = (
    *[Case("arithmetic", "the preset")] * 8,
    *[Case("arithmetic, any_answer", "lenient answers paid", rewards=("any_answer=1.0",))] * 3,
    *[Case("countdown, answer_tags", "the format paid", rewards=("answer_tags=1.0",), task="countdown")] * 3,
    *[Case("matrix_inverse", "entries paid", rewards=("matrix_rows=1.0",), task="matrix_inverse")] * 3,
    *[Case("program_synthesis", "correct results paid", rewards=("program_synthesis=1.0",), task="program_synthesis")]
    * 3,
)


ROLL_BACK = Case(
    "roll-back",
    "a warm-up of 20 steps to 2e-2, and a rollback",
    settings=(
        "optimizer.learning_rate=0.02",
        "optimizer.warmup_steps=20",
        "optimizer.schedule=constant",
        "health.action=roll_back",
        "logging.checkpoint_every=5",
        "eval.every=5",
        "eval.examples=100",
        "eval.quick_examples=100",
    ),
    steps=60,
)
