"""What `train` finds in the golds before it loads the model."""

import json
from pathlib import Path

import pytest

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.entrypoints.preflight import check_sample
from lowmem_rl.errors import TaskError
from lowmem_rl.rewards.reward_registry import load_reward_set
from lowmem_rl.tasks.select import draw_examples
from lowmem_rl.tasks.task import Selection
from lowmem_rl.tasks.task_registry import load_task


def notes_on(folder: Path, answers: list[str]) -> list[str]:
    rows = [{"question": f"Question {n}?", "answer": answer} for n, answer in enumerate(answers)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    config = RunConfig.model_validate({"task": {"name": "table", "path": str(folder)}})
    task = load_task(config.task)
    train, test = (draw_examples(task, Selection(split), 100) for split in ("train", "test"))
    return check_sample(config, load_reward_set(config.rewards), task, train, test)


def test_golds_that_nobody_can_answer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="60 of 60 golds are sentences") as caught:
        notes_on(tmp_path, [f"Jim has {n}. Ann has two more. So it is {2 * n + 2}." for n in range(60)])
    assert "task.columns" in caught.value.hint


def test_how_golds_were_read_and_few_missing_ones_are_noted(tmp_path: Path) -> None:
    answers = ["proof" if n % 9 == 0 else f"We add.\n#### {n}" for n in range(60)]
    read, missing = notes_on(tmp_path, answers)
    assert read == "53 of 60 rows are read as task.answer=after_hashes"
    assert missing.startswith("7 of 60 golds only mark that there is no answer, such as 'proof'")
