"""What TRL and verl pass to a reward function, from our examples.

TRL passes each column of the data as a list, verl a dictionary with the rest of the row.
"""

import re
import zlib
from collections.abc import Mapping, Sequence, Set
from types import SimpleNamespace
from typing import Any

from lowmem_rl.example import Example
from lowmem_rl.rewards.reward import Rollout

_STATE = {"global_step": 0, "max_steps": 0, "epoch": 0.0, "num_train_epochs": 1, "log_history": []}
_STATE |= {"is_world_process_zero": True, "is_local_process_zero": True}
"""Of TRL's `TrainerState` what reward functions read, before the first step."""

_WORDS = re.compile(r"\s*(?:[^\W\d_]+|\d|[^\w\s]+|_)|\s+")


def trl_arguments(rollout: Rollout, *, as_messages: bool, optional: Set[str] = frozenset()) -> dict[str, Any]:
    """Returns what TRL passes: the columns, and completions and prompts as messages or as text.

    What has a default, by the names in `optional`, is passed only from a column of the data or from its answers.
    """
    rows = [columns(example, optional) for example in rollout.examples]
    names = dict.fromkeys(name for row in rows for name in row)
    ids = rollout.completion_ids
    texts = list(rollout.completions)
    return {name: [row.get(name) for row in rows] for name in names} | {
        "prompts": [list(map(dict, e.prompt)) if as_messages else e.question for e in rollout.examples],
        "completions": [[{"role": "assistant", "content": text}] for text in texts] if as_messages else texts,
        "completion_ids": [_ids_of(text) for text in texts] if ids is None else [list(one) for one in ids],
        "trainer_state": SimpleNamespace(**_STATE | dict(rollout.trainer_state)),
        "log_extra": _ignore,
        "log_metric": _ignore,
    }


def verl_arguments(rollout: Rollout) -> list[dict[str, Any]]:
    """Returns what verl passes for each completion."""
    return [
        {
            "data_source": example.extra.get("data_source") or example.id.partition("/")[0],
            "solution_str": completion,
            "ground_truth": example.answer,
            "extra_info": _extra_info(example),
        }
        for completion, example in zip(rollout.completions, rollout.examples, strict=True)
    ]


def verl_batch_arguments(rollout: Rollout) -> dict[str, Any]:
    """Returns what verl's batch manager passes: the same in lists, under the plural names."""
    calls = verl_arguments(rollout)
    plural = {"data_source": "data_sources", "solution_str": "solution_strs", "ground_truth": "ground_truths"}
    plural["extra_info"] = "extra_infos"
    return {many: [call[one] for call in calls] for one, many in plural.items()}


def columns(example: Example, optional: Set[str] = frozenset()) -> Mapping[str, Any]:
    """Returns an example as a row: its own columns, and under usual names what they would hold, except `optional`."""
    extra = example.extra
    names = ("answer", "ground_truth", "solution", extra.get("answer_column", "answer"))
    answers = dict.fromkeys(names, example.answer)
    usual = {"question": example.question, "problem": example.question, "level": example.level, "id": example.id}
    usual["target"] = example.answer
    if "numbers" in extra:  # the countdown notebooks' name (Jiayi-Pan/Countdown-Tasks-3to4)
        usual["nums"] = extra["numbers"]
    guessed = {name: value for name, value in usual.items() if name not in optional}
    return guessed | answers | {name: value for name, value in extra.items() if name not in _RESERVED}


_RESERVED = {"prompt", "completion", "prompts", "completions", "completion_ids"}
"""Names of columns that TRL does not pass, or passes itself."""


def _extra_info(example: Example) -> dict[str, Any]:
    own = example.extra.get("extra_info")
    return {"index": example.id, "question": example.question} | dict(
        own if isinstance(own, Mapping) else example.extra
    )


def _ids_of(text: str) -> Sequence[int]:
    """Returns an id below 256 for each word, digit or sign: as many as tokens, about, and valid in any vocabulary."""
    return [zlib.crc32(word.encode("utf-8", "replace")) % 256 for word in _WORDS.findall(text)]


def _ignore(*_: object, **__: object) -> None:
    """Takes what a function logs: a run's own record holds the scores."""
