"""The health benchmark: its onsets do not depend on findings, and its summary counts what was reported."""

from benchmarks.health_cases import FAILURES, HEALTHY, halved, risen, without_a_number
from benchmarks.health_failures import line, summary
from lowmem_rl.health.audit import DETECTORS


def rows(name: str, *values: float | None) -> list[dict]:
    return [{"step": step, name: value} for step, value in enumerate(values, 1)]


def test_the_onset_of_a_failure_is_the_step_at_which_lasting_damage_begins():
    assert halved("accuracy")(rows("accuracy", 0.4, 0.4, 0.1, 0.5, 0.4, 0.1, 0.1, 0.1)) == 6
    assert risen("reward", 0.2)(rows("reward", 0.1, 0.1, 0.2, 0.3, 0.5)) == 3
    assert halved("accuracy")(rows("accuracy", 0.4, 0.4, 0.4)) is None
    assert without_a_number(rows("loss", 0.1, None)) == 2


def test_every_failure_expects_findings_that_exist():
    known = {detector.name for detector in DETECTORS}
    assert all(case.expected and known.issuperset(case.expected) for case in FAILURES)
    assert not any(case.expected for case in HEALTHY)
    assert len(HEALTHY) == 20
    assert len(FAILURES) >= 12


RUNS = [
    {
        "case": case,
        "seed": 1,
        "expected": expected,
        "onset": 5,
        "in_time": named,
        "told": reported,
        "same_beside_the_run": True,
    }
    for case, expected, named, reported in (
        ("found", ["collapse"], True, [(9, "collapse", "critical")]),
        ("missed", ["collapse"], False, [(9, "other", "warning")]),
        ("healthy", [], False, [(3, "collapse", "critical"), (4, "other", "warning"), (5, "other", "warning")]),
    )
]


def test_false_findings_are_counted_in_healthy_runs_only():
    found = summary(RUNS)
    assert (found["failures"], found["named_in_time"], found["missed"]) == (2, 1, ["missed"])
    assert (found["healthy_runs"], found["false_stops"], found["false_warnings"]) == (1, 1, 2)


def test_a_line_shows_whether_a_failure_was_found_in_time():
    found, missed, healthy = map(line, RUNS)
    assert "in time: collapse (critical, 9)" in found
    assert "MISSED: other" in missed
    assert "MISSED" not in healthy
