"""Real runs of the embedded model through the real command line: what they leave, and that they repeat."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lowmem_rl.engine.device import Device
from lowmem_rl.models.lookup import model_path
from lowmem_rl.phases import OTHER, STEP_PHASES, seconds_key
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows
from lowmem_rl.telemetry.memory_profiler import measures_each_phase
from lowmem_rl.telemetry.metrics import MEASURED

CPU = Device("cpu", "float32")
CPU = Device("cpu", "float32")
EXAMPLES = Path(__file__).parents[2] / "examples"
GSM8K = Path(__file__).parents[1] / "data" / "gsm8k"
SMALL = (
    "--preset=tiny-cpu",
    "--set=eval.examples=24",
    "--set=eval.quick_examples=8",
    "--set=grpo.prompts_per_step=4",
    "--set=memory.micro_batch=16",
)


def steady(rows) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in MEASURED} for row in rows]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDir, subprocess.CompletedProcess]:
    """One run in a process of its own, with everything on that a run can leave."""
    out = tmp_path_factory.mktemp("finished") / "run"
    options = ("--steps=4", "--set=eval.every=2", "--set=logging.checkpoint_every=2", "--set=logging.samples_every=2")
    done = subprocess.run(
        [
            Path(sys.executable).with_name("lowmem-rl"),
            "train",
            *SMALL,
            *options,
            "--set=logging.report_to=tensorboard",
            f"--out={out}",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return RunDir(out), done


def test_results_go_to_stdout_and_talk_to_stderr(finished) -> None:
    _, done = finished
    assert "before" in done.stdout
    assert "on the same 24 problems, paired" in done.stdout
    assert "step 4/4" in done.stderr
    assert "step 4/4" not in done.stdout
    assert "Unsloth" not in done.stdout + done.stderr


def test_the_run_directory_holds_what_the_contract_names(finished) -> None:
    run, _ = finished
    config = read_json(run.config)
    assert config["config"]["grpo"]["steps"] == 4
    assert config["origins"]["grpo.steps"] == "--steps"
    assert config["origins"]["grpo.group_size"] == "preset tiny-cpu"
    assert read_json(run.machine)["versions"]["trl"]
    assert read_json(run.peak)["peak_bytes"] > 0
    assert read_json(run.engine)["sampling"]["engine"] == "lowmem"
    assert read_json(run.health)["step"] == 4
    assert "<html" in run.report.read_text()
    assert [row["step"] for row in read_rows(run.order)] == [1, 2, 3, 4]
    assert (run.adapter / "adapter_config.json").is_file()
    assert (run.checkpoint(2) / "adapter_model.safetensors").is_file()
    assert any(run.trackers.rglob("events.out.tfevents*"))
    assert "Unsloth" in run.log.read_text()


def test_every_step_has_a_row(finished) -> None:
    rows = list(read_rows(finished[0].metrics))
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert 0 <= row["informative_share"] <= 1
        assert 0 <= row["accuracy"] <= 1
        assert row["completion_tokens"] > 0
        assert row.keys() >= {"loss", "grad_norm", "reward", "scores/boxed_answer", "scores/think_format", "step_s"}


def test_a_steps_seconds_are_split_by_phase(finished) -> None:
    for row in read_rows(finished[0].metrics):
        phases = {phase: row[seconds_key(phase)] for phase in (*STEP_PHASES, OTHER)}
        assert sum(phases.values()) == pytest.approx(row["step_s"])
        assert all(phases[phase] > 0 for phase in STEP_PHASES)


@pytest.mark.skipif(not measures_each_phase(CPU), reason="this system does not reset a process's peak")
def test_memory_is_measured_by_phase(finished) -> None:
    peak, estimate = (read_json(path) for path in (finished[0].peak, finished[0].estimate))
    assert peak["phases"].keys() >= estimate["phases"].keys() - {"save"}
    sizes = [phase["process_bytes"] for phase in peak["phases"].values()]
    assert 0 < max(sizes) <= peak["peak_bytes"]
    assert peak["metered_step"]["completion_tokens"] > 0


def test_evaluations_before_during_and_after_stand_in_one_file(finished) -> None:
    run, _ = finished
    evaluations = read_json(run.evaluations)
    assert evaluations["before"]["num_examples"] == evaluations["after"]["num_examples"] == 24
    assert [(during["step"], during["num_examples"]) for during in evaluations["during"]] == [(2, 8)]
    assert evaluations["comparison"]["gain"] == pytest.approx(
        evaluations["after"]["pass_at_1"] - evaluations["before"]["pass_at_1"]
    )
    assert len(list(read_rows(run.eval_items("before")))) == 24


def test_samples_carry_the_scores_they_were_paid_for(finished) -> None:
    samples = list(read_rows(finished[0].samples))
    assert {row["step"] for row in samples} == {1, 3}
    assert len(samples) == 2 * 32
    for row in samples:
        expected = row["scores"]["boxed_answer"] + 0.2 * row["scores"]["think_format"]
        assert row["reward"] == pytest.approx(expected)


def test_the_adapter_has_moved_away_from_the_base(finished) -> None:
    from safetensors.numpy import load_file

    weights = load_file(finished[0].adapter / "adapter_model.safetensors")
    # LoRA's B begins at zero: all that is in it was learned.
    assert all(abs(w).max() > 0 for name, w in weights.items() if "lora_B" in name)
    assert {str(w.dtype) for w in weights.values()} == {"float32"}


def test_the_same_seed_repeats_digit_for_digit_in_another_process(finished, cli_here, tmp_path) -> None:
    run, _ = finished
    options = ("--steps=4", "--set=eval.every=2", "--set=logging.samples_every=2")
    assert cli_here("train", *SMALL, *options, f"--out={tmp_path / 'again'}").code == 0
    again = RunDir(tmp_path / "again")
    assert steady(read_rows(again.metrics)) == steady(read_rows(run.metrics))
    assert again.samples.read_bytes() == run.samples.read_bytes()
    weights = "adapter_model.safetensors"
    assert (again.adapter / weights).read_bytes() == (run.adapter / weights).read_bytes()


def test_another_seed_is_another_run(finished, cli_here, tmp_path) -> None:
    assert cli_here("train", *SMALL, "--steps=1", "--seed=1", f"--out={tmp_path / 'other'}").code == 0
    other = next(iter(read_rows(RunDir(tmp_path / "other").samples)))
    assert other["example_id"] != next(iter(read_rows(finished[0].samples)))["example_id"]


def test_a_directory_that_holds_a_run_is_left_alone(finished, cli_here) -> None:
    run, _ = finished
    before = run.metrics.read_bytes()
    outcome = cli_here("train", *SMALL, f"--out={run.path}")
    assert outcome.code == 7
    assert f"--out {run.path}-2" in outcome.stderr
    assert run.metrics.read_bytes() == before


def test_settings_of_the_loss_reach_trl(cli_here, tmp_path) -> None:
    options = (
        "--set=grpo.beta=0.1",
        "--set=grpo.loss=grpo",
        "--set=grpo.steps_per_rollout=2",
        "--set=memory.rollout_rows=10",
        "--set=optimizer.schedule=multistep",
        "--set=optimizer.warmup_steps=0",
        "--set=optimizer.milestones=[2]",
        "--set=optimizer.decay=0.5",
    )
    outcome = cli_here("train", *SMALL, *options, "--steps=3", f"--out={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.stderr
    rows = list(read_rows(RunDir(tmp_path / "run").metrics))
    assert all(row["kl"] is not None for row in rows)
    rates = [row["learning_rate"] for row in rows]
    assert rates == pytest.approx([rates[0], rates[0], rates[0] / 2])


def test_a_reward_and_a_task_from_the_users_files(cli_here, tmp_path) -> None:
    outcome = cli_here(
        "train",
        *SMALL,
        "--steps=1",
        f"--task={EXAMPLES / 'custom_task.py'}:Larger",
        "--set=task.levels=[]",
        f"--reward={EXAMPLES / 'custom_reward.py'}:short_and_right=1.0",
        f"--out={tmp_path / 'run'}",
    )
    assert outcome.code == 0, outcome.stderr
    (row,) = read_rows(RunDir(tmp_path / "run").metrics)
    assert "scores/short_and_right" in row
    assert "scores/boxed_answer" not in row


def test_a_run_can_tell_its_result_to_a_program(cli_here, tmp_path) -> None:
    outcome = cli_here("train", *SMALL, "--steps=1", "--json", f"--out={tmp_path / 'run'}")
    assert json.loads(outcome.stdout)["after"]["num_examples"] == 24


def test_greedy_is_greedy_whatever_the_model_ships_for_sampling(finished, cli_here, tmp_path) -> None:
    shutil.copytree(model_path("tiny"), tmp_path / "model")
    settings = tmp_path / "model" / "generation_config.json"
    sampling = {"repetition_penalty": 1.5, "temperature": 0.6, "top_k": 5, "do_sample": True}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | sampling))
    model = f"--set=model.name={json.dumps(str(tmp_path / 'model'))}"
    assert cli_here("train", *SMALL, "--steps=1", model, f"--out={tmp_path / 'run'}").code == 0
    items = RunDir(tmp_path / "run").eval_items("before").read_bytes()
    assert items == finished[0].eval_items("before").read_bytes()


def test_a_reward_that_skips_everything_stops_the_run(cli_here, tmp_path) -> None:
    (tmp_path / "mine.py").write_text("def silent(completion, example):\n    return None\n")
    reward = f"--reward={tmp_path / 'mine.py'}:silent=1.0"
    outcome = cli_here("train", *SMALL, reward, f"--out={tmp_path / 'run'}")
    assert outcome.code == 6
    assert "'silent' pays 0 for each" in outcome.stderr
    forced = cli_here("train", *SMALL, reward, "--force", f"--out={tmp_path / 'run'}")
    assert forced.code == 5
    assert "all were skipped" in forced.stderr


def test_a_control_run_is_noted_and_graded_all_the_same(cli_here, tmp_path) -> None:
    outcome = cli_here("train", *SMALL, "--reward=random=1", "--steps=1", f"--out={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.stderr
    assert "none of the rewards verifies the answers: random" in outcome.stderr
    (row,) = read_rows(RunDir(tmp_path / "run").metrics)
    assert row["accuracy"] != row["scores/random"]


def test_a_task_is_judged_by_its_own_grader(cli_here, tmp_path) -> None:
    (tmp_path / "mine.py").write_text(
        "from lowmem_rl.tasks.arithmetic import ARITHMETIC\n"
        "class Formed:\n"
        "    rewards = ('think_format',)\n"
        "    def __init__(self, convention):\n"
        "        self.task = ARITHMETIC(convention)\n"
        "    def examples(self, selection):\n"
        "        return self.task.examples(selection)\n"
        "    def gold_completion(self, example):\n"
        "        return self.task.gold_completion(example)\n"
    )
    options = (f"--task={tmp_path / 'mine.py'}:Formed", "--set=task.levels=[3]", "--reward=think_format=1", "--steps=1")
    # Forced: it pays the same for every answer.
    outcome = cli_here("train", *SMALL, *options, "--force", f"--out={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.stderr
    (row,) = read_rows(RunDir(tmp_path / "run").metrics)
    after = read_json(RunDir(tmp_path / "run").evaluations)["after"]
    assert row["accuracy"] == pytest.approx(row["scores/think_format"])
    assert after["pass_at_1"] == after["scores"]["think_format"] > 0.5


def test_adapters_on_layers_the_model_lacks_are_refused(cli_here, tmp_path) -> None:
    outcome = cli_here("train", *SMALL, "--set=adapter.targets=nope", f"--out={tmp_path / 'run'}")
    assert outcome.code == 2
    assert "adapter.targets" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_gsm8k_from_local_files(cli_here, tmp_path) -> None:
    outcome = cli_here(
        "train",
        *SMALL,
        "--steps=1",
        "--task=gsm8k",
        f"--set=task.path={json.dumps(str(GSM8K))}",
        "--set=task.levels=[]",
        "--set=grpo.max_prompt_tokens=512",
        "--set=grpo.max_completion_tokens=16",
        f"--out={tmp_path / 'run'}",
    )
    assert outcome.code == 0, outcome.stderr
    after = read_json(RunDir(tmp_path / "run").evaluations)["after"]
    assert (after["task"], after["num_examples"]) == ("gsm8k", 12)  # the whole file


def test_prompts_that_are_all_too_long_are_counted_before_the_model_is_loaded(cli_here, tmp_path) -> None:
    outcome = cli_here("train", *SMALL, "--steps=1", "--set=grpo.max_prompt_tokens=1", f"--out={tmp_path / 'run'}")
    assert outcome.code == 6
    assert "prompts is longer than grpo.max_prompt_tokens=1; the shortest has" in outcome.stderr
    assert "loading" not in outcome.stderr
    assert not (tmp_path / "run").exists()  # the same command can be repeated


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("return 1 / 0", "raised ZeroDivisionError"),
        ("return 'good'", "returned 'good'"),
        ("return float('nan')", "returned nan"),
    ],
)
def test_a_reward_that_fails_stops_before_training(body, shown, cli_here, tmp_path) -> None:
    (tmp_path / "mine.py").write_text(f"def broken(completion, example):\n    {body}\n")
    outcome = cli_here("train", *SMALL, f"--reward={tmp_path / 'mine.py'}:broken=1.0", f"--out={tmp_path / 'run'}")
    assert outcome.code == 6
    assert shown in outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("share", "code"), [(0.05, 0), (0.01, 6)])
def test_a_reward_that_fails_in_the_first_evaluation_counts_against_the_limit(share, code, cli_here, tmp_path) -> None:
    from lowmem_rl.config.compose import resolve
    from lowmem_rl.entrypoints.preflight import prepare

    rare = prepare(resolve(preset="tiny-cpu", settings=["eval.examples=60"])).test[45].id  # no check draws so many
    body = f"def picky(completion, example):\n    return 1 / (example.id != {rare!r})\n"
    (tmp_path / "mine.py").write_text(body)
    out = tmp_path / "run"
    options = ("--set=eval.examples=60", "--force", "--steps=1", f"--set=health.max_reward_error_share={share}")
    reward = (f"--reward={tmp_path / 'mine.py'}:picky=1.0", "--reward=boxed_answer=1.0")
    done = cli_here("train", "--preset=tiny-cpu", *options, *reward, f"--out={out}")
    assert done.code == code, done.stderr
    assert rare in done.stderr
    assert out.exists() == (code == 0)


@pytest.fixture
def sometimes(tmp_path: Path) -> str:
    """A right reward that fails on every other written-out product; golds and guesses have none."""
    (tmp_path / "mine.py").write_text(
        "from lowmem_rl.rewards.boxed import score_boxed\n"
        "def sometimes(completion, example):\n"
        "    if '+0=' in completion and len(completion) % 2:\n"
        "        raise OSError('gone')\n"
        "    return score_boxed(completion, example)\n"
    )
    return f"--reward={tmp_path / 'mine.py'}:sometimes=1.0"


def test_a_reward_that_fails_too_often_stops_the_run_and_keeps_what_there_is(sometimes, cli_here, tmp_path) -> None:
    outcome = cli_here("train", *SMALL, "--steps=1", sometimes, f"--out={tmp_path / 'run'}")
    assert outcome.code == 5
    assert "health.max_reward_error_share" in outcome.stderr
    assert (RunDir(tmp_path / "run").adapter / "adapter_config.json").is_file()


def test_a_reward_that_fails_within_the_limit_is_reported_and_skipped(sometimes, cli_here, tmp_path) -> None:
    limit = "--set=health.max_reward_error_share=0.5"
    outcome = cli_here("train", *SMALL, "--steps=1", sometimes, limit, f"--out={tmp_path / 'run'}")
    assert outcome.code == 0
    assert "raised OSError: gone" in outcome.stderr
    scores = [row["scores"]["sometimes"] for row in read_rows(RunDir(tmp_path / "run").samples)]
    assert 0 < scores.count(None) < len(scores)


def test_a_rate_that_destroys_the_model_stops_the_run_and_keeps_what_there_is(cli_here, tmp_path) -> None:
    options = ("--set=optimizer.learning_rate=1.0", "--set=optimizer.max_grad_norm=1e30", "--set=grpo.beta=1e30")
    outcome = cli_here("train", *SMALL, *options, "--steps=30", f"--out={tmp_path / 'run'}")
    assert outcome.code == 5, outcome.stderr[-500:]
    assert "optimizer.learning_rate" in outcome.stderr
    assert (RunDir(tmp_path / "run").adapter / "adapter_config.json").is_file()


def test_ctrl_c_before_the_first_step_leaves_nothing_and_says_so(tmp_path, started) -> None:
    out = tmp_path / "run"
    process = started("train", *SMALL, f"--out={out}")
    until = time.monotonic() + 100
    while not RunDir(out).log.exists() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(2)  # in the middle of importing
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=100)
    assert process.returncode == 130
    assert "nothing remains on the disk" in talk
    assert not out.exists()


def test_a_reader_that_goes_away_does_not_end_the_training(preloaded, tmp_path, started) -> None:
    out = tmp_path / "run"
    process = started("train", *SMALL, "--steps=2", f"--out={out}")
    process.stderr.close()
    assert process.wait(timeout=200) == 0
    assert len(list(read_rows(RunDir(out).metrics))) == 2


def test_ctrl_c_saves_the_adapter_and_says_where(preloaded, tmp_path, started) -> None:
    out = tmp_path / "run"
    process = started("train", *SMALL, "--steps=500", f"--out={out}")
    until = time.monotonic() + 200
    while not RunDir(out).metrics.exists() and time.monotonic() < until:
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, talk = process.communicate(timeout=100)
    assert process.returncode == 130
    assert str(RunDir(out).adapter) in talk
    assert "Traceback" not in talk
    assert (RunDir(out).adapter / "adapter_model.safetensors").is_file()
