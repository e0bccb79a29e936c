"""DeepScaleR: 40,315 competition problems with short LaTeX answers.

A row is `problem`, `answer`, `solution`; four of five solutions are empty.
"""

from lowmem_rl.tasks.hub_task import SCRAPED_BAD_SHARE, DataSet, Problem
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.source_row import SourceRow


def read_row(row: SourceRow) -> Problem:
    """Returns a row's problem. Raises `TaskError`."""
    return Problem(row.text("problem").strip(), row.answer("answer"), str(row.values.get("solution") or "").strip())


DEEPSCALER = DataSet(
    name="deepscaler",
    summary="competition mathematics of AIME, AMC, Omni-MATH and STILL",
    data=HubData("agentica-org/DeepScaleR-Preview-Dataset", test=None),
    read=read_row,
    bad_share=SCRAPED_BAD_SHARE,
)
