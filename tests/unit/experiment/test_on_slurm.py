"""What a node checks before it runs a trial; studies on submitit's local executor are in tests/train."""

from dataclasses import replace
from pathlib import Path
from threading import Barrier, Thread

import pytest

from lowmem_rl.experiment.node import claim_card, node_facts, set_card, write_token
from lowmem_rl.experiment.on_slurm import NodeCheck, Work


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """A job that prints the version, on the machine from which the study is driven."""
    token = write_token(tmp_path)
    return Work(
        ("--version",), tmp_path / "log", tmp_path, NodeCheck(token, node_facts(tmp_path, token), any_card=False)
    )


def test_a_node_like_the_driving_machine_runs_its_trial(work: Work) -> None:
    code, host = work()
    assert (code, host) == (0, work.check.driver.host)
    assert work.check.driver.version in work.log.read_text()
    assert work()[0] == 0


def test_a_node_with_another_card_runs_nothing_unless_forced(work: Work) -> None:
    set_card(work.out, "Tesla T4")
    assert work() == (3, work.check.driver.host)
    assert "not Tesla T4\nhint: set constraint in [run.slurm]" in work.log.read_text()
    assert replace(work, check=replace(work.check, any_card=True))()[0] == 0
    set_card(work.out, None)
    assert work()[0] == 0


@pytest.mark.parametrize(
    ("change", "what"),
    [({"token": "x"}, "does not see"), ({"commit": "def"}, "is not as"), ({"version": "0"}, "is not as")],
)
def test_a_node_that_cannot_work_on_the_study_says_why(work: Work, change: dict[str, str], what: str) -> None:
    driver = replace(work.check.driver, **{key: value for key, value in change.items() if key != "token"})
    check = replace(work.check, driver=driver, token=change.get("token", work.check.token))
    assert replace(work, check=check)()[0] == 3
    assert what in work.log.read_text()
    assert "hint: " in work.log.read_text()


def test_of_machines_that_start_at_once_one_decides_the_card(tmp_path: Path) -> None:
    together, found = Barrier(8), list[str]()

    def ask(card: str) -> None:
        together.wait()
        found.append(claim_card(tmp_path, card))

    threads = [Thread(target=ask, args=(f"card {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".card"]
