"""`lowmem-rl eval` on a real run, its adapters, and models; and what it refuses."""

import json
import shutil
import signal
import time
from pathlib import Path

import pytest

from lowmem_rl.models.lookup import model_path
from lowmem_rl.storage.lock import locked
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows, write_json

pytestmark = pytest.mark.usefixtures("preloaded")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """One run of two steps, with everything on that evaluation can be asked for."""
    from lowmem_rl_cli.app import main

    out = tmp_path_factory.mktemp("trained") / "run"
    small = ("grpo.prompts_per_step=4", "memory.micro_batch=16", "eval.examples=16", "eval.quick_examples=8")
    more = ("eval.every=1", "eval.samples=2", "eval.tasks=rref", "logging.checkpoint_every=1")
    sets = [f"--set={setting}" for setting in (*small, *more)]
    assert main(["train", "--preset=tiny-cpu", "--steps=2", *sets, f"--out={out}"]) == 0
    return RunDir(out)


def test_a_run_evaluates_samples_and_another_task_at_both_ends(trained) -> None:
    record = read_json(trained.evaluations)
    for when in ("before", "after"):
        assert (record[when]["samples"], record[when]["in_domain"]) == (2, True)
        assert record[when]["pass_at_k"].keys() == {"1", "2"}
        other = record["out_of_domain"]["rref"][when]
        assert (other["in_domain"], other["num_examples"], len(other["by_level"])) == (False, 16, 4)
    assert record["out_of_domain"]["rref"]["comparison"]["paired"]["num_items"] == 16
    assert [(during["step"], during["samples"]) for during in record["during"]] == [(1, 1)]
    assert record["before"]["kl_nats"] == pytest.approx(0, abs=1e-6)
    assert 0 < record["after"]["kl_nats"] < 1
    assert record["comparison"]["paired"]["gain"] == pytest.approx(record["comparison"]["gain"])
    assert len(list(read_rows(trained.eval_samples("after")))) == 32


def test_the_trained_run_answers_as_it_did(trained, cli_here) -> None:
    outcome = cli_here("eval", str(trained.path), "--task=arithmetic", "--json")
    assert outcome.code == 0, outcome.stderr
    printed = json.loads(outcome.stdout)
    (result,) = printed["results"]
    written = read_json(trained.evaluations)
    after = written["after"]
    same = ("pass_at_1", "pass_at_k", "maj_at_k", "kl_nats", "completion_tokens", "step")
    assert {key: result[key] for key in same} == {key: after[key] for key in same}
    assert [entry["name"] for entry in written["later"]] == ["later-adapter-arithmetic"]
    rows = read_rows(trained.eval_items("later-adapter-arithmetic"))
    assert [row["completion"] for row in rows] == [row["completion"] for row in read_rows(trained.eval_items("after"))]


def test_the_best_adapter_and_a_checkpoint_load_and_a_second_call_asks_nothing(trained, cli_here) -> None:
    options = ("--task=arithmetic", "--examples=4", "--samples=0")
    best = read_json(trained.evaluations)["best"]
    page = cli_here("eval", str(trained.best), *options)
    assert page.code == 0, page.stderr
    assert "requested format" in page.stdout
    entry = read_json(trained.evaluations)["later"][-1]
    assert (entry["name"], entry["step"], entry["num_examples"]) == ("later-best-arithmetic", best["step"], 4)
    rows = trained.eval_items("later-best-arithmetic").read_bytes()
    assert cli_here("eval", str(trained.best), *options).code == 0
    assert trained.eval_items("later-best-arithmetic").read_bytes() == rows
    assert cli_here("eval", str(trained.checkpoint(1)), *options).code == 0
    assert read_json(trained.evaluations)["later"][-1]["step"] == 1


def test_an_adapter_away_from_its_run_and_a_merged_folder_are_evaluated(trained, cli_here, tmp_path) -> None:
    shutil.copytree(trained.adapter, tmp_path / "alone")
    shutil.copytree(model_path("tiny"), tmp_path / "merged")
    for name, has_kl in (("alone", True), ("merged", False)):
        outcome = cli_here("eval", name, "--examples=16", "--json")
        assert outcome.code == 0, outcome.stderr
        printed = json.loads(outcome.stdout)
        (result,) = printed["results"]
        assert (result["kl_nats"] is not None) is has_kl
        assert Path(printed["path"]).name.startswith(f"eval-{name}-")
        items = list(read_rows(RunDir(Path(printed["path"])).eval_items("arithmetic")))
        same = trained.eval_items("after" if has_kl else "before")
        assert [row["completion"] for row in items] == [row["completion"] for row in read_rows(same)]
        # The same question again is the same folder; another model's folder is refused.
        assert json.loads(cli_here("eval", name, "--examples=16", "--json").stdout)["path"] == printed["path"]
        assert cli_here("eval", "tiny", f"--out={printed['path']}").code == 7


