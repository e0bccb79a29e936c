"""The shipped studies: each makes runs that could start, and is found by its name."""

from pathlib import Path

import pytest

from lowmem_rl.experiment.study import read_study, shipped_studies
from lowmem_rl.experiment.trial_configs import check_study

FOLDER = Path(__file__).parents[2] / "studies"


def test_every_study_is_shipped() -> None:
    assert set(shipped_studies()) == {path.stem for path in FOLDER.glob("*.toml")}


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_every_arm_of_a_shipped_study_fits_its_card(name: str) -> None:
    plans = check_study(read_study(Path(name)))
    assert {plan.plan.memory_verdict for plan in plans} == {"fits"}
    differing = [plan.differences for plan in plans if plan.arm != read_study(Path(name)).baseline]
    assert all(differing)
