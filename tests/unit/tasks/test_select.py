"""Examples of a task that may yield anything."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import pytest

from lowmem_rl.errors import TaskError
from lowmem_rl.example import Example
from lowmem_rl.tasks.select import check_disjoint, draw_examples, gold_completion_of
from lowmem_rl.tasks.task import Selection


def example(number: int, **changes: Any) -> Example:
    good = Example(id=f"e{number}", prompt=({"role": "user", "content": f"{number}?"},), answer=str(number))
    return replace(good, **changes)


@dataclass
class Yielding:
    """A task that yields what it is given."""

    source: Callable[[], Any]
    name: str = "mine"
    summary: str = ""
    has_data: bool = False

    def examples(self, selection: Selection) -> Iterator[Example]:
        yield from self.source()

    def gold_completion(self, example: Example) -> str:
        return example.answer


def draw(source: Callable[[], Any], most: int = 5, limit: int | None = None) -> list[Example]:
    return draw_examples(Yielding(source), Selection("test", limit), most)


def test_a_task_without_end_is_cut_at_the_most_or_at_the_limit() -> None:
    assert [e.id for e in draw(lambda: map(example, count()), most=3)] == ["e0", "e1", "e2"]
    assert len(draw(lambda: map(example, count()), limit=2)) == 2


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ({"id": "e1"}, "of type dict, not an Example"),
        (example(1, id=""), "id is ''"),
        (example(1, id=7), "id is 7"),
        (example(1, answer=42), "answer is 42, not a text"),
        (example(1, answer=" "), "answer is ' '"),
        (example(1, prompt="1?"), "prompt is of type str"),
        (example(1, prompt=()), "at least one"),
        (example(1, prompt=("1?",)), "'1\\?' in its prompt is not a message"),
        (example(1, prompt=({"role": "usr", "content": "1?"},)), "is not a message"),
        (example(1, prompt=({"role": "user", "content": 1},)), "is not a message"),
        (example(0), "id 'e0' came before"),
    ],
)
def test_what_is_not_an_example_is_refused_with_task_and_number(second: Any, expected: str) -> None:
    with pytest.raises(TaskError, match=f"Task 'mine', test example 2: .*{expected}"):
        draw(lambda: [example(0), second])


def test_fifty_examples_of_one_id_are_not_fifty() -> None:
    with pytest.raises(TaskError, match="test example 2: id 'same' came before"):
        draw(lambda: [example(number, id="same") for number in range(50)])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (lambda: {}["missing"], "raised KeyError: 'missing'"),
        (lambda: sys.exit(0), "raised SystemExit: 0"),
        (lambda: None, "raised TypeError"),
    ],
)
def test_a_task_that_raises_is_named(source: Callable[[], Any], expected: str) -> None:
    with pytest.raises(TaskError, match=f"Task 'mine', test example 1: .*{expected}") as caught:
        draw(source)
    assert caught.value.hint


def test_held_out_prompts_must_be_new() -> None:
    train = draw(lambda: map(example, range(5)))
    check_disjoint(train, [example(5)])
    with pytest.raises(TaskError, match="Test example 't' asks the same as train example 'e4'"):
        check_disjoint(train, [example(5), example(4, id="t")])


def test_a_list_is_a_prompt_too() -> None:
    drawn = draw(lambda: [example(0, prompt=[{"role": "user", "content": "0?"}])])
    with pytest.raises(TaskError):
        check_disjoint(drawn, [example(0)])


@pytest.mark.parametrize("body", ["return 1 / 0", "raise SystemExit(0)", "return None"])
def test_a_gold_completion_that_fails_is_an_error_of_the_task(body) -> None:
    namespace: dict = {}
    exec(f"class T:\n    def gold_completion(self, example):\n        {body}\n", namespace)
    example = Example(id="1", prompt=({"role": "user", "content": "?"},), answer="1")
    with pytest.raises(TaskError, match="gold_completion"):
        gold_completion_of(namespace["T"](), example)
