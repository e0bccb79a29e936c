"""A run that ended early, in whatever way, continues as if it never had: on the tiny model, through the command."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lowmem_rl.models.lookup import TINY_DIRECTORY
from lowmem_rl.storage.lock import locked
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows, write_json
from lowmem_rl_bench.verify_resume import differences

SMALL = (
    "eval.examples=8",
    "eval.quick_examples=4",
    "eval.every=2",
    "grpo.max_completion_tokens=24",
    "grpo.prompts_per_step=2",
    "grpo.steps=5",
    "logging.checkpoint_every=1",
    "logging.keep_checkpoints=9",
    "logging.samples_every=1",
    "memory.micro_batch=8",
    "optimizer.warmup_steps=3",
)
RUNS = {
    "our sampler, a window, dropout": (
        "adapter.dropout=0.1",
        "curriculum.by=pass_rate",
        "curriculum.how=window",
        "grpo.steps_per_rollout=2",
        "optimizer.name=adamw_8bit",
    ),
    "states kept of a rollout of two steps": (
        "trainable.layers=last:1",
        "adapter.dropout=0.1",
        "grpo.steps_per_rollout=2",
        "memory.checkpointing=none",
        "optimizer.name=sgd",
        "optimizer.learning_rate=0.3",
    ),
    # Global random numbers in sampling, several epochs of few examples, each rollout learned from twice.
    "generate, epochs, two passes": (
        "rollout.engine=generate",
        "task.limit=5",
        "grpo.passes_per_rollout=2",
        "grpo.beta=0.1",
        "optimizer.schedule=multistep",
        "optimizer.milestones=[4]",
    ),
}
WINDOW, KEPT, EPOCHS = RUNS
MINE = """
from lowmem_rl import Example, conversation


class Sums:
    has_data = False

    def __init__(self, convention="boxed"):
        self.convention = convention

    def examples(self, selection):
        start = 0 if selection.split == "train" else 100_000
        for n in range(start, start + 90_000):
            yield Example(str(n), conversation(f"{n} + 1", self.convention), str(n + 1))

    def gold_completion(self, example):
        return f"<think>so</think>\\\\boxed{{{example.answer}}}"


def short(completion, example):
    return float(example.answer in completion)
