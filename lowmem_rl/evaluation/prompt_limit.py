"""Prompts that, with a full answer, are longer than the model takes: left out and counted, never cut.

What a model takes follows from the run's settings and data: each evaluation of a run leaves out the same ones.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from lowmem_rl.engine.policy import Policy
from lowmem_rl.errors import TaskError
from lowmem_rl.evaluation.eval_set import EvalSet
from lowmem_rl.example import Example

Note = Callable[[str], None]


def eval_set_with_room(policy: Policy, asked: EvalSet, note: Note) -> EvalSet:
    """Returns the questions that the model reads whole. Raises as `examples_with_room` does."""
    examples = examples_with_room(
        policy, asked.examples, asked.max_tokens, lambda text: note(f"{asked.task.name}: {text}")
    )
    return replace(asked, examples=examples)


def examples_with_room(policy: Policy, examples: Sequence[Example], answer_tokens: int, note: Note) -> list[Example]:
    """Returns the examples that the model reads whole, and notes how many are left out.

    Raises `TaskError` if none is left.
    """
    kept = [example for example in examples if policy.has_room(example.prompt, answer_tokens)]
    if len(kept) == len(examples):
        return kept
    why = f"with an answer of {answer_tokens} tokens they are longer than {policy.longest_row}, the model's limit"
    if not kept:
        raise TaskError(
            f"No prompt is left of {len(examples)}: {why}.",
            hint="Lower grpo.max_completion_tokens, or choose other data (task, eval.tasks).",
        )
    note(f"{len(examples) - len(kept)} of {len(examples)} prompts are left out: {why}")
    return kept
