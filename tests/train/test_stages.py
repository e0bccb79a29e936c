"""One stage after another on the tiny model: warm-up, a run, a run from that run; through the command."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from lowmem_rl.engine.adapter import become_base
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.logprobs import completion_log_probs, encode_turn, kl_from_base
from lowmem_rl.engine.reference import become_start, load_policy_at_start
from lowmem_rl.engine.trained_model import config_of, find_trained_adapter, load_trained
from lowmem_rl.reports.html import write_report
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows, write_json
from lowmem_rl_bench.verify_resume import differences
from tests.hub_stand_in import TOKEN, running
from tests.train.test_resume import copy_killed, resume

pytestmark = pytest.mark.usefixtures("preloaded")

CPU = Device("cpu", "float32")
SMALL = (
    "eval.examples=8",
    "eval.every=0",
    "grpo.max_completion_tokens=40",
    "grpo.prompts_per_step=2",
    "logging.checkpoint_every=1",
    "logging.keep_checkpoints=9",
    "memory.micro_batch=16",
    "optimizer.warmup_steps=0",
)
OPTIONS = [f"--set={setting}" for setting in SMALL]
SECOND = ("--set=task.levels=[2]", "--set=grpo.beta=0.1", "--set=grpo.max_prompt_tokens=160", "--steps=3")


def train(*arguments: str) -> int:
    from lowmem_rl_cli.app import main

    return main(["train", *OPTIONS, *arguments])


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that has learned gold completions for a few steps."""
    from lowmem_rl_cli.app import main

    out = tmp_path_factory.mktemp("stages") / "warm"
    few = ("--set=task.limit=32", "--set=adapter.rank=8", "--steps=6", "--learning-rate=1e-2")
    assert main(["warmup", "--preset=tiny-cpu", *OPTIONS, *few, f"--out={out}"]) == 0
    return out


@pytest.fixture(scope="module")
def first(warm: Path) -> RunDir:
    """A run from that adapter."""
    out = warm.with_name("first")
    assert train("--preset=tiny-cpu", f"--from={warm}", "--steps=2", "--force", f"--out={out}") == 0
    return RunDir(out)


@pytest.fixture(scope="module")
def second(first: RunDir) -> RunDir:
    """Another task, with longer answers and a penalty, from that run."""
    out = first.path.with_name("second")
    assert train(f"--from={first.path}", *SECOND, "--force", f"--out={out}") == 0
    return RunDir(out)


@pytest.fixture
def at_start(second: RunDir) -> Any:
    return load_policy_at_start(config_of(second), CPU)


ROWS = [("What is 431 * 7?", "<think>431*7</think>\\boxed{3017}"), ("What is 12 * 3?", "\\boxed{36}")]


def rows_for(policy: Any) -> list[Any]:
    return [encode_turn(policy, [{"role": "user", "content": asked}], text, truncated=False) for asked, text in ROWS]


def test_a_warm_up_teaches_gold_completions_to_an_ordinary_adapter(warm: Path) -> None:
    record = read_json(warm / "warmup.json")
    assert (record["steps"], len(record["losses"]), record["kind"]) == (6, 6, "warmup")
    assert record["losses"][-1] < record["losses"][0] - 0.02  # the same 32 completions in each step
    outer = [tensor for name, tensor in load_file(warm / "adapter_model.safetensors").items() if ".lora_B." in name]
    assert len(outer) == 21
    assert all(bool(tensor.any()) and tensor.dtype == torch.float32 for tensor in outer)
    assert outer[0].shape[1] == 8


def test_a_run_takes_the_shape_of_what_it_starts_from(first: RunDir, warm: Path) -> None:
    found = read_json(first.config)
    assert (found["config"]["start_from"], found["config"]["adapter"]["rank"]) == (str(warm), 8)
    assert (found["origins"]["start_from"], found["origins"]["adapter.rank"]) == ("--from", "--from")
    assert [stage["kind"] for stage in found["lineage"]] == ["warmup"]


def test_log_probs_at_step_0_are_the_adapters_bit_for_bit(first: RunDir, second: RunDir, at_start: Any) -> None:
    trained = load_trained(find_trained_adapter(first.path), config_of(first), CPU)
    rows = rows_for(trained)
    own = completion_log_probs(trained, rows)
    assert completion_log_probs(at_start, rows) == own
    before = read_json(second.evaluations)["before"]
    assert before["kl_nats"] == 0


def test_the_reference_is_the_start_whatever_is_learned_after_it(at_start: Any) -> None:
    rows = rows_for(at_start)
    start = completion_log_probs(at_start, rows)
    assert kl_from_base(at_start, rows, batch=8) == 0
    become_base(at_start.model)
    base = completion_log_probs(at_start, rows)
    assert base != start
    assert kl_from_base(at_start, rows, batch=8) > 1e-4
    with at_start.model.disable_adapter():
        assert completion_log_probs(at_start, rows) == start
    assert completion_log_probs(at_start, rows) == base
    become_start(at_start.model)
    assert completion_log_probs(at_start, rows) == start


def test_the_penalty_begins_at_0_and_grows_from_the_start(second: RunDir) -> None:
    kls = [row["kl"] for row in read_rows(second.metrics)]
    assert kls[0] < 1e-8
    assert kls[-1] > 10 * max(kls[0], 1e-9)


