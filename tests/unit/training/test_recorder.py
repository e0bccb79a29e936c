"""The recorder on scored batches: what reaches the rows of a run directory."""

import json
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.errors import TrainingError
from lowmem_rl.grpo.scored_batch import ScoredBatch
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.telemetry.events import Event, StepEnded
from lowmem_rl.training.recorder import Recorder
from lowmem_rl.verify import verify

CONFIG = resolve(
    preset="tiny-cpu", settings=["grpo.group_size=2", "memory.micro_batch=4", "logging.samples_every=2"]
).config


def batch(step: int, rewards: list[float | None]) -> ScoredBatch:
    rows = tuple(
        {"step": step, "example_id": f"e{i // 2}", "scores": {"any": reward}, "reward": reward or 0.0, "tokens": 10}
        for i, reward in enumerate(rewards)
    )
    ids = [str(row["example_id"]) for row in rows]
    correct = tuple(reward == 1.0 for reward in rewards)
    return ScoredBatch(step, 2, ids, [3] * len(ids), [[1] * 10] * len(ids), [[r] for r in rewards], rows, correct)


@pytest.fixture
def recorder(tmp_path: Path) -> tuple[Recorder, RunDir, list[Event]]:
    events: list[Event] = []
    run_dir = RunDir.create(tmp_path / "run")
    return Recorder(run_dir, CONFIG, events.append), run_dir, events


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_row_gets_what_was_sampled_for_its_step(recorder: Any) -> None:
    found, run_dir, events = recorder
    found.on_scored(batch(1, [1.0, 0.0, 0.0, 0.0]))
    found.on_scored(batch(1, [1.0, 1.0]))  # a second round, as if a dead group was replaced
    found.on_step(row := {"step": 1, "step_s": 2.0}, None)
    assert (row["accuracy"], row["informative_share"]) == (0.5, pytest.approx(1 / 3))
    assert row["completion_tokens_per_s"] == 6 * 10 / 2.0
    assert events == [StepEnded(row, CONFIG.grpo.steps)]
    assert read(run_dir.metrics) == [row]


def test_late_verdicts_are_counted_for_the_step_that_asked(recorder: Any) -> None:
    pytest.importorskip("math_verify")
    found, _, _ = recorder
    assert not verify("7", "\\sum_{n=1}^{10^8} \\sin n")  # by an evaluation before the step
    assert found.choose_prompts([], 1) == []
    for gold in ("\\sum_{n=1}^{10^8} \\sin n", "8"):
        verify("7", gold)
    found.on_scored(batch(1, [1.0, 0.0]))
    rows = [{"step": step, "step_s": 1.0} for step in (1, 2)]
    for row in rows:
        found.on_step(row, None)
    assert [row["late_verdicts"] for row in rows] == [1, 0]


def test_a_later_step_of_a_rollout_has_its_shares_and_no_tokens(recorder: Any) -> None:
    found, _, _ = recorder
    found.on_scored(batch(1, [1.0, 0.0]))
    found.on_step({"step": 1, "step_s": 1.0}, None)
    found.on_step(row := {"step": 2, "step_s": 1.0}, None)
    assert (row["accuracy"], row["informative_share"], row["completion_tokens_per_s"]) == (0.5, 1.0, 0.0)


def test_prompts_are_kept_always_and_completions_every_so_often(recorder: Any) -> None:
    found, run_dir, _ = recorder
    for step in (1, 2, 3):
        found.on_scored(batch(step, [1.0, 0.0]))
    assert [row["step"] for row in read(run_dir.order)] == [1, 2, 3]
    assert [row["step"] for row in read(run_dir.samples)] == [1, 1, 3, 3]


def test_a_batch_that_no_reward_has_scored_ends_the_run(recorder: Any) -> None:
    with pytest.raises(TrainingError, match="Step 4: no reward scored any of 2 completions"):
        recorder[0].on_scored(batch(4, [None, None]))


def test_a_resumed_recorder_continues_with_the_rollout_it_had(recorder: Any) -> None:
    found, run_dir, events = recorder
    found.on_scored(batch(1, [1.0, 0.0]))
    found.on_step({"step": 1, "step_s": 1.0}, None)
    resumed = Recorder(run_dir, CONFIG, events.append)
    resumed.load_state_dict(json.loads(json.dumps(found.state_dict())))
    resumed.on_step(row := {"step": 2, "step_s": 1.0}, None)
    assert row["accuracy"] == 0.5
