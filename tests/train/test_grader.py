"""Each family of tasks through the real evaluation, the model's own words replaced: what is right, and what is not."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.evaluation.eval_set import EvalSet
from lowmem_rl.evaluation.evaluate import EvalFiles, evaluate
from lowmem_rl.evaluation.grader import grader_of
from lowmem_rl.evaluation.pass_rate_probe import probe
from lowmem_rl.example import Example
from lowmem_rl.tasks.countdown import gold_expression
from lowmem_rl.tasks.select import draw_examples
from lowmem_rl.tasks.task import Selection, Task
from lowmem_rl.tasks.task_registry import TASKS, load_task, load_task_class
from lowmem_rl.verify.equal import equal_answers

DATA = Path(__file__).parents[1] / "data"
CONFIG = resolve(preset="tiny-cpu", settings=["rollout.engine=generate", "memory.checkpointing=none"]).config


@pytest.fixture(scope="module")
def policy() -> Policy:
    device = Device("cpu", "float32")
    prepare_process(CONFIG, device)
    return load_policy(CONFIG, device)


def recite(policy: Policy, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the model say these texts, one after another, for any prompt."""
    left: Iterator[str] = iter(texts)

    def generate(input_ids: torch.Tensor, **settings: Any) -> torch.Tensor:
        stop = policy.tokenizer.eos_token_id
        said = [[*policy.tokenizer.encode(next(left)), stop] for _ in input_ids]
        rows = torch.full((len(said), max(map(len, said))), stop)
        for row, ids in zip(rows, said, strict=True):
            row[: len(ids)] = torch.tensor(ids)
        return torch.cat([input_ids, rows], dim=1)

    monkeypatch.setattr(policy.model, "generate", generate)


def task_named(name: str) -> Task:
    maker = load_task_class(name)
    path = str(DATA / name.removesuffix("_free")) if maker.has_data else None
    return load_task(TaskConfig(name=name, path=path, prompt=getattr(maker, "convention", "think_boxed")))


def with_another_answer(task: Task) -> tuple[list[Example], list[Example]]:
    """Returns examples, and for each another one whose perfect completion is wrong for it."""
    found = draw_examples(task, Selection("train", 24), 24)
    pairs = [(e, other) for e in found if (other := next((o for o in found if not same_answer(o, e)), None))]
    return [example for example, _ in pairs], [other for _, other in pairs]


def same_answer(one: Example, other: Example) -> bool:
    return one.answer == other.answer or equal_answers(one.answer, other.answer)


def evaluated(policy: Policy, task: Task, examples: list[Example], path: Path) -> EvalResult:
    """Evaluates on examples that may repeat each other; answers of an earlier call do not count."""
    copies = [replace(example, id=f"{example.id}/{number}") for number, example in enumerate(examples)]
    asked = EvalSet(TaskConfig(name=task.name), copies, grader_of(task), max_tokens=64, batch=16)
    files = EvalFiles(Path(mkdtemp(dir=path), "items.jsonl"), path / "sampled.jsonl")
    return evaluate(Sampler(policy, CONFIG), asked, files, step=0, measures_kl=False)


@pytest.mark.parametrize("name", [name for name in TASKS if name != "table"])
def test_a_gold_completion_is_right_and_that_of_another_example_is_not(name, policy, monkeypatch, tmp_path) -> None:
    task = task_named(name)
    examples, others = with_another_answer(task)
    assert len(examples) >= 2
    recite(policy, [task.gold_completion(example) for example in [*examples, *others]], monkeypatch)
    right = evaluated(policy, task, examples, tmp_path)
    assert (right.pass_at_1, right.strict_pass_at_1) == (1, 1)
    wrong = evaluated(policy, task, examples, tmp_path)
    assert (wrong.pass_at_1, wrong.strict_pass_at_1) == (0, 0)


def test_an_expression_counts_and_its_value_alone_does_not(policy, monkeypatch, tmp_path) -> None:
    task = task_named("countdown")
    (example,) = draw_examples(task, Selection("test", 1, levels=(2,)), 1)
    expression, target = gold_expression(example), example.answer
    said = [f"<answer>{expression} = {target}</answer>", f"<answer>{target}</answer>", f"so \\boxed{{{expression}}}"]
    recite(policy, said, monkeypatch)
    assert evaluated(policy, task, [example] * 3, tmp_path).pass_at_1 == pytest.approx(2 / 3)


def test_a_free_ending_is_right_where_it_is_nearest_to_the_right_one(policy, monkeypatch, tmp_path) -> None:
    task = task_named("hellaswag_free")
    (example,) = draw_examples(task, Selection("train", 1), 1)
    another = next(choice for choice in example.extra["choices"] if choice != example.answer)
    almost = example.answer.rpartition(" ")[0]
    recite(policy, [f"Then {almost}", another, "", " ".join(example.extra["choices"])], monkeypatch)
    result = evaluated(policy, task, [example], tmp_path)
    assert (result.pass_at_1, result.strict_pass_at_1) == (1, 0)
    assert evaluated(policy, task, [example] * 3, tmp_path).pass_at_1 == 0


def test_a_probe_counts_by_the_tasks_own_grader(policy, monkeypatch) -> None:
    task = task_named("countdown")
    examples = draw_examples(task, Selection("train", 2, levels=(2,)), 2)
    golds = [task.gold_completion(example) for example in examples]
    recite(policy, [golds[0], "", golds[0], golds[1]], monkeypatch)
    counted = probe(Sampler(policy, CONFIG), CONFIG, examples, grader_of(task), samples=2)
    assert [example.passed for example in counted.examples] == [1, 1]
