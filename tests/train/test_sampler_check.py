"""What sampled is compared with the update's own forward; what that does not show is computed for it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.engine import sampler as sampler_module
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.entrypoints.train import run
from lowmem_rl.storage.run_dir import Row, RunDir, read_json, read_rows
from lowmem_rl.telemetry.metrics import MEASURED

SETTINGS = ("grpo.prompts_per_step=4", "memory.micro_batch=8", "eval.examples=4", "eval.every=0")
NO_SIGNAL = ("rewards.boxed_answer=0", "rewards.think_format=0", "rewards.answer_tags=1")
"""Paid for nothing that the embedded model does: all rewards are equal."""


def trained(out: Path, *settings: str, steps: int = 2) -> RunDir:
    run(resolve(preset="tiny-cpu", settings=[*SETTINGS, f"grpo.steps={steps}", *settings]), out, force=True)
    return RunDir(out)


def rows_of(done: RunDir) -> list[Row]:
    return list(read_rows(done.metrics))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Gets the number of rows of each comparison that had a forward of its own."""
    found: list[int] = []
    plain = sampler_module.logprob_gap

    def counted(policy: Any, prompts: Any, *rest: Any) -> float:
        found.append(len(prompts))
        return plain(policy, prompts, *rest)

    monkeypatch.setattr(sampler_module, "logprob_gap", counted)
    return found


@pytest.fixture
def sampled_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets rollouts be sampled from other weights than the policy's."""
    build: Callable[..., Any] = sampler_module.build

    def off(*args: Any) -> Any:
        decoder = build(*args)
        norm = decoder.norm
        object.__setattr__(decoder, "norm", lambda x: norm(x) * 1.1)
        return decoder

    monkeypatch.setattr(sampler_module, "build", off)


@pytest.mark.parametrize("settings", [(), ("rollout.temperature=0.7",), ("model.dtype=bfloat16",)])
def test_the_update_compares_without_a_forward_of_its_own(
    settings: tuple[str, ...], tmp_path: Path, computed: list[int]
) -> None:
    rows = rows_of(trained(tmp_path / "run", *settings))
    assert computed == []
    most = 0.02 if "model.dtype=bfloat16" in settings else 1e-5
    assert all(0 < row["rollout_gap_nats"] < most for row in rows)
    assert not any("sampler_fell_back" in row for row in rows)


def test_nothing_else_of_a_run_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = trained(tmp_path / "late", "grpo.steps_per_rollout=2")
    monkeypatch.setattr(Sampler, "is_compared_by_update", False)
    at_once = trained(tmp_path / "at_once", "grpo.steps_per_rollout=2")
    for one, other in zip(rows_of(late), rows_of(at_once), strict=True):
        assert one.keys() == other.keys()
        assert all(one[key] == other[key] for key in one.keys() - {*MEASURED, "rollout_gap_nats"})
    weights = "adapter_model.safetensors"
    assert (late.adapter / weights).read_bytes() == (at_once.adapter / weights).read_bytes()
    assert late.samples.read_bytes() == at_once.samples.read_bytes()


def test_a_rollout_is_compared_once_in_its_first_step(tmp_path: Path, computed: list[int]) -> None:
    rows = rows_of(trained(tmp_path / "run", "grpo.steps_per_rollout=2", steps=4))
    assert ["rollout_gap_nats" in row for row in rows] == [True, False, True, False]
    assert computed == []


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (("adapter.dropout=0.1",), [2, 2]),
        (NO_SIGNAL, [2, 2]),
        (("trainable.layers=last:1", "memory.kept_states=host"), [2, 2]),
        (("trainable.layers=last:1", "memory.kept_states=off"), []),
    ],
)
def test_what_the_update_does_not_show_is_computed(
    settings: tuple[str, ...], expected: list[int], tmp_path: Path, computed: list[int]
) -> None:
    rows = rows_of(trained(tmp_path / "run", *settings))
    assert computed == expected
    assert all(0 < row["rollout_gap_nats"] < 1e-5 for row in rows)


@pytest.mark.usefixtures("sampled_from_others")
@pytest.mark.parametrize("settings", [(), NO_SIGNAL, ("adapter.dropout=0.1",)])
def test_a_fault_is_reported_and_left_step_by_step(settings: tuple[str, ...], tmp_path: Path) -> None:
    done = trained(tmp_path / "run", *settings, steps=3)
    assert [row.get("sampler_fell_back") for row in rows_of(done)] == [1.0, 1.0, None]
    assert rows_of(done)[0]["rollout_gap_nats"] > 1e-3
    assert read_json(done.engine)["sampling"]["engine"] == "generate"
    assert "sampler_mismatch" in [finding["name"] for finding in read_json(done.health)["findings"]]
