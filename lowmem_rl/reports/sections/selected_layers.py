"""The layers that a run has selected, with the scores of all candidates."""

from lowmem_rl.reports.escape import one_line
from lowmem_rl.reports.page_table import PageTable
from lowmem_rl.reports.run_record import RunRecord


def selection_of(record: RunRecord) -> PageTable | None:
    """Returns the scores, the highest first; None for a run whose layers were named."""
    if (selection := record.selection) is None:
        return None
    by_score = sorted(selection.scores.items(), key=lambda one: (-one[1], one[0]))
    rows = ((str(layer), f"{score:.4g}", "yes" if layer in selection.layers else "") for layer, score in by_score)
    return PageTable(f"Layers selected by {one_line(selection.by)}", "", ("layer", "score", "learns"), tuple(rows))
