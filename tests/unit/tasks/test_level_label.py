"""Levels as data sets write them."""

from typing import Any

import pytest

from lowmem_rl.errors import TaskError
from lowmem_rl.tasks.level_label import read_level
from lowmem_rl.tasks.source_row import SourceRow


@pytest.mark.parametrize(
    ("label", "level"),
    [
        *((5, 5), ("5", 5), ("Level 5", 5), ("level-3", 3), ("L2", 2), ("Grade 8", 8), (" Lv. 4 ", 4), (3.0, 3)),
        *((5.5, 5.5), ("5.5", 5.5), ("3/8", 0.375), ("3 of 8", 0.375), ("8/8", 1), (0.25, 0.25), ("25%", 0.25), (0, 0)),
        *(("Hard", 3), ("easy", 1), ("medium", 2)),
        *((None, None), ("", None), ("Level ?", None), (-1, None), ("-1.0", None), (float("nan"), None), ("N/A", None)),
    ],
)
def test_a_level_is_a_number_or_unknown(label: Any, level: float | None) -> None:
    read = read_level(SourceRow("row 1", {"level": label}), "level")
    assert read == level
    assert type(read) is type(level)


@pytest.mark.parametrize(
    "label", ["algebra", "1/0", "level", "5 stars or so", True, [5], {"level": 5}, float("inf"), "9" * 99]
)
def test_what_is_no_level_is_refused_with_the_forms_that_are(label: Any) -> None:
    with pytest.raises(TaskError, match="row 1: column 'level' is .*, not a level") as caught:
        read_level(SourceRow("row 1", {"level": label}), "level")
    assert "'Level 5'" in caught.value.hint
