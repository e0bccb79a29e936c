"""OOM at any moment of a step: the run continues, its groups complete, nothing sampled or scored twice."""

from pathlib import Path

import pytest

from tests.rehearsal.out_of_memory import marks_of, outcomes, spread, tiny
from tests.rehearsal.stage import Stage

pytestmark = pytest.mark.long
EACH = {"sampled and scored": 1, "advantages": 2, "gradient": 1, "clipping": 2, "optimizer": 2, "row": 2}
"""Allocations played in each part of a step: more where there were once no second tries."""


WHOLE = ("trainable.method=full", "trainable.layers=last:1")
CHANGING = ("trainable.method=full", "trainable.schedule=lisa", "trainable.every=1", "model.bits=16")
STATES = ("trainable.layers=last:1", "memory.kept_states=card", "rollout.engine=lowmem")


@pytest.mark.parametrize("settings", [(), WHOLE, CHANGING, STATES], ids=["adapters", "whole", "lisa", "states"])
@pytest.mark.parametrize("card", ["a6000"])
def test_any_allocation_of_a_step_may_fail(
    stages: dict[str, Stage], card: str, settings: tuple[str, ...], tmp_path: Path
) -> None:
    training = tiny(*settings)
    marks = stages[card].call(marks_of, training, str(tmp_path / "marks"))
    assert list(marks) == list(EACH)
    parts = {part: spread(marks, each)[part] for part, each in EACH.items()}
    numbers = sorted({number for part in parts.values() for number in part})
    found = stages[card].call(outcomes, training, str(tmp_path / "run"), numbers)
    assert len(found) >= 8
    for one in found:
        assert one.is_sound, one
        assert one.code == 0, one
        assert one.place, one
    phases = {one.allocation: one.phase for one in found}
    assert {phases[number] for number in parts["advantages"]} <= {"advantages", "logprobs", "backward", ""}
    assert {phases[number] for number in (*parts["clipping"], *parts["optimizer"])} == {"optimizer"}
    first, last = parts["row"]
    assert (phases[first], phases[last]) == ("between", "")  # once it is begun, a row leaves out what it cannot count


@pytest.mark.parametrize(
    ("after", "phase"), [("sampled and scored", "advantages"), ("advantages", "backward"), ("optimizer", "between")]
)
def test_memory_that_is_gone_for_good_ends_the_run_in_two_lines(
    a6000: Stage, after: str, phase: str, tmp_path: Path
) -> None:
    training = tiny("memory.max_retries=2")
    first = a6000.call(marks_of, training, str(tmp_path / "marks"))[after] + 1
    ended = a6000.lowmem(*training.command, "--out", str(tmp_path / "run"), fail_at=range(first, 10**6))
    assert ended.code == 5, ended.output
    error, hint = [line for line in ended.output.splitlines() if line.startswith(("error: ", "hint: "))]
    assert f"error: Step 1: memory ran out 3 times in a row in {phase}" in error
    assert "Nothing smaller is known to fit" not in hint
    assert "Traceback" not in ended.output
