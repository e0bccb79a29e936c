"""GSM8K: grade-school word problems whose answers are integers (arXiv 2110.14168).

A row is `question`, `answer`; the answer ends in `#### 72` and carries `<<48/2=24>>` notes
for a calculator, which no model should learn to write.
"""

import re

from lowmem_rl.tasks.hub_task import DataSet, Problem
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.source_row import SourceRow

GOLD_MARK = "####"

_CALCULATOR_NOTE = re.compile(r"<<[^<>]*>>")


def read_row(row: SourceRow) -> Problem:
    """Returns a row's problem, its reasoning without calculator notes. Raises `TaskError`."""
    question = row.text("question").strip()
    reasoning, answer = _split_answer(row)
    return Problem(question, answer, _CALCULATOR_NOTE.sub("", reasoning).strip())


def _split_answer(row: SourceRow) -> tuple[str, str]:
    """Returns a row's reasoning, and its gold answer without commas."""
    parts = row.text("answer").split(GOLD_MARK)
    answer = parts[-1].strip().replace(",", "")
    if len(parts) == 2 and answer:
        return parts[0], answer
    found = "no answer behind it" if len(parts) == 2 else f"{len(parts) - 1} of them"
    raise row.unusable(
        f"column 'answer' needs one {GOLD_MARK} with the gold answer behind it; it has {found}",
        f"A row's answer ends like: 48 / 2 = 24 {GOLD_MARK} 24.",
    )


GSM8K = DataSet(
    name="gsm8k",
    summary="grade-school word problems with integer answers",
    data=HubData("openai/gsm8k", "main"),
    read=read_row,
)
