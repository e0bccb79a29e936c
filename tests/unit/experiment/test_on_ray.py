from dataclasses import replace
from pathlib import Path

import pytest

from lowmem_rl.errors import SetupError
from lowmem_rl.experiment.node import NodeFacts, node_facts, write_token
from lowmem_rl.experiment.on_ray import check_nodes

HERE = NodeFacts("here", "1.0", "abc", "RTX A6000", True)
THERE = replace(HERE, host="there")


def test_equal_machines_that_share_the_directory_are_fine() -> None:
    check_nodes([HERE, THERE], Path("s"), force=False)


@pytest.mark.parametrize(
    ("other", "what", "hint"),
    [
        (replace(THERE, sees_study=False), "there does not see s", "all machines mount"),
        (replace(THERE, version="1.1"), "differ in version: 1.0 and 1.1", "Install the same"),
        (replace(THERE, commit="def"), "differ in commit", "Install the same"),
        (replace(THERE, card="Tesla T4"), "differ in card", "--force"),
    ],
)
def test_machines_that_cannot_work_on_one_study_are_refused(other: NodeFacts, what: str, hint: str) -> None:
    with pytest.raises(SetupError, match=what) as error:
        check_nodes([HERE, other], Path("s"), force=False)
    assert hint in error.value.hint


def test_force_takes_other_cards_and_nothing_else() -> None:
    check_nodes([HERE, replace(THERE, card="Tesla T4")], Path("s"), force=True)
    with pytest.raises(SetupError):
        check_nodes([HERE, replace(THERE, version="1.1")], Path("s"), force=True)


def test_machines_with_another_card_than_the_runs_that_are_there_are_refused() -> None:
    check_nodes([HERE, THERE], Path("s"), "RTX A6000", force=False)
    check_nodes([HERE, THERE], Path("s"), "Tesla T4", force=True)
    with pytest.raises(SetupError, match="here has another card than the runs in s: RTX A6000, not Tesla T4"):
        check_nodes([HERE, THERE], Path("s"), "Tesla T4", force=False)


def test_a_machine_reads_what_was_written_into_a_shared_directory(tmp_path: Path) -> None:
    token = write_token(tmp_path)
    assert node_facts(tmp_path, token).sees_study
    assert not node_facts(tmp_path / "elsewhere", token).sees_study
    write_token(tmp_path)
    assert not node_facts(tmp_path, token).sees_study
