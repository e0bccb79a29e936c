"""Settings of runs that need neither network nor data: made-up questions, and rows as short as the embedded model's."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Settings = dict[str, Any]
"""Values by key, as a user gives them with `--set`."""

QUESTIONS = 400
STEPS = QUESTIONS // 16
"""Steps of a run that draws all questions: two for each prompt of its steps, 8 prompts a step."""
MADE_UP: Settings = {"task.name": "arithmetic", "task.levels": "[3]", "task.prompt": "bare"}
"""A task without a download."""
ON_QUESTIONS: Settings = {"task.name": "gsm8k", "task.levels": "[]", "task.prompt": "bare", "grpo.steps": STEPS}
"""The task whose questions `write_questions` writes; `task.path` names their folder."""
SHORT: Settings = {
    "grpo.group_size": 4,
    "grpo.prompts_per_step": 2,
    "grpo.max_prompt_tokens": 128,
    "grpo.max_completion_tokens": 24,
    "eval.batch": 4,
}
"""Rows of the embedded model."""
RUN: Settings = {
    "grpo.steps": 3,
    "logging.checkpoint_every": 1,
    "optimizer.name": "adamw_8bit",  # as the presets for cards have it
    "rollout.engine": "lowmem",  # two runs that choose by speed may choose differently
    "eval.every": 2,
    "eval.examples": 64,
    "eval.quick_examples": 16,
}
"""A run of three steps that can be killed, compared and exported."""
SHORT_RUN: Settings = RUN | {
    "grpo.prompts_per_step": 2,
    "grpo.max_completion_tokens": 16,
    "memory.micro_batch": 8,
    "eval.every": 0,
    "eval.examples": 4,
    "eval.quick_examples": 4,
}
"""The same with short rows."""
SHORTAGE: Settings = {
    "grpo.steps": 1,
    "grpo.group_size": 8,
    "memory.checkpointing": "none",
    "rewards": "{random = 1.0}",
    "eval.examples": 4,
    "eval.every": 0,
    "logging.samples_every": 1,
}
"""One step whose memory is limited."""
SIX_SMALL_BATCHES: Settings = {"grpo.prompts_per_step": 24, "memory.micro_batch": 32, "grpo.max_completion_tokens": 24}
"""Six micro-batches of equal rows: memory is measured in the fourth and limited in the fifth. PyTorch reserves blocks
of 20 MB, which even those of the embedded model's shape have to exceed."""
SIX_CUT_OFF_BATCHES: Settings = {
    "grpo.prompts_per_step": 384,
    "memory.micro_batch": 512,
    "grpo.max_completion_tokens": 8,
}
"""The same for a model that has learned to answer: rows that are all cut off are equal. Unsloth checks new shapes."""
QUICK_CUT_OFF_BATCHES: Settings = SIX_CUT_OFF_BATCHES | {"grpo.prompts_per_step": 48, "memory.micro_batch": 64}
MAIN: Settings = {
    "grpo.steps": 24,
    "optimizer.name": "adamw_8bit",
    "logging.samples_every": 1,
    "eval.every": 0,
    "eval.examples": 64,
}
"""The main job: a reward of about 0.5 becomes 1 (two x86 cores, CPU, 2026-11-30)."""
QUICK_MAIN: Settings = MAIN | {
    "grpo.steps": 2,
    "grpo.prompts_per_step": 2,
    "grpo.max_completion_tokens": 16,
    "memory.micro_batch": 8,
    "rewards": "{random = 1.0}",  # else a group may be dead, and nothing learns
    "eval.examples": 4,
    "eval.quick_examples": 4,
}


def as_texts(settings: Mapping[str, Any]) -> list[str]:
    """Returns settings as KEY=VALUE."""
    return [f"{key}={value}" for key, value in settings.items()]


def as_options(settings: Mapping[str, Any]) -> list[str]:
    """Returns settings as a command's arguments."""
    return [argument for text in as_texts(settings) for argument in ("--set", text)]


def write_questions(folder: Path) -> Path:
    """Writes questions of every length, in steps of one or two tokens; returns their folder, for `task.path`.

    The longest prompts of a run that draws all of them reach its limit. The embedded model's tokenizer has few words: a
    digit is a token.
    """
    folder = folder / "questions"
    folder.mkdir(exist_ok=True)
    for split, first in (("train", 1), ("test", 1001)):
        rows = [_question(number, first) for number in range(QUESTIONS)]
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return folder


def _question(number: int, first: int) -> dict[str, Any]:
    digits = "7" * number
    return {"question": f"{digits} What is {first + number} + 1?", "answer": f"#### {first + number + 1}"}
