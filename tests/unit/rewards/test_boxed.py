"""The settings of a task that say how a percentage and several boxes are judged."""

from typing import Any

import pytest

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.evaluation.grader import grader_of
from lowmem_rl.rewards.boxed import score_any, score_boxed
from lowmem_rl.tasks.select import draw_examples
from lowmem_rl.tasks.task import Selection
from lowmem_rl.tasks.task_registry import load_task


@pytest.fixture
def problems(tmp_path: Any) -> Any:
    def write(gold: str) -> str:
        path = tmp_path / "problems.csv"
        path.write_text("question,answer\n" + "".join(f'What is it in case {n}?,"{gold}"\n' for n in range(40)))
        return str(path)

    return write


def scores(path: str, completion: str, **settings: str) -> tuple[float, float, bool, bool]:
    task = load_task(TaskConfig.model_validate({"name": "table", "path": path, **settings}))
    example = draw_examples(task, Selection("train"), 1)[0]
    right = grader_of(task)
    verdicts = right.is_strictly_right(completion, example), right.is_right(completion, example)
    return score_boxed(completion, example), score_any(completion, example), *verdicts


RIGHT, WRONG = (1.0, 1.0, True, True), (0.0, 0.0, False, False)


@pytest.mark.parametrize(
    ("percent", "gold", "given", "expected"),
    [
        ("both", "0.1", "10\\%", RIGHT),
        ("both", "10", "10\\%", RIGHT),
        ("both", "3", "300\\%", WRONG),
        ("number", "10", "10\\%", RIGHT),
        ("number", "0.1", "10\\%", WRONG),
        ("number", "10%", "0.1", WRONG),
        ("hundredth", "0.1", "10\\%", RIGHT),
        ("hundredth", "10%", "\\frac{1}{10}", RIGHT),
        ("hundredth", "3", "300\\%", RIGHT),
        ("hundredth", "10", "10\\%", WRONG),
        ("hundredth", "10%", "10\\%", RIGHT),
        ("hundredth", "x", "10\\%", WRONG),
    ],
)
def test_what_a_percentage_equals(problems: Any, percent: str, gold: str, given: str, expected: Any) -> None:
    assert scores(problems(gold), f"\\boxed{{{given}}}", percent=percent) == expected


@pytest.mark.parametrize(
    ("boxes", "gold", "completion", "expected"),
    [
        ("last", "7", "\\boxed{5} or \\boxed{7}", RIGHT),
        ("first", "7", "\\boxed{5} or \\boxed{7}", WRONG),
        ("first", "5", "\\boxed{5} or \\boxed{7}", RIGHT),
        ("first", "5", "\\boxed{\\boxed{5}}, \\boxed{7}", RIGHT),
        ("all", "7", "\\boxed{5} or \\boxed{7}", WRONG),
        ("all", "5, 7", "\\boxed{7} or \\boxed{5}", RIGHT),
        ("all", "7", "\\boxed{7}, that is \\boxed{7}", RIGHT),
        ("all", "7", "\\boxed{\\boxed{7}}", RIGHT),
        ("all", "7", "<think>\\boxed{5}</think>\\boxed{7}", RIGHT),
        ("first", "7", "no box", WRONG),
        ("all", "7", "\\boxed{7", WRONG),
    ],
)
def test_which_of_several_boxes_counts(problems: Any, boxes: str, gold: str, completion: str, expected: Any) -> None:
    assert scores(problems(gold), completion, boxes=boxes) == expected


def test_a_task_keeps_its_own_facts() -> None:
    plain, judged = (load_task(TaskConfig(name="arithmetic", boxes=boxes)) for boxes in ("last", "first"))
    assert (judged.name, judged.summary, judged.has_data) == (plain.name, plain.summary, plain.has_data)
    one, other = (draw_examples(task, Selection("test"), 1)[0] for task in (plain, judged))
    assert judged.gold_completion(other) == plain.gold_completion(one)
    assert (dict(other.extra), "task.boxes" in one.extra) == ({**one.extra, "task.boxes": "first"}, False)
