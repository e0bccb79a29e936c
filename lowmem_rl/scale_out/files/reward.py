"""The run's own rewards for verl: `compute_score` is `reward.custom_reward_function`.

It needs lowmem-rl's base install and math-verify, and no package for a GPU. verl calls it on several threads of several
processes. The processes that score for a reward are started by the first score, never by the import of this file.
"""

import atexit
import json
import logging
import threading
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.evaluation.grader import Grader, grader_of
from lowmem_rl.rewards.isolated import isolated
from lowmem_rl.rewards.reward import RewardSet
from lowmem_rl.rewards.reward_registry import load_reward_set
from lowmem_rl.scale_out.rows import example_of
from lowmem_rl.tasks.task_registry import load_task

LOG = logging.getLogger(__name__)
SETTINGS = Path(__file__).with_name("reward.json")
ONE_AT_A_TIME = threading.Lock()
PROCESSES = ExitStack()
atexit.register(PROCESSES.close)


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict[str, Any], **_: Any
) -> dict[str, float]:
    """Returns the weighted total as `score`, whether it is right as `acc` and `strict`, and each reward's own score.

    `solution_str` is what was sampled: what the chat template opened the turn with is put before it. A reward that
    fails is reported and counts 0.
    """
    example, completion = example_of(ground_truth, extra_info), extra_info["prefill"] + solution_str
    with ONE_AT_A_TIME:
        rewards, grader = _loaded()
        scored = rewards.score(completion, example, _report)
        return {
            "score": scored.reward,
            "acc": float(grader.is_right(completion, example, _report)),
            "strict": float(grader.is_strictly_right(completion, example, _report)),
            **{f"scores/{name}": score or 0.0 for name, score in scored.scores.items()},
        }


@cache
def _loaded() -> tuple[RewardSet, Grader]:
    settings = json.loads(SETTINGS.read_text("utf-8"))
    rewards = PROCESSES.enter_context(isolated(load_reward_set(settings["rewards"])))
    return rewards, grader_of(load_task(TaskConfig.model_validate(settings["task"])))


def _report(error: Exception) -> None:
    LOG.warning("%s", error)
