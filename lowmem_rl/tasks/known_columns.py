"""Names under which published sets hold questions and answers, to suggest columns and to read scored completions."""

import json
from collections.abc import Sequence

from lowmem_rl.tasks.source_row import SourceRow

QUESTIONS = (
    *("question", "problem", "Question", "Problem", "prompt", "messages", "conversations", "conversation"),
    *("Body+Question", "instruction+input", "instruction", "query", "input", "text"),
)
ANSWERS = (
    *("answer", "final_answer", "ground_truth", "reward_model.ground_truth", "expected_answer", "gold", "Answer"),
    *("answers.text", "answers", "target", "label", "solution", "Solution", "output", "response"),
)


def first_of(row: SourceRow, columns: Sequence[str]) -> str | None:
    """Returns the first of the columns that a row has, also joined ones; None if it has none of them."""
    return next((column for column in columns if all(map(row.has, row.parts_of(column)))), None)


def fix_for_columns(row: SourceRow) -> str:
    """Returns the fix for a row without a column: a table's names for it, or else how to give it."""
    found = [first_of(row, QUESTIONS), first_of(row, ANSWERS)]
    if None in found:
        return 'Give each row that column, or name others: task.columns=["problem", "reward_model.ground_truth"].'
    return f"Set task.columns={json.dumps(found)}."
