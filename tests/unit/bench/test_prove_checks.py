"""The checks of `prove`, as far as they need no card: which run, how they fail, what their entries hold."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from safetensors.numpy import save_file

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.presets import load_presets
from lowmem_rl.errors import SetupError, UnknownName
from lowmem_rl.models.hardware import Machine, find_card
from lowmem_rl.models.lookup import shape_from_config
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.units import GIB
from lowmem_rl_bench.prove import check_work, measured_step, runs
from lowmem_rl_bench.prove.checks import CHECKS, FAILED, LEFT_OUT, OK, Check, chosen, taken
from lowmem_rl_bench.prove.measured_preset import shape_of
from lowmem_rl_bench.prove.model_files import config_of, parts_of
from lowmem_rl_bench.prove.outcome import Outcome
from lowmem_rl_bench.prove.processes import Failed, Site
from lowmem_rl_bench.prove.prove import counted, exit_code, needed_card
from lowmem_rl_bench.prove.record import CheckResult
from lowmem_rl_bench.prove.run_faults import group_faults, learning_faults, reward_rise, update_faults
from lowmem_rl_bench.prove.subject import Subject, weights_of
from tests.record_maker import make_record


def machine(card: str, free_gib: float | None = None) -> Machine:
    known = find_card(card)
    free = known.offered_bytes if free_gib is None else int(free_gib * GIB)
    return Machine(known, known.name, known.offered_bytes, free, "580.95", 1, 64 * GIB, 16)


T4 = Subject(machine("t4"), "qwen1.5b-t4", "cached")
A6000 = Subject(machine("a6000"), "qwen7b-a6000", "random")
QUICK = Subject(machine("a6000"), "qwen7b-a6000", "embedded", quick=True)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path, time.monotonic() + 60)


def check(work: Any) -> Check:
    return Check("memory", "", 60, work)


def raising(error: Exception) -> Any:
    def work(site: Site, subject: Subject) -> Outcome:
        raise error

    return work


# Which checks run


def test_checks_are_chosen_by_how_their_names_begin() -> None:
    assert chosen([]) == list(CHECKS)
    assert [one.name for one in chosen(["main-16"])] == ["main-16bit-bf16", "main-16bit-fp16"]
    with pytest.raises(UnknownName, match="no check named 'sampling'") as unknown:
        chosen(["memory", "sampling"])
    assert unknown.value.hint


def test_the_documents_name_every_check() -> None:
    page = (Path(__file__).parents[3] / "docs" / "gpu.md").read_text(encoding="utf-8")
    assert all(f"`{one.name}`" in page and one.about and one.limit_s <= 1800 for one in CHECKS)


def test_a_card_without_bfloat16_leaves_it_out(site: Site) -> None:
    for one in chosen(["main"]):
        reason = one.why_not(site, T4)
        assert (reason == "Tesla T4 has no bfloat16") == one.name.endswith("bf16")
        assert not one.why_not(site, A6000)


def test_a_preset_that_does_not_fit_is_left_out_with_its_reason(site: Site) -> None:
    small = Subject(machine("t4", 4), "qwen7b-t4", "cached")
    entry, parts = taken(chosen(["memory"])[0], site, small)
    assert (entry["status"], parts) == (LEFT_OUT, {})
    assert "qwen7b-t4 needs" in entry["result"]
    assert not T4.why_not(site.folder)


def test_weights_that_do_not_fit_on_the_disk_are_not_made(small_disk: Path) -> None:
    assert "of disk" in A6000.why_not(small_disk)


def test_a_preset_whose_whole_layers_learn_has_no_counterpart_in_unsloth(site: Site) -> None:
    one_layer = Subject(machine("3090"), "onelayer-1.7b", "cached")
    assert "trains more than adapters" in chosen(["step"])[0].why_not(site, one_layer)


def test_without_a_card_nothing_is_proved() -> None:
    with pytest.raises(SetupError) as refused:
        needed_card(Machine(None, "cpu", 0, 0, "", 0, GIB, 1))
    assert (refused.value.exit_code, bool(refused.value.hint)) == (3, True)


def test_the_weights_are_what_is_there_and_what_is_allowed() -> None:
    assert weights_of("qwen7b-a6000", quick=False, random=False) == "embedded"
    assert weights_of("qwen7b-a6000", quick=False, random=True) == "random"
    assert weights_of("qwen7b-a6000", quick=True, random=True) == "embedded"
    assert weights_of("tiny-cpu", quick=False, random=False) == "cached"


@pytest.mark.parametrize("preset", load_presets(), ids=lambda preset: preset.name)
def test_a_timed_step_is_the_presets_own_or_a_part_of_it(preset: Any) -> None:
    config = resolve(preset=preset.name).config
    shape = measured_step._shape_of(config)
    assert 1 <= shape["prompts"] <= config.grpo.prompts_per_step
    assert shape["prompts"] * shape["group_size"] <= 64
    assert shape["completion_tokens"] <= min(256, config.grpo.max_completion_tokens)


# Random weights


@pytest.mark.parametrize("preset", [one for one in load_presets() if one.card != "cpu"], ids=lambda preset: preset.name)
def test_random_weights_have_the_shape_of_the_presets_model(preset: Any) -> None:
    shape = shape_of(preset.name, "random")
    read = shape_from_config(json.loads(json.dumps(config_of(shape))), shape.key, shape.source)
    assert replace(read, max_positions=shape.max_positions) == shape
    numbers = sum(math.prod(size) for part in parts_of(shape) for size in part.values())
    assert numbers == shape.num_params


def test_random_weights_are_made_once_and_named_to_the_run(site: Site) -> None:
    asked: list[Any] = []

    class Asked(Site):
        def child(self, module: str, order: Any, name: str = "") -> Any:
            asked.append((module, order))
            folder = Path(order["folder"])
            folder.mkdir()
            (folder / "model.safetensors.index.json").write_text("{}")

    for _ in range(2):
        settings = A6000.settings(Asked(site.folder, site.end))
    folder = str(site.folder / "random-model")
    assert asked == [("lowmem_rl_bench.prove.random_model", {"model": "Qwen/Qwen2.5-7B-Instruct", "folder": folder})]
    assert str(settings["model.name"]) == folder
    assert A6000.facts()["model"] == "Qwen/Qwen2.5-7B-Instruct"
    assert str(site.folder) not in json.dumps(A6000.facts())


# How a check ends


def test_an_entry_is_one_that_a_record_can_hold(site: Site) -> None:
    found = {"a": float("nan"), "b": {"c": [1, None, float("inf")]}, "d": "\x1b[2J", "e": True, "f": Path("x")}
    entry, parts = taken(check(lambda *_: Outcome("well \x07", found, {"memory": {"x": 1}})), site, T4)
    CheckResult.model_validate(entry)
    assert (entry["status"], parts) == (OK, {"memory": {"x": 1}})
    assert entry["figures"] == {"a": "nan", "b.c": [1, None, "inf"], "d": "<U+001B>[2J", "e": True, "f": "x"}


def test_a_check_that_fails_keeps_what_it_saw(site: Site) -> None:
    error = Failed(f"no such file {site.folder}/x", {"peak": 3, "memory": {"x": 1}})
    entry, parts = taken(check(raising(error)), site, T4)
    CheckResult.model_validate(entry)
    assert (entry["status"], entry["result"]) == (FAILED, "no such file SCRATCH/x")
    assert (entry["figures"], parts) == ({"peak": 3}, {"memory": {"x": 1}})


def test_a_check_with_a_bug_leaves_the_card_to_the_others(site: Site) -> None:
    entry, _ = taken(check(raising(ZeroDivisionError("x" * 9000))), site, T4)
    CheckResult.model_validate(entry)
    assert entry["status"] == FAILED
    assert entry["result"].startswith("ZeroDivisionError: xxx")


def test_one_failure_decides_the_exit_code() -> None:
    entries = [{"status": status} for status in (OK, LEFT_OUT, FAILED, OK)]
    assert (exit_code({"checks": entries}), counted({"checks": entries})) == (1, "2 ok, 1 failed, 1 left out")
    assert (exit_code({"checks": entries[:2]}), counted({"checks": entries[:1]})) == (0, "1 ok")


# What is wrong with a run


def test_numbers_that_are_not_finite_are_faults_unless_the_scaler_left_the_step_out() -> None:
    good = {"step": 1, "loss": 0.1, "grad_norm": 1.0}
    left_out = {"step": 2, "loss": 0.1, "grad_norm": None, "optimizer_skipped": 1}
    assert not list(update_faults([good, left_out]))
    assert len(list(update_faults([good | {"loss": None}, good | {"grad_norm": None}]))) == 2


def test_an_adapter_that_did_not_move_is_a_fault(tmp_path: Path) -> None:
    run, still, moved = RunDir(tmp_path), numpy.zeros(3), numpy.ones(3)
    run.adapter.mkdir()
    file = run.adapter / "adapter_model.safetensors"
    save_file({"a.lora_B": moved, "a.lora_A": still, "b.lora_B": still}, file)
    assert list(learning_faults(run)) == ["1 of 2 adapters have learned"]
    save_file({"a.lora_B": moved, "b.lora_B": moved}, file)
    assert not list(learning_faults(run))


def test_a_missing_completion_is_a_fault(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.config.write_text(json.dumps({"config": {"grpo": {"group_size": 2, "prompts_per_step": 1}}}))
    rows = [{"step": step, "example_id": f"{step}"} for step in (1, 1, 2, 2)]
    run.samples.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert not list(group_faults(run, 2))
    run.samples.write_text("".join(f"{json.dumps(row)}\n" for row in rows[1:]))
    assert list(group_faults(run, 2)) == ["groups of 2 in 2 steps: [1, 2]"]


def test_rewards_rise_from_the_first_third_to_the_last() -> None:
    assert reward_rise([0.0, 0.0, 9.0, 1.0, 1.0, 1.0]) == 1.0
    assert reward_rise([1.0]) == 0.0


def test_a_shortage_that_did_not_come_is_a_failure() -> None:
    with pytest.raises(Failed, match="Memory did not run out"):
        runs._recovered([], "2 bytes")


# What is wrong with a measured step


def answering(site: Site, answer: Any) -> Site:
    """Returns a site whose processes have answered already."""

    class Answering(Site):
        def child(self, module: str, order: Any, name: str = "") -> Any:
            return answer

    return Answering(site.folder, site.end)


@pytest.fixture
def measured() -> dict[str, Any]:
    record = make_record("qwen7b-a6000", "embedded", "a6000")
    return dict(record["measured"]["memory"])


def test_a_peak_below_the_estimates_upper_value_holds(site: Site, measured: dict[str, Any]) -> None:
    found = measured_step.memory(answering(site, measured), QUICK)
    assert found.parts == {"memory": measured}
    assert "embedded model" in found.result
    assert set(found.found["errors"].values()) == {0.0}


def test_a_peak_above_it_fails_and_is_recorded(site: Site, measured: dict[str, Any]) -> None:
    measured["phases"]["rollout"]["measured"]["process_bytes"] = 2**36
    entry, parts = taken(check(measured_step.memory), answering(site, measured), QUICK)
    assert (entry["status"], parts) == (FAILED, {"memory": measured})
    assert "peak 64.00 GiB" in entry["result"]


def test_a_prediction_that_a_reader_cannot_compute_fails(site: Site, measured: dict[str, Any]) -> None:
    measured["phases"]["rollout"]["predicted"]["process_bytes"] += 1
    with pytest.raises(Failed, match="for rollout cannot be computed again"):
        measured_step.memory(answering(site, measured), QUICK)


def timed(error: float | None) -> dict[str, Any]:
    step = make_record()["measured"]["step"]
    names = ("prompts", "group_size", "useful_tokens", "longest_prompt_tokens", "completion_tokens")
    arms = ("ours", "unsloth")
    return {
        "workload": {name: step[name] for name in names},
        "seconds": {name: {"step": step[name]["rounds"][0]} for name in arms},
        "ratio": step["ratio"],
        "rounds": {name: step[name]["rounds"] for name in arms},
        "peak_bytes": {name: step[name]["peak_bytes"] for name in arms},
        "engines": {name: {"engine": step[name]["engine"]} for name in arms},
        "gradient_error": error,
        "clocks": {},
    }


def test_a_timed_step_fills_its_part_of_the_record(site: Site) -> None:
    found = measured_step.step(answering(site, timed(0.01)), QUICK)
    assert found.parts["step"] == make_record()["measured"]["step"]


@pytest.mark.parametrize("error", [0.5, float("nan")])
def test_a_speed_with_other_gradients_is_none(site: Site, error: float) -> None:
    entry, parts = taken(check(measured_step.step), answering(site, timed(error)), QUICK)
    assert (entry["status"], parts) == (FAILED, {})
    assert "the first gradients differ" in entry["result"]


@pytest.mark.parametrize(
    ("change", "fault"),
    [({"differences": ["item 0, token 3"]}, "item 0, token 3 is not generate's"), ({"gap_nats": float("nan")}, "nan")],
)
def test_other_tokens_or_log_probs_are_faults_of_the_sampler(change: dict[str, Any], fault: str) -> None:
    good = {"differences": [], "gap_nats": 0.01, "most_gap_nats": 0.05}
    assert check_work._sampler_faults("merged", good) == []
    (found,) = check_work._sampler_faults("merged", good | change)
    assert fault in found
