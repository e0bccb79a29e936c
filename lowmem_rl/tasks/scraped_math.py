"""Large sets of mathematics, gathered by machine from many sources. None has a test split: a twentieth is held out.

- DeepMath-103K: hard problems without those of benchmarks (arXiv 2504.11456). A row is `question`, `final_answer`,
  `difficulty` (half steps), `topic` and three solutions, which are not read.
- DeepScaleR: 40,315 competition problems with short LaTeX answers. A row is `problem`, `answer`, `solution`; four of
  five solutions are empty.
- OpenR1-Math-220k: problems of NuminaMath with answers. A row is `problem`, `answer`, `question_type`, `source`, ...;
  its reasoning traces are not read. Proofs and multiple-choice questions are left out: their answers are a word or a
  letter. Some proofs are marked as word problems; their answer is "proof".
- OpenThoughts-114k, its configuration `metadata`: the default one holds conversations without a gold answer. A row is
  `problem`, `ground_truth_solution`, `domain`, `source`, ...; the answer is the solution's last box. Left out is
  everything but mathematics with such an answer.
"""

import math

from lowmem_rl.tasks.hub_task import DataSet, Problem
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.source_row import SourceRow
from lowmem_rl.verify.extract import last_box

_BAD_SHARE = 0.01
_NO_ANSWERS = ("proof", "MCQ", "notfound")
"""What NuminaMath-1.5 writes if a problem has no answer of its own (AI-MO/NuminaMath-1.5, discussion 1)."""


def _read_deepmath(row: SourceRow) -> Problem:
    """Rounds difficulties down; -1 is unknown."""
    question, answer, difficulty = row.text("question").strip(), row.answer("final_answer"), row.value("difficulty")
    is_known = isinstance(difficulty, int | float) and math.isfinite(difficulty) and difficulty >= 0
    level, extra = math.floor(difficulty) if is_known else None, {"subject": row.values.get("topic")}
    return Problem(question, answer, level=level, extra=extra)


def _read_deepscaler(row: SourceRow) -> Problem:
    return Problem(row.text("problem").strip(), row.answer("answer"), str(row.values.get("solution") or "").strip())


def _read_openr1(row: SourceRow) -> Problem | None:
    if row.value("question_type") != "math-word-problem" or row.value("answer") in _NO_ANSWERS:
        return None
    return Problem(row.text("problem").strip(), row.answer("answer"), extra={"subject": row.values.get("problem_type")})


def _read_open_thoughts(row: SourceRow) -> Problem | None:
    found, domain = row.value("ground_truth_solution"), row.value("domain")
    if domain != "math" or not found:
        return None
    solution = row.text("ground_truth_solution")
    answer = last_box(solution)
    return Problem(row.text("problem").strip(), answer, solution.strip()) if answer else None


DEEPMATH = DataSet(
    name="deepmath",
    summary="hard mathematics of many sources, by difficulty",
    data=HubData("zwhe99/DeepMath-103K", test=None, columns=("question", "final_answer", "difficulty", "topic")),
    read=_read_deepmath,
    levels=tuple(range(11)),
    bad_share=_BAD_SHARE,
)

DEEPSCALER = DataSet(
    name="deepscaler",
    summary="competition mathematics of AIME, AMC, Omni-MATH and STILL",
    data=HubData("agentica-org/DeepScaleR-Preview-Dataset", test=None),
    read=_read_deepscaler,
    bad_share=_BAD_SHARE,
)

OPENR1_MATH = DataSet(
    name="openr1_math",
    summary="competition mathematics of NuminaMath whose answers were verified",
    data=HubData(
        "open-r1/OpenR1-Math-220k",
        "default",
        test=None,
        columns=("problem", "answer", "problem_type", "question_type"),
    ),
    read=_read_openr1,
    bad_share=_BAD_SHARE,
)

OPEN_THOUGHTS = DataSet(
    name="open_thoughts",
    summary="the mathematics of OpenThoughts-114k",
    data=HubData(
        "open-thoughts/OpenThoughts-114k",
        "metadata",
        test=None,
        columns=("problem", "ground_truth_solution", "domain"),
    ),
    read=_read_open_thoughts,
    bad_share=_BAD_SHARE,
)
