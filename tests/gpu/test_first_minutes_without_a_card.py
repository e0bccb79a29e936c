"""The script for a card's first minutes, as far as it needs no card."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import record, table
from benchmarks.gpu.checks import Unready, check_disk
from benchmarks.gpu.decode_speed import summary
from benchmarks.gpu.schedule import Part, chosen, disk_bytes, schedule, taken
from lowmem_rl.models.hardware import Machine, find_card
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.units import GIB
from lowmem_rl_bench.prove.model_files import config_of
from lowmem_rl_bench.prove.processes import Failed, Site, TookTooLong, serve
from lowmem_rl_bench.prove.run_faults import whole_groups
from lowmem_rl_bench.prove.runs import check_export, check_resumed, holding

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu" / "first_minutes.py"
A6000 = Machine(find_card("a6000"), "NVIDIA RTX A6000", 47 * GIB, 46 * GIB, "580.95", 1, 64 * GIB, 16)
RESUMED = {"exact": True, "differences": [], "adapter_distance": 0.0}
RUN = {
    "rewards": [0.5, None],
    "step_seconds": [1.0, 2.0],
    "sampling": {"engine": "lowmem", "reason": "it is the faster"},
    "resumed": RESUMED,
    "export": {"holds": True, "faults": []},
}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, time.monotonic() + 60)


def part(work: Any) -> Part:
    return Part("does it run", 60, work)


def answers(found: Any, site: Site) -> Any:
    return found


def fails(error: Exception, site: Site) -> Any:
    raise error


def recorded(*taken: Any) -> dict[str, Any]:
    return {"machine": {"gpu": "A6000", "driver": "580"}, "date": "today", "seconds": 1.0, "parts": list(taken)}


def names(wanted: list[Part]) -> list[str]:
    return [part.name for part in wanted]


# The record


def test_a_number_that_is_not_finite_is_recorded_as_null_and_named(tmp_path: Path, site: Site) -> None:
    found = RUN | {"loss": [1.0, float("nan")], "row": {"id": float("inf")}}
    kept = recorded(record.finite(taken(part(partial(answers, found)), site, 1)))
    record.write(kept, tmp_path / "record.json")
    written = json.loads((tmp_path / "record.json").read_text(encoding="utf-8"))
    assert written["parts"][0]["found"]["loss"] == [1.0, None]
    assert written["parts"][0]["not_finite"] == ["found.loss.1: nan", "found.row.id: inf"]
    assert written["memory_rows"] == [{"id": None}]
    assert "  not finite: found.loss.1: nan" in table.lines_of(kept)


def test_a_table_shows_the_existing_figures(site: Site) -> None:
    good = taken(part(partial(answers, RUN)), site, 1)
    broken = taken(part(partial(answers, {"rewards": [1.0]})), site, 1)
    lines = list(table.lines_of(recorded(broken, good)))
    assert "  The rest is only in the record (KeyError: 'step_seconds')." in lines
    assert "  rewards 0.50 -, seconds a step 1.00 2.00" in lines


def test_a_record_that_cannot_be_written_is_found_before_the_first_part(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unready, match=r"cannot be written.*\n.*--out"):
        record.begin(recorded(), tmp_path / "file" / "record.json")


# A part


def test_a_part_without_enough_time_is_not_a_success(site: Site) -> None:
    late = Site(site.folder, time.monotonic() - 1)
    cut_off = taken(part(partial(fails, TookTooLong("it was ended after 3 s"))), site, 1)
    not_begun = taken(part(partial(answers, RUN)), late, 1)
    assert (cut_off["status"], not_begun["status"]) == ("failed", "out of time")
    assert record.exit_code(recorded(not_begun)) == 4
    assert record.exit_code(recorded(not_begun, cut_off)) == 1


def test_a_part_that_the_end_of_the_whole_cut_off_is_out_of_time(site: Site) -> None:
    def last(inner: Site) -> dict[str, Any]:
        time.sleep(max(inner.seconds_left, 0))
        raise TookTooLong("it was ended")

    assert taken(part(last), Site(site.folder, time.monotonic() + 0.05), 1)["status"] == "out of time"


def test_a_resumed_run_that_differs_fails_with_all_figures(site: Site) -> None:
    differs = RUN | {"resumed": {"exact": False, "differences": ["metrics.jsonl"], "adapter_distance": 0.25}}

    def work(_: Site) -> dict[str, Any]:
        with holding(differs):
            check_resumed(differs["resumed"])
        return differs

    found = taken(part(work), site, 1)
    assert found["status"] == "failed"
    assert "2.5e-01" in found["reason"]
    assert "metrics.jsonl" in found["reason"]
    assert found["found"]["resumed"]["adapter_distance"] == 0.25
    check_resumed(RUN["resumed"])
    check_export(RUN["export"])


def grows(order: Any) -> Iterator[dict[str, int]]:
    yield {"rows": order["rows"]}
    raise RuntimeError("64 rows took too long")


def test_the_answer_of_a_module_survives_its_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    class InThisProcess(Site):
        def python(self, name: str, *module: str) -> str:
            monkeypatch.setattr(sys, "argv", [*module])
            try:
                serve(grows)
            except RuntimeError as error:
                raise Failed(str(error)) from error
            return ""

    with pytest.raises(Failed, match="64 rows") as failed:
        InThisProcess(site.folder, site.end).child("grows", {"rows": 8})
    assert failed.value.found == {"rows": 8}


def test_a_group_without_all_its_completions_is_not_whole(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.config.write_text(json.dumps({"config": {"grpo": {"group_size": 2, "prompts_per_step": 2}}}))
    asked = ["a", "a", "b", "b"]
    run.samples.write_text("".join(f"{json.dumps({'example_id': key})}\n" for key in asked))
    assert whole_groups(run) == [2, 2]
    run.samples.write_text("".join(f"{json.dumps({'example_id': key})}\n" for key in asked[:-1]))
    with pytest.raises(Failed, match=r"\[2, 1\]; 2 groups of 2"):
        whole_groups(run)


# Which parts


def test_the_most_important_parts_come_before_the_large_weights() -> None:
    order = names(list(schedule(A6000, "record.json", quick=False)))
    assert order[:2] == ["card", "does it run"]
    assert order[order.index("weights, 7b") :] == ["weights, 7b", "memory, 7b", "decode, 7b"]


def test_only_the_weights_that_are_needed_are_made() -> None:
    every = list(schedule(A6000, "record.json", quick=False))
    assert names(chosen(every, ["does it run"])) == ["does it run"]
    assert names(chosen(every, ["step"])) == ["weights, 1.5b", "step, 1.5b"]
    assert names(chosen(every, ["memory, 7b", "card"])) == ["card", "weights, 7b", "memory, 7b"]
    assert chosen(every, []) == every
    with pytest.raises(Unready, match=r"nosuch.*\n.*does it run, weights, memory"):
        chosen(every, ["card", "nosuch"])


def test_the_disk_has_room_for_the_weights_that_are_made(tmp_path: Path) -> None:
    every = list(schedule(A6000, "record.json", quick=False))
    assert disk_bytes(every) > disk_bytes(chosen(every, ["step"])) > disk_bytes(chosen(every, ["card"]))
    full = list(schedule(replace(A6000, free_bytes=GIB), "record.json", quick=False))
    assert disk_bytes(full) == disk_bytes([])  # no model fits on the card
    check_disk(tmp_path, 1)
    with pytest.raises(Unready, match=r"GiB.*\n.*--scratch"):
        check_disk(tmp_path, 2**60)


# Speeds, shapes


def test_noise_makes_no_ratio() -> None:
    assert summary([2.0, 0.0, -1.0], [4.0, 4.0, 4.0])["ratio"] == 2.0
    nothing = summary([0.0], [1.0])
    assert (nothing["ratio"], nothing["least_ratio"], nothing["rounds_compared"]) == (None, None, 0)
    assert summary([1.0], [])["ratio"] is None


@pytest.mark.parametrize(
    ("model", "kind"), [("meta-llama/Llama-3.1-8B-Instruct", "llama3"), ("Qwen/Qwen2.5-7B-Instruct", "default")]
)
def test_a_random_model_has_the_rotary_embedding_of_its_architecture(model: str, kind: str) -> None:
    assert config_of(load_shape(model))["rope_parameters"]["rope_type"] == kind


# The script


def test_a_python_without_packages_is_shown_the_right_one() -> None:
    bare = subprocess.run([sys.executable, "-S", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert bare.returncode == 3, bare.stderr
    problem, fix = bare.stderr.splitlines()
    assert "torch" in problem
    assert ".venv/bin/python" in fix


HUNG_UP = f"""
import sys, tempfile, time
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "cli")!r}]
from pathlib import Path
from lowmem_rl_bench.prove.processes import Site, exit_on_signals
exit_on_signals()
with tempfile.TemporaryDirectory() as folder:
    site = Site(Path(folder), time.monotonic() + 60)
    with site.started("sleeps", "timeit", "-n", "1", "-r", "1", "import time; time.sleep(60)") as process:
        print(folder, process.pid, flush=True)
        process.wait()
"""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_lost_terminal_leaves_no_process_and_no_weights(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", HUNG_UP], stdout=subprocess.PIPE, text=True) as script:
        assert script.stdout is not None
        folder, child = script.stdout.readline().split()
        script.send_signal(number)
        assert script.wait(timeout=30) == 128 + number
    assert not Path(folder).exists()
    with pytest.raises(ProcessLookupError):
        os.kill(int(child), 0)
