"""MATH: competition problems in five levels with LaTeX answers (arXiv 2103.03874), and samples of it.

The full set is `problem`, `level` ("Level 3"), `type`, `solution`, and the answer is the solution's last
box; MATH-500 is `problem`, `solution`, `answer`, `subject`, `level` (3), `unique_id`. A local file may have
either form.

The sanity test (arXiv 2510.26788) is the 1,460 problems that DeepSeek-R1-Distill-Qwen-1.5B solves in 20 to 80 % of 40
completions: a sound algorithm brings its accuracy on them above 95 %. Its test split is AIME 2024 and 2025. A row is
verl's: `prompt`, a conversation that asks for a box, `reward_model` with `ground_truth`, ...; so the fitting prompt
convention is `bare`.
"""

from lowmem_rl.tasks.conversations import read_turns
from lowmem_rl.tasks.gold_answer import boxed_answer
from lowmem_rl.tasks.hub_task import DataSet, Problem
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.source_row import SourceRow

_LEVELS = (1, 2, 3, 4, 5)
_EMPTY_BOX_SHARE = 0.001
"""Of 7,500 training rows 2 have an empty box."""


def _read_row(row: SourceRow) -> Problem:
    """Returns a row's problem, its level 3 for 3 and "Level 3", None for the two rows of "Level ?".

    Raises `TaskError` for an unusable row.
    """
    question, solution = row.text("problem").strip(), row.text("solution").strip()
    answer = row.answer("answer") if row.values.get("answer") is not None else _boxed_gold(row, solution)
    level = str(row.value("level")).removeprefix("Level ")
    subject = row.values.get("subject", row.values.get("type"))
    return Problem(question, answer, solution, int(level) if level in map(str, _LEVELS) else None, {"subject": subject})


def _boxed_gold(row: SourceRow, solution: str) -> str:
    answer = boxed_answer(solution)
    if not answer:
        raise row.unusable("its solution boxes no answer", "A solution ends like: so the sum is $\\boxed{42}$.")
    return answer


def _read_sanity(row: SourceRow) -> Problem:
    turns = read_turns(row, "prompt")
    return Problem(turns[-1]["content"], row.answer("reward_model.ground_truth"), turns=turns)


_DATA = HubData("DigitalLearningGmbH/MATH-lighteval", "default")

MATH = DataSet(
    name="math",
    summary="competition mathematics in five levels, 7,500 to train on and 5,000 held out",
    data=_DATA,
    read=_read_row,
    levels=_LEVELS,
    bad_share=_EMPTY_BOX_SHARE,
    sorted_by="subject",
)

# The 500 are of MATH's test split, so both sets share its training split.
MATH500 = DataSet(
    name="math500",
    summary="competition mathematics, evaluated on the 500 problems of MATH-500",
    data=_DATA,
    test_data=HubData("HuggingFaceH4/MATH-500"),
    read=_read_row,
    levels=_LEVELS,
    bad_share=_EMPTY_BOX_SHARE,
)

SANITY_MATH = DataSet(
    name="sanity_math",
    summary="1,460 problems of MATH that a 1.5B model solves at times, evaluated on AIME",
    data=HubData("sail/Sanity-Test-R1D-1.5B", columns=("prompt", "reward_model")),
    read=_read_sanity,
    convention="bare",
)
