"""The health record: what it counts is what the page says, and its onsets know of no finding."""

import json
from pathlib import Path

import pytest

from benchmarks.health_cases import FAILURES, HEALTHY, halved, risen, without_a_number
from benchmarks.health_failures import line, summary
from lowmem_rl.health.audit import DETECTORS

RECORDS = sorted((Path(__file__).parents[3] / "benchmarks" / "records").glob("health-*.json"))


def rows(name: str, *values: float | None) -> list[dict]:
    return [{"step": step, name: value} for step, value in enumerate(values, 1)]


def test_a_failure_is_there_since_the_step_at_which_its_damage_begins_to_last():
    assert halved("accuracy")(rows("accuracy", 0.4, 0.4, 0.1, 0.5, 0.4, 0.1, 0.1, 0.1)) == 6
    assert risen("reward", 0.2)(rows("reward", 0.1, 0.1, 0.2, 0.3, 0.5)) == 3
    assert halved("accuracy")(rows("accuracy", 0.4, 0.4, 0.4)) is None
    assert without_a_number(rows("loss", 0.1, None)) == 2


def test_every_failure_expects_findings_that_there_are():
    known = {symptom.name for symptom in DETECTORS}
    assert all(case.expected and known.issuperset(case.expected) for case in FAILURES)
    assert not any(case.expected for case in HEALTHY)
    assert len(HEALTHY) == 20
    assert len(FAILURES) >= 12


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_record_counts_its_own_runs(path):
    record = json.loads(path.read_text())
    assert summary(record["runs"]) == record["summary"]
    for run in record["runs"]:
        named = [step for step, name, _ in run["told"] if name in run["expected"]]
        assert run["in_time"] == bool(named and run["onset"] and named[0] < run["onset"] + 20)
        assert run["case"] in line(run)