"""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> Callable[[str], RunDir]:
    """Each of the runs once, undisturbed."""
    from lowmem_rl_cli.app import main

    found: dict[str, RunDir] = {}

    def run(name: str) -> RunDir:
        if name not in found:
            out = tmp_path_factory.mktemp("undisturbed") / "run"
            settings = [f"--set={setting}" for setting in (*SMALL, *RUNS[name])]
            assert main(["train", "--preset=tiny-cpu", *settings, "--force", f"--out={out}"]) == 0
            found[name] = RunDir(out)
        return found[name]

    return run


def copy_killed(run: RunDir, out: Path, after_step: int) -> RunDir:
    """Returns what SIGKILL would have left of the run, had it come before the checkpoint of the next step."""
    shutil.copytree(run.path, out)
    killed = RunDir(out)
    for path in killed.checkpoints.iterdir():
        if int(path.name.removeprefix("step-")) > after_step:
            shutil.rmtree(path)
    evaluations = read_json(killed.evaluations)
    write_json(killed.evaluations, evaluations | {"after": None, "comparison": None})
    with killed.metrics.open("a") as file:
        file.write('{"step": 6, "rew')
    return killed


def resume(cli_here, run: RunDir, *options: str):
    return cli_here("train", "--resume", f"--out={run.path}", *options)


# The step is: within a rollout, at the end of an epoch, and in an epoch of which the data have been read in part.
@pytest.mark.parametrize(("name", "step"), [(WINDOW, 1), (KEPT, 1), (EPOCHS, 4), (EPOCHS, 3)])
def test_it_goes_on_bit_for_bit(name, step, undisturbed, cli_here, tmp_path) -> None:
    killed = copy_killed(undisturbed(name), tmp_path / "run", step)
    outcome = resume(cli_here, killed)
    assert outcome.code == 0, outcome.stderr[-3000:]
    assert f"continues after step {step}," in outcome.stderr
    assert list(differences(undisturbed(name), killed)) == []
    (row,) = read_rows(killed.resumes)
    assert row["step"] == step
    assert row["seconds"] < 10


def test_every_process_writes_an_adapter_with_the_same_bytes(undisturbed) -> None:
    names = read_json(undisturbed(WINDOW).adapter / "adapter_config.json")["target_modules"]
    assert len(names) > 1
    assert names == sorted(names)


def test_before_its_first_checkpoint_it_begins_again(undisturbed, cli_here, tmp_path) -> None:
    killed = copy_killed(undisturbed(WINDOW), tmp_path / "run", 0)
    assert resume(cli_here, killed).code == 0
    assert list(differences(undisturbed(WINDOW), killed)) == []


def test_after_its_last_step_it_only_evaluates_and_takes_what_changes_no_result(
    undisturbed, cli_here, tmp_path
) -> None:
    killed = copy_killed(undisturbed(WINDOW), tmp_path / "run", 5)
    shutil.rmtree(killed.adapter)
    items = killed.eval_items("after")
    items.write_bytes(items.read_bytes()[:-30])
    same = [f"--set={setting}" for setting in (*SMALL, *RUNS[WINDOW]) if "keep_checkpoints" not in setting]
    outcome = resume(cli_here, killed, "--preset=tiny-cpu", *same, "--set=logging.keep_checkpoints=1")
    assert outcome.code == 0, outcome.stderr
    assert "step 5/5" not in outcome.stderr
    assert list(differences(undisturbed(WINDOW), killed)) == []
    config = read_json(killed.config)
    assert config["config"]["logging"]["keep_checkpoints"] == 1
    assert config["origins"]["logging.keep_checkpoints"] == "--set"
    assert config["origins"]["grpo.group_size"] == "preset tiny-cpu"


@pytest.mark.parametrize("name", [WINDOW, EPOCHS])
def test_a_finished_run_takes_more_steps(name, undisturbed, cli_here, tmp_path) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(undisturbed(name).path, run.path)
    first = list(read_rows(run.metrics))
    outcome = resume(cli_here, run, "--steps=7")
    assert outcome.code == 0, outcome.stderr[-3000:]
    assert "extended from 5 to 7 steps" in outcome.stderr
    rows = list(read_rows(run.metrics))
    assert rows[:5] == first
    assert [row["step"] for row in rows[5:]] == [6, 7]
    reported = read_json(run.evaluations)
    assert [found["step"] for found in reported["during"]] == [2, 4, 6]
    assert (reported["after"]["step"], bool(reported["comparison"])) == (7, True)
    assert read_json(run.config)["config"]["grpo"]["steps"] == 7
    assert "finished" in resume(cli_here, run, "--steps=7").stderr


def test_a_finished_run_without_checkpoints_is_not_begun_again(undisturbed, cli_here, tmp_path) -> None:
    run = RunDir(tmp_path / "run")
    shutil.copytree(undisturbed(WINDOW).path, run.path)
    shutil.rmtree(run.checkpoints)
    outcome = resume(cli_here, run, "--steps=7")
    assert outcome.code == 7
    assert "has no checkpoint" in outcome.stderr
    assert len(list(read_rows(run.metrics))) == 5


def test_a_run_continues_from_another_directory_and_with_files_that_have_moved(cli_here, tmp_path, monkeypatch) -> None:
    code, here = tmp_path / "code", "my/model"
    shutil.copytree(TINY_DIRECTORY, code / here)
    (code / "mine.py").write_text(MINE)
    settings = ["--set=eval.examples=4", "--set=logging.checkpoint_every=1", "--set=grpo.max_completion_tokens=8"]
    options = ["--preset=tiny-cpu", *settings, "--steps=1", "--force", f"--out={tmp_path / 'run'}"]
    own = ["--task=mine.py:Sums", "--reward=mine.py:short=1.0", "--reward=think_format=0.2", f"--model={here}"]
    monkeypatch.chdir(code)
    assert cli_here("train", *options, *own).code == 0
    monkeypatch.chdir(tmp_path)
    run = RunDir(tmp_path / "run")
    assert resume(cli_here, run, "--allow-code").code == 0  # from another directory
    code.rename(tmp_path / "moved")
    missing = resume(cli_here, run, "--steps=2", "--allow-code")
    assert missing.code == 2
    assert "add its new place: --model FOLDER" in missing.stderr
    moved = ["--task=moved/mine.py:Sums", "--reward=moved/mine.py:short=1.0", "--reward=think_format=0.2"]
    weights = tmp_path / "moved" / here / "model.safetensors"
    content = bytearray(weights.read_bytes())
    other = shutil.copytree(weights.parent, tmp_path / "other")
    content[len(content) // 2 + 64] ^= 1
    (other / weights.name).write_bytes(content)
    refused = resume(cli_here, run, "--steps=2", "--model=other", *moved)
    assert (refused.code, "The weights of" in refused.stderr) == (7, True)
    outcome = resume(cli_here, run, "--steps=2", f"--model=moved/{here}", *moved)
    assert outcome.code == 0, outcome.stderr[-3000:]
    names = read_json(run.config)["config"]
    assert names["task"]["name"] == f"{tmp_path}/moved/mine.py:Sums"
    assert [*names["rewards"]] == [f"{tmp_path}/moved/mine.py:short", "think_format"]
    assert names["model"]["name"] == f"{tmp_path}/moved/{here}"


def test_a_finished_run_says_so(undisturbed, cli_here) -> None:
    outcome = resume(cli_here, undisturbed(WINDOW))
    assert outcome.code == 0
    assert "finished" in outcome.stderr


def test_damaged_checkpoints_are_named_and_passed_over(undisturbed, cli_here, tmp_path) -> None:
    killed = copy_killed(undisturbed(WINDOW), tmp_path / "run", 5)
    optimizer = killed.checkpoint(5) / "optimizer.pt"
    content = bytearray(optimizer.read_bytes())
    content[len(content) // 2] ^= 1
    optimizer.write_bytes(content)
    weights = killed.checkpoint(4) / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    outcome = resume(cli_here, killed)
    assert outcome.code == 0
    assert f"{killed.checkpoint(5)} is damaged and passed over: optimizer.pt has changed" in outcome.stderr
    assert f"{killed.checkpoint(4)} is damaged and passed over: adapter_model.safetensors has" in outcome.stderr
    assert "continues after step 3," in outcome.stderr
    assert list(differences(undisturbed(WINDOW), killed)) == []


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("--steps=4", "grpo.steps is 5 in this run, and 4 was given"),
        ("--set=optimizer.learning_rate=1e-3", "optimizer.learning_rate is 0.0005"),
        ("--reward=boxed_answer=1", "rewards.think_format is 0.2"),
        ("--preset=qwen7b-24gb", "model.name is 'tiny'"),
    ],
)
def test_another_config_is_refused_and_the_difference_named(option, shown, undisturbed, cli_here) -> None:
    outcome = resume(cli_here, undisturbed(WINDOW), option)
    assert outcome.code == 2
    assert shown in outcome.stderr


@pytest.mark.parametrize("missing", ["config", "machine", "metrics", "order", "evaluations"])
def test_a_missing_file_is_named_with_the_fix(missing, undisturbed, cli_here, tmp_path) -> None:
    killed = copy_killed(undisturbed(WINDOW), tmp_path / "run", 4)
    getattr(killed, missing).unlink()
    outcome = resume(cli_here, killed)
    assert outcome.code == 7
    assert getattr(killed, missing).name in outcome.stderr
    assert "hint: " in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_damaged_files_that_are_not_needed_do_not_stop_a_resume(undisturbed, cli_here, tmp_path) -> None:
    killed = copy_killed(undisturbed(WINDOW), tmp_path / "run", 4)
    killed.peak.write_text("{")
    critical = {"name": "gibberish", "severity": "critical", "lasts": True}
    over = {"name": "dead_reward", "severity": "critical", "lasts": False}
    write_json(killed.health, {"findings": [critical, over, {"name": ["x"]}, None]})
    outcome = resume(cli_here, killed)
    assert outcome.code == 0, outcome.stderr[-3000:]
    assert f"the memory profile of the first step is lost: {killed.peak} cannot be read" in outcome.stderr
    assert "its last audit found gibberish: that may happen again" in outcome.stderr


def test_an_order_that_lacks_a_round_is_named(undisturbed, cli_here, tmp_path) -> None:
    killed = copy_killed(undisturbed(WINDOW), tmp_path / "run", 4)
    killed.order.write_text(killed.order.read_text().splitlines(keepends=True)[0])
    outcome = resume(cli_here, killed)
    assert outcome.code == 7
    assert f"{killed.order} lacks what was sampled for step 3" in outcome.stderr


@pytest.mark.parametrize("name", ["metrics", "resumes"])
def test_a_link_among_the_rows_is_refused_and_what_it_leads_to_stays(name, undisturbed, cli_here, tmp_path) -> None:
    killed, elsewhere = copy_killed(undisturbed(WINDOW), tmp_path / "run", 4), tmp_path / "elsewhere"
    elsewhere.write_text("not ended")
    getattr(killed, name).unlink(missing_ok=True)
    getattr(killed, name).symlink_to(elsewhere)
    outcome = resume(cli_here, killed)
    assert outcome.code == 7
    assert f"{getattr(killed, name)} is a link" in outcome.stderr
    assert elsewhere.read_text() == "not ended"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"config": {"grpo": 7}, "preset": "x"}', "\0"])
def test_a_config_that_is_none_is_named(content, cli_here, tmp_path) -> None:
    run = RunDir(tmp_path)
    run.config.write_text(content)
    outcome = resume(cli_here, run)
    assert outcome.code == 7
    assert "config.json" in outcome.stderr


def test_a_directory_without_a_run_is_refused(cli_here, tmp_path) -> None:
    assert resume(cli_here, RunDir(tmp_path / "none")).code == 7
    assert cli_here("train", "--resume").code == 2
    assert not (tmp_path / "none").exists()


def test_code_that_a_run_directory_names_is_not_run(undisturbed, cli_here, tmp_path) -> None:
    killed = copy_killed(undisturbed(WINDOW), tmp_path / "run", 4)
    (tmp_path / "theirs.py").write_text(f"open({str(tmp_path / 'proof')!r}, 'w')\n")
    config = read_json(killed.config)
    config["config"]["rewards"] = {f"{tmp_path / 'theirs.py'}:f": 1.0}
    config["origins"] = dict.fromkeys(config["origins"], "--reward")
    write_json(killed.config, config)
    outcome = resume(cli_here, killed)
    assert outcome.code == 2
    assert "--allow-code" in outcome.stderr
    assert not (tmp_path / "proof").exists()


def test_a_run_that_is_in_use_is_refused(undisturbed, cli_here) -> None:
    with locked(undisturbed(WINDOW).lock, pytest.fail):
        outcome = resume(cli_here, undisturbed(WINDOW))
    assert outcome.code == 7
    assert f"in use by process {os.getpid()}" in outcome.stderr


@contextlib.contextmanager
def meanwhile(act: Callable[[], None]) -> Iterator[None]:
    thread = threading.Thread(target=act)
    thread.start()
    yield
    thread.join()


def has_come(condition: Callable[[], bool], seconds: float = 200) -> bool:
    until = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < until:
        time.sleep(0.01)
    return found


def test_a_signal_saves_and_the_run_goes_on_exactly(undisturbed, cli_here, tmp_path) -> None:
    run = RunDir(tmp_path / "run")

    def stop() -> None:
        if has_come(lambda: len(list(read_rows(run.metrics))) == 2):
            os.kill(os.getpid(), signal.SIGUSR1)

    settings = [setting for setting in (*SMALL, *RUNS[WINDOW]) if "checkpoint_every" not in setting]
    with meanwhile(stop):
        options = [f"--set={setting}" for setting in settings]
        outcome = cli_here("train", "--preset=tiny-cpu", *options, "--force", f"--out={run.path}")
    assert outcome.code == 130, outcome.stderr[-3000:]
    assert "Stopped by SIGUSR1; saved as it was after step " in outcome.stderr
    assert f"lowmem-rl train --resume --out {run.path}" in outcome.stderr
    assert resume(cli_here, run).code == 0
    assert list(differences(undisturbed(WINDOW), run)) == []


def test_a_full_disk_pauses_the_run_and_costs_no_row(small_disk, cli_here, tmp_path) -> None:
    run = RunDir(small_disk / "run")

    def fill_and_free() -> None:
        has_come(lambda: len(list(read_rows(run.metrics))) == 2)
        with (small_disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(512)):
                pass
        time.sleep(3)
        (small_disk / "ballast").unlink()

    settings = [setting for setting in SMALL if "keep_checkpoints" not in setting]
    with meanwhile(fill_and_free):
        options = [f"--set={setting}" for setting in (*settings, "adapter.rank=2", "logging.keep_checkpoints=1")]
        outcome = cli_here("train", "--preset=tiny-cpu", *options, "--force", f"--out={run.path}")
    assert outcome.code == 0, outcome.stderr[-3000:]
    assert "no space on the disk" in outcome.stderr
    assert "there is space again" in outcome.stderr
    assert [row["step"] for row in read_rows(run.metrics)] == [1, 2, 3, 4, 5]
    assert len(list(read_rows(run.samples))) == 5 * 16


def test_a_directory_that_cannot_be_written_is_refused(small_disk, cli_here) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    outcome = cli_here("train", "--preset=tiny-cpu", f"--out={small_disk / 'run'}")
    assert outcome.code == 7
    assert "cannot be a run directory: Read-only file system" in outcome.stderr


@pytest.mark.parametrize("moment", ["__init__", "on_init_end", "on_train_begin", "on_log"])
def test_a_tracker_that_fails_costs_no_step(cli_here, tmp_path, monkeypatch, moment) -> None:
    from transformers.integrations import TensorBoardCallback

    def fail(*args, **kwargs) -> None:
        raise RuntimeError("the server is gone")

    monkeypatch.setattr(TensorBoardCallback, moment, fail)
    small = [setting for setting in SMALL if "grpo.steps" not in setting]
    settings = [f"--set={setting}" for setting in (*small, "grpo.steps=2", "logging.report_to=tensorboard")]
    outcome = cli_here("train", "--preset=tiny-cpu", *settings, "--force", f"--out={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.stderr[-3000:]
    assert outcome.stderr.count("the server is gone") == 1
    assert "TensorBoard failed and is left out" in outcome.stderr
    assert len(list(read_rows(RunDir(tmp_path / "run").metrics))) == 2


def test_trackers_get_evaluations_and_what_was_sampled_in_one_curve_across_resumes(cli_here, tmp_path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = RunDir(tmp_path / "run")

    def stop() -> None:
        if has_come(lambda: len(list(read_rows(run.metrics))) == 3):
            os.kill(os.getpid(), signal.SIGTERM)

    options = [f"--set={setting}" for setting in (*SMALL, *RUNS[WINDOW], "eval.tasks=matrix_inverse")]
    options += ["--set=logging.report_to=tensorboard"]
    with meanwhile(stop):
        assert cli_here("train", "--preset=tiny-cpu", *options, "--force", f"--out={run.path}").code == 130
    done = sorted(run.checkpoints.iterdir())[-1]
    shutil.rmtree(done)  # its step is trained again
    assert resume(cli_here, run).code == 0
    events = EventAccumulator(str(run.trackers / "tensorboard"))
    events.Reload()
    steps = {tag: [one.step for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert steps["train/loss"] == steps["train/accuracy"] == steps["train/informative_share"] == [1, 2, 3, 4, 5]
    assert steps["train/step_s"] == [1, 2, 3, 4, 5]
    assert sorted(set(steps["eval/pass_at_1"])) == [0, 2, 4, 5]
    assert sorted(set(steps["eval/matrix_inverse/pass_at_1"])) == [0, 5]
    rows = list(read_rows(run.metrics))
    assert [one.value for one in events.Scalars("train/accuracy")] == pytest.approx([row["accuracy"] for row in rows])


def test_eight_bit_optimizer_states_come_back_to_the_bit(tmp_path) -> None:
    import torch
    from bitsandbytes.optim import AdamW8bit

    def made(seed: int) -> tuple[torch.nn.Parameter, AdamW8bit]:
        weight = torch.nn.Parameter(torch.randn(8192, generator=torch.Generator().manual_seed(seed)))
        return weight, AdamW8bit([weight], lr=1e-2)

    def step(weight: torch.nn.Parameter, optimizer: AdamW8bit, number: int) -> None:
        weight.grad = torch.randn(8192, generator=torch.Generator().manual_seed(number))
        optimizer.step()

    weight, optimizer = made(0)
    step(weight, optimizer, 1)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    other, resumed = made(7)
    other.data.copy_(weight.data)
    resumed.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))
    for number in (2, 3):
        step(weight, optimizer, number)
        step(other, resumed, number)
    assert torch.equal(weight, other)


def test_the_command_kills_compares_and_tells_a_program(preloaded, cli, tmp_path) -> None:
    outcome = cli("verify-resume", "--json", timeout_s=600)
    assert outcome.code == 0, outcome.stderr[-3000:]
    proof = json.loads(outcome.stdout)
    assert proof["is_exact"]
    moments = ["in a step", "while a checkpoint was written", "in the final evaluation"]
    assert [kill["moment"] for kill in proof["kills"]] == moments
    assert max(proof["resume_seconds"]) < 10
