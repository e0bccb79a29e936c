"""GSM8K: grade-school word problems whose answers are integers (arXiv 2110.14168).

A row is `question`, `answer`; the answer ends in `#### 72` and has `<<48/2=24>>` notes for a calculator, which no
model should learn to write.
"""

import re

from lowmem_rl.tasks.hub_task import DataSet, Problem
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.source_row import SourceRow

_GOLD_MARK = "####"

_CALCULATOR_NOTE = re.compile(r"<<[^<>]*>>")


def _read_row(row: SourceRow) -> Problem:
    """Returns a row's problem: reasoning without calculator notes, answer without commas.

    Raises `TaskError` for an unusable row.
    """
    question = row.text("question").strip()
    parts = row.text("answer").split(_GOLD_MARK)
    answer = parts[-1].strip().replace(",", "")
    if len(parts) != 2 or not answer:
        found = "no answer after it" if len(parts) == 2 else f"{len(parts) - 1} of them"
        raise row.unusable(
            f"column 'answer' needs one {_GOLD_MARK} with the gold answer after it; it has {found}",
            f"A row's answer ends like: 48 / 2 = 24 {_GOLD_MARK} 24.",
        )
    return Problem(question, answer, _CALCULATOR_NOTE.sub("", parts[0]).strip())


GSM8K = DataSet(
    name="gsm8k",
    summary="grade-school word problems with integer answers",
    data=HubData("openai/gsm8k", "main"),
    read=_read_row,
)
