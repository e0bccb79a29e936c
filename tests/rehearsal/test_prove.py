"""`lowmem-rl prove` on a simulated card: its checks run, fail where they should, and its record holds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.memory.calibration import Footprint
from lowmem_rl_bench.prove.checks import CHECKS
from lowmem_rl_bench.prove.record import ProofRecord, read_record
from lowmem_rl_bench.prove.replay import CheckedRecord, check
from tests.rehearsal.stage import Ended, Stage

IN_CI = ("main-4bit-bf16", "sampler", "memory")


def prove(stage: Stage, out: Path, *words: str, preset: str = "qwen1.5b-t4") -> Ended:
    return stage.lowmem("prove", f"--preset={preset}", "--out", str(out), *words)


def statuses(record: ProofRecord) -> dict[str, str]:
    return {entry.name: entry.status for entry in record.checks}


@pytest.fixture(scope="module")
def file(a6000: Stage, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prove") / "record.json"
    ended = prove(a6000, out, "--quick", *(f"--only={name}" for name in IN_CI))
    assert ended.code == 0, ended.output
    return out


@pytest.fixture(scope="module")
def checked(file: Path) -> CheckedRecord:
    return check(read_record(file), file.name)


def test_checks_hold_and_their_record_says_what_was_seen(checked: CheckedRecord) -> None:
    record = checked.record
    assert statuses(record) == dict.fromkeys(IN_CI, "ok")
    assert record.card_label == "a6000 (simulated)"
    figures = {entry.name: entry.figures for entry in record.checks}
    assert figures["sampler"]["quantized.same"] == figures["sampler"]["items"] == 4
    assert len(figures["main-4bit-bf16"]["losses"]) == 2  # type: ignore[arg-type]


def test_memory_is_measured_by_phase_next_to_its_prediction(checked: CheckedRecord) -> None:
    measured = checked.record.measured
    assert measured
    assert (measured.preset, measured.weights, measured.model) == ("qwen1.5b-t4", "embedded", "tiny")
    assert measured.memory
    assert list(measured.memory.phases) == ["load", "rollout", "backward", "optimizer", "evaluation", "save"]
    for phase, sizes in measured.memory.phases.items():
        assert isinstance(sizes.measured, Footprint)
        assert 0 < sizes.measured.process_bytes < 2**32, phase
        assert sizes.predicted == checked.predicted[phase]


def test_presets_shows_the_record_as_a_simulated_cards(file: Path, checked: CheckedRecord, cli_here: Any) -> None:
    rows = json.loads(cli_here("presets", "list", "--json", "--records", str(file.parent)).stdout)
    (found,) = [fact for row in rows for fact in row["records"]]
    assert (found["card"], found["simulated"], found["weights"]) == ("a6000", True, "embedded")
    assert found["predicted_bytes"] == checked.predicted_bytes


def prefers_a_word() -> None:
    """Makes one word the likeliest, in whatever our engine decodes with."""
    import torch

    from lowmem_rl.engine import backend

    plain = backend.build

    def build(*args: Any) -> Any:
        decoder = plain(*args)
        word = 60 * torch.eye(1, decoder.head.out_features, device="cuda")[0]
        return replace(decoder, head=lambda x: decoder.head(x) + word)

    backend.build = build


def test_a_sampler_that_is_not_the_model_is_found(a6000: Stage) -> None:
    order = {"preset": "tiny-cpu", "settings": ["memory.checkpointing=none"], "prompts": 2}
    found = a6000.call("lowmem_rl_bench.prove.sampler_tokens:compare", order, before=prefers_a_word)
    for weights in ("quantized", "merged"):
        assert found[weights]["differences"]
        assert found[weights]["gap_nats"] > found[weights]["most_gap_nats"]


@pytest.mark.long
@pytest.mark.parametrize("card", ["a6000", "t4"])
def test_every_check_holds_on_a_card_that_can_run_it(
    stages: dict[str, Stage], card: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages[card], "limit_s", 1800)
    out = tmp_path / "record.json"
    ended = prove(stages[card], out, "--quick")
    record = check(read_record(out), out.name).record
    assert ended.code == 0, [(entry.name, entry.result) for entry in record.checks if entry.status == "failed"]
    left_out = {"main-4bit-bf16", "main-16bit-bf16"} if card == "t4" else set()
    assert statuses(record) == {one.name: "left out" if one.name in left_out else "ok" for one in CHECKS}
    step = record.measured and record.measured.step
    assert step
    assert len(step.ours.rounds) == len(step.unsloth.rounds) == 1
    assert (step.ours.engine, step.unsloth.engine) == ("lowmem", "generate")


@pytest.mark.long
def test_the_main_jobs_rewards_rise(a6000: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(a6000, "limit_s", 1800)
    ended = prove(a6000, tmp_path / "record.json", "--only=main-4bit-bf16")
    assert ended.code == 0, ended.output
    (entry,) = read_record(tmp_path / "record.json").checks
    assert entry.figures["reward_rise"] > 0.3  # type: ignore[operator]


@pytest.mark.long
def test_a_model_that_is_on_this_disk_is_measured_whole(t4: Stage, tmp_path: Path) -> None:
    ended = prove(t4, tmp_path / "record.json", "--only=memory", preset="tiny-cpu")
    assert ended.code == 0, ended.output
    measured = check(read_record(tmp_path / "record.json"), "record.json").record.measured
    assert measured
    assert measured.memory
    assert (measured.weights, measured.memory.completion_tokens) == ("cached", 64)