def broken_runs(trained: RunDir, at: Path) -> None:
    """Run directories, adapters and models of which something is missing."""
    (at / "no_adapter").mkdir()
    shutil.copy(trained.config, at / "no_adapter")
    (at / "empty").mkdir()
    (at / "a_file").touch()
    (at / "weights").mkdir()
    (at / "weights" / "trainable.json").touch()
    for name in ("no_weights", "torn", "foreign", "other_kind"):
        shutil.copytree(trained.adapter, at / name)
    (at / "no_weights" / "adapter_model.safetensors").unlink()
    weights = at / "torn" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    written = read_json(at / "foreign" / "adapter_config.json")
    write_json(at / "foreign" / "adapter_config.json", written | {"base_model_name_or_path": "no/such-model"})
    write_json(at / "other_kind" / "adapter_config.json", written | {"peft_type": "LOHA"})
    shutil.copytree(trained.path, at / "coded", ignore=shutil.ignore_patterns("eval"))
    config = read_json(at / "coded" / "config.json")
    config["config"]["task"]["name"] = "mine.py:Task"
    (at / "mine.py").touch()
    write_json(at / "coded" / "config.json", config)
    shutil.copytree(trained.path, at / "infinite", ignore=shutil.ignore_patterns("eval"))
    (at / "infinite" / "eval.json").write_text('{"later": [{"pass_at_1": NaN}]}')


MISTAKES = [
    (("no_adapter",), 7, "has no adapter"),
    (("empty",), 2, "neither config.json nor adapter_config.json"),
    (("weights",), 2, "whole weights alone"),
    (("no_weights",), 7, "has no adapter_model.safetensors"),
    (("torn", "--examples=2"), 7, "cannot be loaded"),
    (("foreign",), 7, "trained on no/such-model, which is not here"),
    (("other_kind",), 7, "not a LoRA or TinyLoRA adapter that can be loaded here"),
    (("coded",), 2, "--allow-code"),
    (("infinite",), 7, "holds no evaluations"),
    (("./nowhere/run",), 2, "nowhere"),
    (("empty/run",), 7, "There is no empty/run"),
    (("no/such-model",), 3, "no/such-model"),
    (("tinny",), 2, "tiny"),
    (("tiny", "--task=arithmetik"), 2, "arithmetic"),
    (("tiny", "--set=task.levels=[9]"), 6, "level 9"),
    (("tiny", "--examples=0"), 2, "examples"),
    (("tiny", "--out=a_file"), 7, "cannot be written into a_file"),
    (("tiny", "--out=coded"), 7, "other contents"),
    (("tiny", "--preset=tiny-cqu"), 2, "tiny-cpu"),
    (("tiny", "--set=eval.exampels=3"), 2, "eval.examples"),
]


@pytest.mark.parametrize(("arguments", "code", "expected"), MISTAKES, ids=lambda value: str(value)[:30])
def test_what_cannot_be_evaluated_is_reported_in_two_lines(
    arguments, code, expected, trained, cli_here, tmp_path
) -> None:
    broken_runs(trained, tmp_path)
    outcome = cli_here("eval", *arguments)
    assert outcome.code == code, outcome.stderr
    assert expected in outcome.stderr
    lines = [line for line in outcome.stderr.strip().splitlines() if not line.startswith("loading ")]
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"]


def test_a_second_evaluation_at_the_same_time_is_refused(trained, cli_here) -> None:
    with locked(trained.eval_lock, pytest.fail):
        outcome = cli_here("eval", str(trained.path))
    assert outcome.code == 7
    assert "is in use by process" in outcome.stderr


def test_ctrl_c_keeps_the_answers_and_says_how_to_continue(tmp_path, started) -> None:
    process = started("eval", "tiny", "--samples=500", f"--out={tmp_path / 'out'}")
    rows = RunDir(tmp_path / "out").eval_samples("arithmetic")
    until = time.monotonic() + 200
    while not rows.exists() and time.monotonic() < until:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "The same command continues" in talk
    assert "Traceback" not in talk
    assert 0 < len(list(read_rows(rows))) < 500 * 500
