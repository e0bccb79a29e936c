"""What the audit reads of a run directory: whole, half-written, torn, of another version, hostile."""

import json
from pathlib import Path

import pytest

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import RunDirError
from lowmem_rl.health.audit import HealthReport, audit, detect_all
from lowmem_rl.health.history import RunHistory, read_history
from lowmem_rl.storage.run_dir import RunDir
from tests.unit.health.simulated_runs import simulate, write_run


def audited(path: Path) -> HealthReport:
    return audit(read_history(RunDir(path)))


def test_what_is_read_is_what_was_written(tmp_path):
    record = simulate(0, 12)
    assert read_history(RunDir(write_run(tmp_path, record))) == record


def test_a_run_without_steps_has_no_findings(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"config": RunConfig().model_dump()}))
    report = audited(tmp_path)
    assert (report.step, report.findings) == (0, ())
    assert str(report).startswith("audit of 0 steps: nothing found")
    assert detect_all(RunHistory(RunConfig(), ())) == ()


def test_a_half_written_run_is_read_to_its_last_whole_row(tmp_path):
    path = write_run(tmp_path, simulate(0, 12))
    (path / "eval.json").unlink()
    for name in ("metrics.jsonl", "samples.jsonl"):
        content = (path / name).read_text()
        (path / name).write_text(content[:-40])
    assert audited(path).step == 11


def test_rows_that_a_resumed_run_wrote_again_count_once_and_the_later_ones(tmp_path):
    path = write_run(tmp_path, simulate(0, 12))
    again = {"step": 11, "reward": 0.5, "loss": None}
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    record = read_history(RunDir(path))
    assert [row["step"] for row in record.rows] == list(range(1, 13))
    assert record.rows[10] == again


def test_keys_of_another_version_are_left_out(tmp_path):
    path = write_run(tmp_path, simulate(0, 3))
    written = json.loads((path / "config.json").read_text())
    written["config"]["rollout"]["a_later_key"] = written["config"]["a_later_section"] = {"x": 1}
    del written["config"]["health"]
    (path / "config.json").write_text(json.dumps(written))
    assert audited(path).step == 3


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", "{"),
        ("config.json", "[]"),
        ("config.json", '{"config": {"grpo": 3}}'),
        ("config.json", '{"config": {"grpo": {"group_size": -1}}}'),
        ("config.json", "[" * 100_000),
        ("metrics.jsonl", "{}\n"),
        ("metrics.jsonl", "3\n4\n"),
        ("metrics.jsonl", '{"step": "1"}\n'),
        ("metrics.jsonl", '{"step": true}\n'),
        ("metrics.jsonl", '{"step": 1}\n{"st\n{"step": 3}\n'),
        ("metrics.jsonl", "[" * 100_000 + '\n{"step": 3}\n'),
        ("samples.jsonl", '{"step": 1}\n'),
        ("eval.json", "{}"),
        ("eval.json", '{"before": {"step": 0}}'),
        ("eval.json", "[1]"),
    ],
)
def test_a_file_that_is_not_a_runs_is_named_with_a_fix(tmp_path, file, content):
    path = write_run(tmp_path, simulate(0, 3))
    (path / file).write_text(content)
    with pytest.raises(RunDirError, match=file) as error:
        audited(path)
    assert error.value.hint


def test_bytes_that_are_not_text_and_places_without_a_run_are_refused(tmp_path):
    path = write_run(tmp_path / "run", simulate(0, 3))
    (path / "metrics.jsonl").write_bytes(b'\xff\xfe\x00\n{"step": 1}\n')
    for place in (path, tmp_path, tmp_path / "nothing", path / "config.json"):
        with pytest.raises(RunDirError):
            audited(place)


def test_hostile_text_and_numbers_do_not_stop_the_audit(tmp_path):
    path = write_run(tmp_path, simulate(0, 20))
    text = "\x00\ud800\u2028" * 40_000
    sample = {"step": 1, "example_id": "x", "prompt": text, "answer": "1", "completion": text, "truncated": False}
    lines = [json.dumps(sample | {"example_id": str(number)}) for number in range(8)]
    (path / "samples.jsonl").write_text("\n".join(lines) + "\n")
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {
            "entropy": "x",
            "kl": True,
            "accuracy": None,
            "reward_std": 1e308,
            "completion_tokens": float("inf"),
            "grad_norm": 10**400,
            "sampler_fell_back": 1.0,
            "rollout_gap_nats": {},
        }
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "gibberish" in {finding.name for finding in audited(path).findings}


def test_a_report_prints_itself_and_becomes_json(tmp_path):
    def wall(policy, age):
        policy.tokens *= 50

    report = audit(simulate(0, 20, fault=wall))
    found = next(finding for finding in report.findings if finding.name == "truncation_wall")
    assert "fix: Set grpo.max_completion_tokens to" in str(report)
    assert "audit" in str(report).splitlines()[-1]
    written = json.loads(json.dumps(report.to_json()))
    assert written["kind"] == "audit"
    assert {"name", "severity", "steps", "confidence", "what", "cure", "lasts"} == written["findings"][0].keys()
    assert 0.5 < found.confidence < 1


def test_rounds_are_the_steps_that_sampled():
    rows = tuple({"step": step} | ({"reward": 0.1} if step % 2 else {}) for step in range(1, 9))
    record = RunHistory(RunConfig(), rows)
    assert [row["step"] for row in record.rounds] == [1, 3, 5, 7]
    assert record.until(4).rounds == RunHistory(RunConfig(), rows[:4]).rounds
    assert (record.until(4).step, record.step) == (4, 8)


def rows_of_layers(*layers: str, steps_per_rollout: int = 1) -> tuple[dict, ...]:
    """Returns a row for each step, of which the layers are given; those that sampled have a reward."""
    begins = ({"reward": 0.0} if number % steps_per_rollout == 0 else {} for number in range(len(layers)))
    numbered = enumerate(zip(layers, begins, strict=True), 1)
    return tuple({"step": step, "trainable_layers": one, **reward} for step, (one, reward) in numbered)


def settled_steps(rows: tuple[dict, ...], every: int, **grpo: int) -> list[int]:
    trainable = {"schedule": "gradual_unfreezing", "every": every}
    config = RunConfig.model_validate({"trainable": trainable, "grpo": grpo})
    return [row["step"] for row in RunHistory(config, rows).settled.rows]


def test_two_rounds_after_a_change_of_layers_are_left_out() -> None:
    rows = rows_of_layers("2", "2", "2", "2", "1-2", "1-2", "1-2", "1-2")
    assert settled_steps(rows, every=4) == [1, 2, 3, 4, 7, 8]
    assert RunHistory(RunConfig(), rows).settled.rows == rows  # with a fixed set a row is a row
    in_pairs = rows_of_layers(*(("2",) * 8), *(("1-2",) * 8), steps_per_rollout=2)
    assert settled_steps(in_pairs, every=8, steps_per_rollout=2) == [*range(1, 9), *range(13, 17)]


def test_none_are_left_out_if_hardly_any_would_stay() -> None:
    assert settled_steps(rows_of_layers("2", "2", "2", "0", "0", "0"), every=3) == [1, 2, 3, 4, 5, 6]


def test_rounds_after_a_change_that_follows_another_are_left_out_once() -> None:
    assert settled_steps(rows_of_layers("2", "2", "1", "0", "0", "0", "0"), every=4) == [1, 2, 6, 7]
