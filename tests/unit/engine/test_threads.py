"""The threads that compute: as many as are worth it, as the user says, or as a run began with."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine import threads as threads_module
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.threads import VARIABLE, ThreadChoice, fewest_worth_it, recorded_threads, set_threads
from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.run_dir import RunDir

torch = pytest.importorskip("torch")

CPU = Device("cpu", "float32")


@pytest.fixture(autouse=True)
def _same_threads_afterwards() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def tiny() -> RunConfig:
    return resolve(preset="tiny-cpu").config


@pytest.mark.parametrize(
    ("seconds", "number"),
    [
        ({1: 1.0, 2: 1.0}, 1),
        ({1: 1.0, 2: 0.9}, 1),  # as much may be noise
        ({1: 1.0, 2: 0.55}, 2),
        ({1: 1.0, 2: 0.5, 4: 0.28, 8: 0.26}, 4),
        ({1: 0.7, 2: 66.0}, 1),
    ],
)
def test_more_threads_must_be_worth_it(seconds: dict[int, float], number: int) -> None:
    assert fewest_worth_it(seconds) == number


@pytest.mark.parametrize(("text", "number"), [("3", 3), ("2,4", 2), (" 2 ", 2)])
def test_the_users_number_is_taken(text: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    assert set_threads(tiny(), CPU) == ThreadChoice(number, f"{VARIABLE} is set")
    assert torch.get_num_threads() == number


@pytest.mark.parametrize("text", [None, "", "many", "0", "-1", "²"])
def test_else_they_are_measured(text: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE) if text is None else monkeypatch.setenv(VARIABLE, text)
    monkeypatch.setattr(threads_module, "usable_cores", lambda: 2)
    found = set_threads(tiny(), CPU)
    assert found is not None
    assert (found.why, list(found.layer_ms)) == ("measured", ["1", "2"])
    assert torch.get_num_threads() == found.number == fewest_worth_it({int(n): s for n, s in found.layer_ms.items()})
    assert set_threads(tiny(), CPU) is found  # once a process


def test_one_core_is_not_measured_and_a_gpu_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(threads_module, "usable_cores", lambda: 1)
    assert set_threads(tiny(), CPU) == ThreadChoice(1, "the only core")
    assert set_threads(tiny(), Device("cuda", "bfloat16")) is None


def test_measuring_draws_no_random_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    monkeypatch.setattr(threads_module, "usable_cores", lambda: 2)
    threads_module._measured.cache_clear()
    before = torch.get_rng_state()
    set_threads(tiny(), CPU)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_run_continues_with_what_it_has_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = ThreadChoice(2, "measured", {"1": 5.0, "2": 2.6})
    run_dir = RunDir(tmp_path)
    assert recorded_threads(run_dir) is None
    run_dir.engine.write_text(json.dumps({"threads": recorded.to_json()}))
    assert recorded_threads(run_dir) == recorded
    monkeypatch.setenv(VARIABLE, "1")
    assert set_threads(tiny(), CPU, recorded) == recorded
    assert torch.get_num_threads() == 2
    assert str(replace(recorded, number=1)) == "1 (measured: a layer takes with 1: 5 ms, 2: 2.6 ms)"


@pytest.mark.parametrize("threads", [{"number": 0, "why": "?"}, {"number": "many", "why": "?"}, [1], {"why": "?"}])
def test_a_damaged_record_is_an_error(threads: Any, tmp_path: Path) -> None:
    RunDir(tmp_path).engine.write_text(json.dumps({"threads": threads}))
    with pytest.raises(RunDirError, match="does not say how many threads compute"):
        recorded_threads(RunDir(tmp_path))


@pytest.mark.parametrize("record", [{}, {"threads": None}])
def test_an_older_record_has_none(record: dict[str, Any], tmp_path: Path) -> None:
    RunDir(tmp_path).engine.write_text(json.dumps(record))
    assert recorded_threads(RunDir(tmp_path)) is None
