"""The audit during a run: it reports what the audit afterwards finds, once, and forgets what a rollback undid."""

from dataclasses import replace

import pytest

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import RunDirError
from lowmem_rl.health.audit import audit, detect_all
from lowmem_rl.health.history import EvalPoint, RollbackRecord, RunHistory, read_history
from lowmem_rl.health.incremental_audit import IncrementalAudit, replay
from lowmem_rl.storage.run_dir import RunDir
from tests.unit.health.simulated_runs import Policy, simulate, write_run
from tests.unit.health.test_detectors import CASES, EIGHTS, destroyed, names, truncation_wall, with_settings


def lived_through(history: RunHistory) -> IncrementalAudit:
    live = IncrementalAudit(RunHistory(history.config, ()))
    for row in history.rows:
        live.on_samples(sample for sample in history.samples if sample.step == row["step"])
        live.on_row(row)
    return live


@pytest.mark.parametrize(("name", "fault", "config", "onset"), CASES[:20:3])
def test_during_the_run_it_reports_what_the_audit_finds_of_each_step_afterwards(name, fault, config, onset):
    record = simulate(0, 30, config=config, fault=fault, onset=onset, start=0.4)
    reported = list(replay(record))
    first = {finding.name: step for step, finding in reversed(reported)}
    for step in range(1, record.step + 1):
        found = {finding.name for finding in detect_all(record.until(step))}
        assert found <= {known for known, since in first.items() if since <= step}
    assert first.keys() >= names(record).keys()


def test_a_finding_is_reported_once_and_again_when_it_gets_worse():
    record = simulate(0, 40, config=EIGHTS, fault=truncation_wall, onset=11, start=0.5)
    reported = [(finding.name, finding.level) for _, finding in replay(record)]
    assert len(reported) == len(set(reported))
    assert reported.index(("truncation_wall", "warning")) < reported.index(("truncation_wall", "critical"))


def test_what_a_rollback_undid_is_no_longer_found():
    sick = simulate(0, 30, config=EIGHTS, fault=destroyed, onset=16, start=0.5)
    live = lived_through(sick)
    assert "learning_rate_too_high" in {finding.name for finding in live.findings}
    live.on_evaluations(EvalPoint(step, 0.5, 100, 20.0) for step in (10, 20, 30))
    live.on_rollback(RollbackRecord(30, 14))
    assert not live.findings
    assert [evaluation.step for evaluation in live.history.evaluations][-2:] == [10, 30]  # 30: with what was put back
    assert [row["step"] for row in live.history.rows] == list(range(1, 15))
    assert max(sample.step for sample in live.history.samples) <= 14


def test_a_rolled_back_run_is_audited_and_resumed_without_what_was_undone(tmp_path):
    whole = simulate(0, 45, config=EIGHTS, fault=for_a_while, onset=16, start=0.5)
    path = write_run(tmp_path, whole)
    (path / "rollbacks.jsonl").write_text('{"step": 30, "to": 14, "finding": "x", "learning_rate": 0.1}\n')
    record = read_history(RunDir(path))
    assert record.rollbacks == (RollbackRecord(30, 14),)
    found = names(record)["learning_rate_too_high"]
    assert (found.lasts, found.level) == (False, "critical")
    assert found.steps[1] == 30
    live = IncrementalAudit(record)
    assert not live.findings
    assert 20 not in [row["step"] for row in live.history.rows]


def for_a_while(policy: Policy, age: int) -> None:
    if age < 15:
        destroyed(policy, age)


@pytest.mark.parametrize("row", ['{"step": 3}', '{"step": "x", "to": 1}', "3"])
def test_a_file_of_rollbacks_that_holds_none_is_named(tmp_path, row):
    path = write_run(tmp_path, simulate(0, 3))
    (path / "rollbacks.jsonl").write_text(row + "\n" + row + "\n")
    with pytest.raises(RunDirError, match="rollbacks"):
        read_history(RunDir(path))


def test_an_audit_of_a_resumed_run_does_not_repeat_its_findings():
    record = simulate(0, 30, config=EIGHTS, fault=destroyed, onset=3, start=0.5)
    live = IncrementalAudit(record.until(29))
    assert live.findings
    assert live.on_row(record.rows[29]) == ()


def without_kl(record: RunHistory) -> RunHistory:
    return replace(record, rows=tuple({k: v for k, v in row.items() if k != "kl"} for row in record.rows))


def test_the_distance_from_the_base_is_read_from_evaluations_if_the_loss_measures_none():
    record = without_kl(simulate(0, 30, config=EIGHTS))
    assert "or an evaluation with kl_nats" in audit(record).not_judged["kl_blowup"]
    far = EvalPoint(25, 0.5, 100, 20.0, kl_nats=12.0)
    found = names(replace(record, evaluations=(far,)))["kl_blowup"]
    assert (found.level, found.steps) == ("critical", (25, 25))


def test_a_policy_that_is_still_its_base_model_is_reported_once_it_could_have_moved():
    record = without_kl(simulate(0, 30, config=EIGHTS, start=0.4))
    still = tuple(EvalPoint(step, 0.4, 100, 20.0, kl_nats=1e-9) for step in (0, 10, 20))
    reported = [step for step, finding in replay(replace(record, evaluations=still)) if "too_low" in finding.name]
    assert reported == [21]
    moved = (*still[:2], replace(still[2], kl_nats=1e-3))
    assert "learning_rate_too_low" not in names(replace(record, evaluations=moved))


def test_accuracy_that_was_reached_and_wears_off_is_reported_with_the_step_since():
    def wears(policy: Policy, age: int) -> None:
        policy.pass_rate, policy.unevenness = (0.9 if age < 15 else 0.6), 20.0

    found = names(simulate(0, 35, config=EIGHTS, fault=wears, start=0.5))["learning_rate_too_high"]
    assert found.level == "warning"
    assert "wears off" in found.what
    assert 8 <= found.steps[0] <= 20


def test_rollback_needs_checkpoints():
    from lowmem_rl.config.rules import broken_rules

    config = RunConfig.model_validate({"health": {"action": "roll_back"}})
    assert [rule.key for rule in broken_rules(config)] == ["logging.checkpoint_every"]
    assert not list(broken_rules(with_settings(health={"action": "roll_back"}, logging={"checkpoint_every": 10})))
