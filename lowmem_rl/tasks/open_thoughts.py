"""OpenThoughts-114k, its configuration `metadata`: the default one holds conversations without a gold answer.

A row is `problem`, `ground_truth_solution`, `domain`, `source`, ...; the answer is the solution's last box.
Only mathematics is taken, and of it only what has such an answer.
"""

from lowmem_rl.tasks.hub_task import SCRAPED_BAD_SHARE, DataSet, Problem
from lowmem_rl.tasks.loaders import HubData
from lowmem_rl.tasks.source_row import SourceRow
from lowmem_rl.verify.extract import last_box


def read_row(row: SourceRow) -> Problem | None:
    """Returns a row's problem, None for code, science and problems to prove. Raises `TaskError`."""
    solution = row.value("ground_truth_solution")
    if row.value("domain") != "math" or not solution:
        return None
    solution = row.text("ground_truth_solution")
    answer = last_box(solution)
    return Problem(row.text("problem").strip(), answer, solution.strip()) if answer else None


OPEN_THOUGHTS = DataSet(
    name="open_thoughts",
    summary="the mathematics of OpenThoughts-114k",
    data=HubData(
        "open-thoughts/OpenThoughts-114k",
        "metadata",
        test=None,
        columns=("problem", "ground_truth_solution", "domain"),
    ),
    read=read_row,
    bad_share=SCRAPED_BAD_SHARE,
)
