"""Published sets are read as they are: rows in the shape of each, invented here."""

import json
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.errors import TaskError
from lowmem_rl.tasks.task import Selection
from lowmem_rl.tasks.task_registry import load_task

Q = "Ann has 3 apples and gets 4. How many has she?"
SOLUTION = "We add both. So she has $\\boxed{7}$."
CHAT = [{"content": Q, "role": "user"}]
VERL = {"data_source": "math_dapo", "ability": "MATH", "extra_info": {"index": "9"}}
RULE = {"ground_truth": "7", "style": "rule-lighteval/MATH_v2"}

PUBLISHED: dict[str, tuple[dict[str, Any], str]] = {
    "GSM-Plus": ({"question": Q, "solution": "3 + 4\n#### 7", "answer": "7", "seed_answer": "5"}, ""),
    "SVAMP": (
        {"ID": "c-1", "Body": "Ann has 3 apples", "Question": "How many?", "Answer": "7.0", "question_concat": Q},
        'task.columns=["question_concat", "Answer"]',
    ),
    "SVAMP's own file": (
        {"ID": "c-1", "Body": "Ann has 3 apples and gets 4.", "Question": "How many has she?", "Answer": 7.0},
        'task.columns=["Body+Question", "Answer"]',
    ),
    "NuminaMath-CoT": (
        {"source": "olympiads", "problem": Q, "solution": SOLUTION, "messages": [*CHAT, *CHAT]},
        'task.columns=["problem", "solution"], task.answer=last_box',
    ),
    "NuminaMath-1.5": (
        {"problem": Q, "solution": SOLUTION, "answer": "7", "problem_type": "Algebra", "synthetic": False},
        'task.columns=["problem", "answer"]',
    ),
    "MetaMathQA": (
        {"type": "MATH_AnsAug", "query": Q, "original_question": "?", "response": "We add.\nThe answer is: 7"},
        'task.columns=["query", "response"], task.answer=after_answer_is',
    ),
    "Orca-Math, of rows that state it": (
        {"question": Q, "answer": "She gets 4 more. Therefore the answer is 7."},
        "task.answer=after_answer_is",
    ),
    "MATH-Hard": (
        {"problem": Q, "level": "Level 5", "type": "Algebra", "solution": SOLUTION},
        'task.columns=["problem", "solution"], task.answer=last_box',
    ),
    "Big-Math": (
        {"problem": Q, "answer": "7", "source": "orca_math", "domain": ["x"], "llama8b_solve_rate": 0.25},
        'task.columns=["problem", "answer"]',
    ),
    "Polaris": ({"problem": Q, "answer": "7", "difficulty": "3/8"}, 'task.columns=["problem", "answer"]'),
    "DAPO-Math-17k": (
        {**VERL, "prompt": CHAT, "reward_model": RULE},
        'task.columns=["prompt", "reward_model.ground_truth"]',
    ),
    "DAPO-Math-17k-Processed": (
        {**VERL, "prompt": Q, "solution": "7", "source_prompt": CHAT, "reward_model": RULE},
        'task.columns=["prompt", "reward_model.ground_truth"]',
    ),
    "AIME 2024, Maxwell-Jia's": (
        {"ID": "2024-I-1", "Problem": Q, "Solution": SOLUTION, "Answer": 7},
        'task.columns=["Problem", "Answer"]',
    ),
    "AIME 2024, Hugging Face's": (
        {"id": 60, "problem": Q, "solution": SOLUTION, "answer": "7", "url": "", "year": "2024"},
        'task.columns=["problem", "answer"]',
    ),
    "AIME 1983 to 2024": (
        {"ID": "1983-1", "Year": 1983, "Problem Number": 1, "Question": Q, "Answer": "7", "Part": None},
        'task.columns=["Question", "Answer"]',
    ),
    "OpenMathReasoning": (
        {"problem": Q, "expected_answer": "7", "generated_solution": SOLUTION, "pass_rate_72b_tir": "0.5"},
        'task.columns=["problem", "expected_answer"]',
    ),
    "a sheet in capitals": ({"ID": 1, "QUESTION": Q, "Final Answer": "7"}, 'task.columns=["QUESTION", "Final Answer"]'),
}


def table(path: Path, **settings: Any) -> TaskConfig:
    return TaskConfig(name="table", path=str(path), **settings)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_set_is_read_without_a_setting(name: str, tmp_path: Path) -> None:
    row, read_as = PUBLISHED[name]
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    task = load_task(table(tmp_path))
    (example,) = task.examples(Selection("train"))
    assert (" ".join(example.question.split()), float(example.answer)) == (Q, 7)
    assert example.extra.get("read_as", "") == read_as


def test_named_columns_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"problem": Q, "answer": "7"}))
    with pytest.raises(TaskError, match="no column 'solution'; it has problem, answer") as caught:
        list(load_task(table(tmp_path, columns=("problem", "solution"))).examples(Selection("train")))
    assert 'task.columns=["problem", "answer"]' in caught.value.hint


def test_columns_of_other_names_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(json.dumps({"frage": Q, "antwort": "7"}))
    with pytest.raises(TaskError, match="no column 'question'; it has frage, antwort"):
        list(load_task(table(tmp_path)).examples(Selection("train")))
