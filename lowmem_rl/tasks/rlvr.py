"""RLVR-GSM and RLVR-MATH: GSM8K and MATH as in the training of Tulu 3 (arXiv 2411.15124).

A row is `messages` (turns of `role`, `content`), `ground_truth` and `dataset`; that of MATH also holds
`constraint_type` and `constraint`, both null. The one user turn has worked examples, `Question: ... Answer: ...`,
before the question (eight in GSM8K's, four in MATH's), about 700 tokens. They show the form of the answer, so the
fitting prompt convention is `bare`, verified by `any_answer`.
"""

from collections.abc import Callable

from lowmem_rl.tasks.conversations import read_turns
from lowmem_rl.tasks.hub_task import DataSet, Problem
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.source_row import SourceRow

_COLUMNS = ("messages", "ground_truth", "dataset")


def _reader_of(source: str) -> Callable[[SourceRow], Problem | None]:
    """Returns a reader of the rows of one source; the mixed sets hold other sources too."""

    def read_row(row: SourceRow) -> Problem | None:
        named = row.value("dataset")
        if source not in [str(name).lower() for name in (named if isinstance(named, list) else [named])]:
            return None
        turns = read_turns(row, "messages")
        return Problem(turns[-1]["content"], row.answer("ground_truth"), turns=turns)

    return read_row


RLVR_GSM = DataSet(
    name="rlvr_gsm",
    summary="GSM8K in Tulu 3's conversations, worked examples before each question",
    data=HubData("allenai/RLVR-GSM", columns=_COLUMNS),
    read=_reader_of("gsm8k"),
    rewards=("any_answer",),
    convention="bare",
)

RLVR_MATH = DataSet(
    name="rlvr_math",
    summary="MATH in Tulu 3's conversations, worked examples before each problem",
    data=HubData("allenai/RLVR-MATH", test=None, columns=_COLUMNS),
    read=_reader_of("math"),
    rewards=("any_answer",),
    convention="bare",
)
