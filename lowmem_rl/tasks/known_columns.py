"""Names under which published sets hold questions and answers: to read tables, and to read scored completions.

With them are read as they are: GSM-Plus, SVAMP, Orca-Math, MetaMathQA, NuminaMath, MATH-Hard, Big-Math, Polaris,
DAPO-Math-17k and the sets of AIME problems.
"""

import json
from collections.abc import Sequence

from lowmem_rl.tasks.source_row import SourceRow

QUESTIONS = (
    *("question", "problem", "question_concat", "Body+Question", "Question", "Problem", "prompt", "messages"),
    *("conversations", "conversation", "instruction+input", "instruction", "query", "input", "text"),
)
ANSWERS = (
    *("answer", "final_answer", "ground_truth", "reward_model.ground_truth", "expected_answer", "correct_answer"),
    *("gold_answer", "gold", "Answer", "answers.text", "answers", "target", "label"),
    *("solution", "Solution", "output", "response"),
)


def known_columns(row: SourceRow) -> tuple[str, str] | None:
    """Returns the columns of a row's question and answer by their names, None if either has another name."""
    question, answer = first_of(row, QUESTIONS), first_of(row, ANSWERS)
    return (question, answer) if question and answer else None


def first_of(row: SourceRow, columns: Sequence[str]) -> str | None:
    """Returns the first of the columns that a row has, also joined ones, in any capitals; None if it has none."""
    exact = next((column for column in columns if all(map(row.has, row.parts_of(column)))), None)
    own = {_plain(name): name for name in row.values if isinstance(name, str)}
    return exact or next((own[_plain(column)] for column in columns if _plain(column) in own), None)


def _plain(name: str) -> str:
    """Returns a name without capitals and spaces: final_answer of `Final Answer`."""
    return name.casefold().replace(" ", "_")


def fix_for_columns(row: SourceRow) -> str:
    """Returns the fix for a row without a column: a table's names for it, or else how to give it."""
    if found := known_columns(row) or _conversation_with_reply(row):
        return f"Set task.columns={json.dumps(found)}."
    return 'Give each row that column, or name others: task.columns=["problem", "reward_model.ground_truth"].'


def _conversation_with_reply(row: SourceRow) -> tuple[str, str] | None:
    """Returns the paths to a conversation and to the assistant's last turn, which then holds the answer."""
    for column in filter(row.has, ("messages", "conversations", "conversation")):
        for role, content in (("role", "content"), ("from", "value")):
            path = f"{column}.-1.{role}"
            if row.has(path) and row.value(path) in ("assistant", "gpt"):
                return column, f"{column}.-1.{content}"
    return None
