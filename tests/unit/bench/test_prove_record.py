"""A record of `prove` is read as hostile, and its prediction is computed again."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.presets import load_presets
from lowmem_rl.errors import ConfigError
from lowmem_rl_bench.prove import replay
from lowmem_rl_bench.prove.measured_preset import WEIGHTS
from lowmem_rl_bench.prove.record import LARGEST_BYTES, read_record, sealed, write_record
from lowmem_rl_bench.prove.records import _holding, load_records, shipped_folder
from lowmem_rl_bench.prove.replay import CheckedRecord, check
from tests.record_maker import UNSLOTH, changed, make_record, write

ONE_BYTE = {"process_bytes": 1}
GPU_PRESETS = [preset for preset in load_presets() if preset.card != "cpu"]


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return make_record()


def checked(record: Any, folder: Path) -> CheckedRecord:
    path = write(record, folder / "record.json")
    return check(read_record(path), path.name)


def refusal(record: Any, folder: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        checked(record, folder)
    assert refused.value.exit_code == 2
    assert refused.value.hint
    assert "\n" not in str(refused.value)
    return str(refused.value)


# What holds


@pytest.mark.parametrize("preset", GPU_PRESETS, ids=lambda preset: preset.name)
def test_the_record_of_each_preset_is_replayed_to_the_same_bytes(preset: Any, tmp_path: Path) -> None:
    for weights in WEIGHTS:
        found = checked(make_record(preset.name, weights, preset.card), tmp_path)
        memory = found.record.measured and found.record.measured.memory
        assert memory
        assert found.predicted_bytes == memory.predicted_bytes > 0


def test_a_record_survives_being_written_and_formatted_otherwise(record: dict[str, Any], tmp_path: Path) -> None:
    write_record(record, tmp_path / "written.json")
    whole = read_record(tmp_path / "written.json")
    reordered = dict(sorted(record.items(), reverse=True))
    assert read_record(write(reordered, tmp_path / "other.json")) == whole
    assert whole.digest == sealed(record)["digest"] == record["digest"]


def test_a_record_without_a_measured_step_holds(record: dict[str, Any], tmp_path: Path) -> None:
    assert checked(changed(record, "measured", None), tmp_path).predicted == {}


def test_a_later_estimate_shows_its_own_prediction(record: dict[str, Any], tmp_path: Path) -> None:
    """What another version predicted cannot be checked, so it is never shown."""
    stated = changed(record, "measured.memory.phases.load.predicted", {"process_bytes": 1})
    found = checked(changed(stated, "estimator", "0" * 64), tmp_path)
    assert found.predicted["load"].process_bytes > 2**29


def test_a_card_that_tests_simulate_is_named_so(record: dict[str, Any], tmp_path: Path) -> None:
    found = checked(changed(record, "machine.driver", "580.95.05 (simulated)"), tmp_path)
    assert found.record.card_label == "t4 (simulated)"


def test_the_embedded_models_own_preset_can_be_measured_on_a_card(tmp_path: Path) -> None:
    assert checked(make_record("tiny-cpu"), tmp_path).predicted_bytes > 0


def test_the_records_that_come_with_lowmem_rl_hold_and_are_of_cards() -> None:
    refused: list[str] = []
    assert shipped_folder().is_dir()
    assert not [one for one in load_records((), refused.append) if one.record.machine.is_simulated]
    assert refused == []


def test_a_shipped_record_that_no_longer_holds_is_left_out_with_a_note(tmp_path: Path) -> None:
    notes: list[str] = []
    files = [write(make_record(), tmp_path / "a.json"), write({}, tmp_path / "b.json")]
    assert len(list(_holding(files, notes.append))) == 1
    assert [note.partition(": ")[0] for note in notes] == [f"Record '{files[1]}' is refused"]


# What was changed


@pytest.mark.parametrize(
    "place", ["machine.gpu", "measured.memory.phases.load.measured.process_bytes", "checks.0.status", "date"]
)
def test_a_change_without_a_new_digest_is_found(record: dict[str, Any], place: str, tmp_path: Path) -> None:
    values = {"machine.gpu": "Tesla T4", "checks.0.status": "failed", "date": "2026-11-29"}
    edited = changed(record, place, values.get(place, 2**40), reseal=False)
    assert "it was changed after it was written" in refusal(edited, tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        ("measured.step.ratio.median", 9.0, "not that of the rounds"),
        ("measured.step.unsloth.rounds", [200.0, *UNSLOTH[1:]], "not that of the rounds"),
        ("measured.step.ours.rounds", [10.0], "unequal numbers of rounds"),
        ("measured.config_sha256", "0" * 64, "config_sha256"),
        ("card.key", "a6000", "is not NVIDIA Tesla T4"),
        ("card.compute_capability", [9, 0], "another compute capability"),
        ("machine.gpu_bytes", 2**36, "is not NVIDIA Tesla T4"),
    ],
)
def test_what_is_stated_twice_must_agree(
    record: dict[str, Any], place: str, value: Any, why: str, tmp_path: Path
) -> None:
    assert why in refusal(changed(record, place, value), tmp_path)


@pytest.mark.parametrize(
    ("place", "value", "why"),
    [
        ("measured.memory.phases.backward.predicted", {"process_bytes": 2**30}, "for the phase backward it states"),
        (
            "measured.memory.phases.extra",
            {"predicted": {"process_bytes": 1}, "measured": {"process_bytes": 1}},
            "no phase",
        ),
        ("measured.memory.completion_tokens", 600, "longer than the preset's"),
        ("measured.memory.step", 2, "heaviest step"),
        ("measured.preset", "no-such", "There is no preset named 'no-such'"),
        ("measured.preset", "qwen7b-t4", "trains Qwen/Qwen2.5-7B-Instruct, not"),
        ("measured.config.grpo.group_size", 2, "has changed since: grpo.group_size is 8, and was 2"),
        ("measured.config.grpo.no_such", 2, "has changed since: grpo.no_such"),
        ("measured.planned.micro_batch", 3, ""),
    ],
)
def test_what_cannot_be_replayed_is_refused(
    record: dict[str, Any], place: str, value: Any, why: str, tmp_path: Path
) -> None:
    error = refusal(changed(record, place, value), tmp_path)
    assert "cannot be replayed" in error
    assert why in error


# What is hostile


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("checks.0.seconds", -1.0),
        ("checks.0.seconds", "61"),
        ("checks.0.seconds", True),
        ("checks.0.status", "great"),
        ("checks.0.result", "\x1b[2J"),
        ("checks.0.result", "a\u202eb"),
        ("checks.0.result", "x" * 5000),
        ("checks.0.figures", {"nested": {"a": 1}}),
        ("machine.commit", "HEAD; rm -rf /"),
        ("machine.cores", 10**30),
        ("machine.home", "/home/somebody"),
        ("measured.memory.kept_share", 1.5),
        ("measured.memory.phases.load.measured", {"allocated_bytes": 5, "process_bytes": 1}),
        ("measured.planned.checkpointing", "__import__('os')"),
        ("measured.step.ours.rounds", [0.0, 1.0, 1.0]),
        ("measured.config", []),
        ("measured", []),
        ("digest", "0" * 63),
        ("date", "yesterday"),
        ("version", 2),
        ("tool", "another"),
    ],
)
def test_other_types_and_ranges_are_refused(record: dict[str, Any], place: str, value: Any, tmp_path: Path) -> None:
    assert "is refused" in refusal(changed(record, place, value, reseal=place != "digest"), tmp_path)


@pytest.mark.parametrize("key", ["machine", "checks", "estimator", "digest"])
def test_a_record_without_a_part_is_refused(record: dict[str, Any], key: str, tmp_path: Path) -> None:
    rest = {name: value for name, value in record.items() if name != key}
    assert key in refusal(rest if key == "digest" else sealed(rest), tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"null",
        b'{"tool": NaN}',
        b'{"tool": 1e999}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": 1, "a": 2}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b" " * (LARGEST_BYTES + 1),
    ],
    ids=["empty", "list", "null", "nan", "infinite", "no text", "deep", "twice", "gigantic", "large"],
)
def test_a_file_that_is_no_record_is_refused(text: bytes, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match="is refused"):
        read_record(path)


def test_a_torn_file_is_refused_wherever_it_is_torn(record: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps(record).encode()
    for end in range(0, len(text), len(text) // 40):
        (tmp_path / "record.json").write_bytes(text[:end])
        with pytest.raises(ConfigError, match="is refused"):
            read_record(tmp_path / "record.json")


@pytest.mark.parametrize("place", [".", "no-such.json", "a\0b", "pipe"])
def test_what_is_no_file_is_refused(place: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is refused"):
        read_record(tmp_path / place)


def test_the_digest_of_the_estimator_follows_its_files() -> None:
    assert len(replay.estimator_digest()) == 64
    assert all([*(Path(replay.__file__).parents[2] / "lowmem_rl").glob(pattern)] for pattern in replay._PREDICTING)
