"""The page of a run that has selected the layers that learn."""

import pytest

from lowmem_rl.errors import RunDirError
from lowmem_rl.reports.html import render
from lowmem_rl.reports.run_record import read_record
from lowmem_rl.reports.sections.selected_layers import selection_of
from lowmem_rl.storage.run_dir import RunDir, append_row
from lowmem_rl.trainable.selection import LayerSelection
from tests.run_maker import make_run

FOUND = LayerSelection("<b>fisher</b>", {0: 0.5, 1: 2.0, 2: 0.25}, (0, 1))


def test_scores_are_shown_the_highest_first(tmp_path) -> None:
    run = RunDir(make_run(tmp_path / "run"))
    assert selection_of(read_record(run.path)) is None
    append_row(run.trainable, {"step": 1, "layers": [2]})
    assert selection_of(read_record(run.path)) is None  # a schedule
    run.trainable.unlink()
    append_row(run.trainable, FOUND.to_row())
    record = read_record(run.path)
    assert record.selection == FOUND
    table = selection_of(record)
    assert table is not None
    assert table.rows == (("1", "2", "yes"), ("0", "0.5", "yes"), ("2", "0.25", ""))
    page = render(record)
    assert "Layers selected by &lt;b&gt;fisher" in page
    assert "<b>fisher" not in page


@pytest.mark.parametrize("damage", [{"layers": [7]}, {"scores": {"0": "x"}}, {"select": 3}])
def test_a_damaged_selection_is_named(tmp_path, damage) -> None:
    run = RunDir(make_run(tmp_path / "run"))
    append_row(run.trainable, FOUND.to_row() | damage)
    with pytest.raises(RunDirError, match=r"trainable.jsonl does not hold a selection of layers"):
        read_record(run.path)
