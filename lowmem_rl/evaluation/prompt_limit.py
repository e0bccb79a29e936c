"""Prompts that together with a full answer are longer than the model's limit: left out and counted, never cut.

The limit follows from the run's settings and data: each evaluation of a run leaves out the same prompts.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from lowmem_rl.engine.policy import Policy
from lowmem_rl.errors import TaskError
from lowmem_rl.evaluation.eval_set import EvalSet
from lowmem_rl.example import Example

Note = Callable[[str], None]


def eval_set_with_room(policy: Policy, eval_set: EvalSet, note: Note) -> EvalSet:
    """Returns the evaluation without its overlong prompts. Raises as `examples_with_room` does."""
    examples = examples_with_room(
        policy, eval_set.examples, eval_set.max_tokens, lambda text: note(f"{eval_set.task.name}: {text}")
    )
    return replace(eval_set, examples=examples)


def examples_with_room(policy: Policy, examples: Sequence[Example], answer_tokens: int, note: Note) -> list[Example]:
    """Returns the examples that fit the model's limit, and notes how many do not. Raises `TaskError` if none does."""
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