@pytest.mark.parametrize("step", [1, 2])
def test_a_second_stage_that_is_killed_continues_bit_for_bit(step, second, cli_here, tmp_path) -> None:
    killed = copy_killed(second, tmp_path / "run", step)
    outcome = resume(cli_here, killed)
    assert outcome.code == 0, outcome.stderr[-3000:]
    assert list(differences(second, killed)) == []


def test_a_start_that_has_changed_or_moved_ends_a_resume_with_7_until_its_place_is_named(
    second, cli_here, tmp_path
) -> None:
    killed = copy_killed(second, tmp_path / "run", 2)
    start = tmp_path / "moved" / "adapter"
    shutil.copytree(read_json(second.config)["config"]["start_from"], start)
    config = read_json(killed.config)
    config["config"]["start_from"] = str(tmp_path / "gone")
    write_json(killed.config, config)
    outcome = resume(cli_here, killed)
    assert (outcome.code, "--from FOLDER" in outcome.stderr) == (7, True)
    other = {name: 2 * one for name, one in load_file(start / "adapter_model.safetensors").items()}
    save_file(other, tmp_path / "other.safetensors")
    whole = (start / "adapter_model.safetensors").read_bytes()
    shutil.copy(tmp_path / "other.safetensors", start / "adapter_model.safetensors")
    outcome = resume(cli_here, killed, f"--from={start}")
    assert (outcome.code, "is another than when" in outcome.stderr) == (7, True)
    (start / "adapter_model.safetensors").write_bytes(whole)
    assert resume(cli_here, killed, f"--from={start}").code == 0
    assert list(differences(second, killed)) == []


def test_report_and_lineage_show_all_stages(second: RunDir, first: RunDir, tmp_path: Path) -> None:
    stages = read_json(second.config)["lineage"]
    assert [(stage["kind"], stage["steps"]) for stage in stages] == [("warmup", 6), ("grpo", 2)]
    assert stages[1]["path"] == str(first.path)
    page = write_report(second.path, tmp_path / "page.html").read_text()
    assert "Stages before this run" in page
    assert "SFT on gold completions (warm-up) on arithmetic, 6 steps" in page


def test_an_export_after_two_stages_is_proven_pushed_privately_and_is_a_start_itself(second, cli, cli_here) -> None:
    arguments = ("export", str(second.path), "--to=merged", "--examples=16", "--json")
    refused = cli(*arguments, "--push=me/model", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="0", HF_TOKEN="")
    assert (refused.code, len(refused.stderr.strip().splitlines())) == (3, 2)
    assert not second.export("merged").exists()
    with running() as hub:
        outcome = cli(*arguments, "--push=me/model", **hub.environment())
        assert outcome.code == 0, outcome.stderr[-3000:]
        assert TOKEN not in outcome.stdout + outcome.stderr + second.log.read_text(errors="replace")
        assert json.loads(outcome.stdout)["pushed"] == f"{hub.address}/me/model"
        repo = hub.repos["me/model"]
    merged = second.export("merged")
    assert repo["private"]
    assert sorted(repo["files"]) == sorted(path.name for path in merged.iterdir())
    assert repo["files"]["model.safetensors"] == (merged / "model.safetensors").read_bytes()
    proof, card = read_json(merged / "proof.json"), (merged / "README.md").read_text()
    assert proof["tokens"]["same"] + len(proof["tokens"]["ties"]) == 16
    assert [stage["kind"] for stage in proof["stages"]] == ["warmup", "grpo", "grpo"]
    assert str(second.path.parent) not in json.dumps(proof["stages"])
    assert "Stages before this run" in card
    plan = json.loads(cli_here("train", "--preset=tiny-cpu", f"--from={merged}", "--dry-run", "--json").stdout)
    assert (plan["config"]["model"]["name"], plan["config"]["start_from"]) == (str(merged), None)
    assert plan["config"]["adapter"]["rank"] == 16
    both = cli_here("train", "--preset=tiny-cpu", "--model=tiny", f"--from={merged}", "--dry-run")
    assert (both.code, "Leave one of them out" in both.stderr) == (2, True)


def test_whole_weights_that_a_run_has_learned_are_a_start_too(tmp_path) -> None:
    whole = ("--set=trainable.method=full", "--set=trainable.layers=last:1", "--set=optimizer.learning_rate=5e-4")
    options = ("--set=rollout.temperature=1.5", "--steps=1", "--force")
    assert train("--preset=tiny-cpu", *whole, *options, f"--out={tmp_path / 'one'}") == 0
    assert train(f"--from={tmp_path / 'one'}", *options, "--set=grpo.beta=0.1", f"--out={tmp_path / 'two'}") == 0
    found = read_json(tmp_path / "two" / "config.json")
    assert (found["config"]["trainable"]["method"], found["config"]["trainable"]["layers"]) == ("full", "last:1")
    evaluations = read_json(tmp_path / "two" / "eval.json")
    assert evaluations["before"]["kl_nats"] == 0
    assert read_json(tmp_path / "one" / "eval.json")["after"]["kl_nats"] > 1e-6
    assert [row["kl"] < 1e-8 for row in read_rows(tmp_path / "two" / "metrics.jsonl")] == [True]
