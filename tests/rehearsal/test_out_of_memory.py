"""Memory that runs out at any moment of a step: the run goes on, its groups whole, nothing sampled or scored twice."""

from pathlib import Path

import pytest

from tests.rehearsal.out_of_memory import marks_of, outcomes, spread
from tests.rehearsal.stage import Stage

EACH = {"sampled and scored": 1, "advantages": 2, "gradient": 1, "clipping": 2, "optimizer": 2, "row": 1}
"""Allocations played in each part of a step: more where there were once no second tries."""


@pytest.mark.parametrize("card", ["a6000"])
@pytest.mark.slow
def test_any_allocation_of_a_step_may_fail(stages: dict[str, Stage], card: str, tmp_path: Path) -> None:
    marks = stages[card].call(marks_of, str(tmp_path / "marks"))
    assert list(marks) == list(EACH)
    parts = {part: spread(marks, each)[part] for part, each in EACH.items()}
    found = stages[card].call(outcomes, str(tmp_path / "run"), sorted({n for part in parts.values() for n in part}))
    assert len(found) >= 8
    for one in found:
        assert one.is_sound, one
        assert one.code == 0, one
        assert one.place, one
    phases = {one.allocation: one.phase for one in found}
    assert {phases[number] for number in parts["advantages"]} <= {"advantages", "logprobs", "backward", ""}
    assert {phases[number] for number in (*parts["clipping"], *parts["optimizer"])} == {"optimizer"}
    assert {phases[number] for number in parts["row"]} == {"between"}
