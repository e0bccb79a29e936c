"""The audit during real runs: it reports findings, stops a run, or rolls it back to a healthy checkpoint."""

import shutil
from pathlib import Path

import pytest

from benchmarks.health_cases import keeps_its_first_weights
from lowmem_rl.checkpointing.rollback import with_old_checkpoints
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.storage.run_dir import RunDir, read_json, read_rows, write_json
from lowmem_rl_bench.verify_resume import differences

SMALL = (
    "--preset=tiny-cpu",
    "--set=eval.examples=16",
    "--set=eval.every=0",
    "--set=grpo.prompts_per_step=4",
    "--set=memory.micro_batch=16",
    "--set=optimizer.name=adamw_8bit",
)
TOO_HOT = "--set=rollout.temperature=9.0"
WEIGHTS = "adapter_model.safetensors"
GLITCH = """
from pathlib import Path

from lowmem_rl.rewards.boxed import score_boxed

scored = 0


def glitch(completion, example):
    global scored
    scored += "What is" in example.question
    is_now = {first} <= scored < {first} + 4 and not Path(__file__).with_name("fixed").exists()
    return 3e38 if is_now else score_boxed(completion, example)
"""


def weights_in(folder: Path) -> dict:
    from safetensors.numpy import load_file

    return load_file(folder / WEIGHTS)


def test_a_finding_is_reported_during_the_run_and_is_in_its_audit(cli_here, tmp_path):
    options = ("--steps=2", "--set=logging.report_to=tensorboard")
    done = cli_here("train", *SMALL, TOO_HOT, *options, f"--out={tmp_path / 'run'}")
    assert done.code == 0
    first, second = done.stderr.index("step 1/2"), done.stderr.index("step 2/2")
    assert first < done.stderr.index("critical  gibberish  step 1") < second
    assert read_json(RunDir(tmp_path / "run").health)["findings"][0]["name"] == "gibberish"
    (events,) = RunDir(tmp_path / "run").trackers.rglob("events.out.tfevents*")
    assert b"health/gibberish" in events.read_bytes()


def test_a_run_that_is_to_stop_is_saved_and_names_finding_steps_and_fix(cli_here, tmp_path):
    done = cli_here("train", *SMALL, TOO_HOT, "--set=health.action=stop", "--steps=9", f"--out={tmp_path / 'run'}")
    run = RunDir(tmp_path / "run")
    assert done.code == 5
    assert "Step 1: gibberish, steps 1 to 1." in done.stderr
    assert "--resume --set health.action=warn continues" in done.stderr
    assert "hint: Try the model untrained" in done.stderr
    assert "Traceback" not in done.stderr
    assert (run.adapter / WEIGHTS).is_file()
    assert run.health.is_file()
    assert len(list(read_rows(run.metrics))) == 1
    assert [path.name for path in run.checkpoints.iterdir()] == ["step-000001"]  # with another action it continues


def test_a_sampler_on_old_weights_falls_back_and_is_named(cli_here, tmp_path):
    moves = ("--set=optimizer.learning_rate=0.01", "--set=optimizer.warmup_steps=0", "--steps=3")
    with keeps_its_first_weights():
        done = cli_here("train", *SMALL, *moves, f"--out={tmp_path / 'run'}")
    assert done.code == 0
    run = RunDir(tmp_path / "run")
    assert [row.get("sampler_fell_back") for row in read_rows(run.metrics)] == [None, 1.0, None]
    assert read_json(run.engine)["sampling"]["weights"] == "quantized"
    (found,) = [found for found in read_json(run.health)["findings"] if found["name"] == "sampler_mismatch"]
    assert (found["steps"], found["lasts"]) == ([2, 2], False)


def test_a_run_that_was_never_healthy_ends_as_the_base_model(cli_here, tmp_path):
    options = ("--set=health.action=roll_back", "--set=logging.checkpoint_every=1", "--steps=9")
    done = cli_here("train", *SMALL, TOO_HOT, *options, f"--out={tmp_path / 'run'}")
    assert done.code == 5
    assert "the weights are the base model's again" in done.stderr
    weights = weights_in(RunDir(tmp_path / "run").adapter)
    assert not any(weight.any() for name, weight in weights.items() if "lora_B" in name)


@pytest.fixture(scope="module")
def gone_back(tmp_path_factory) -> RunDir:
    """A run whose third step is spoiled by a reward that pays too much to be a number when it is weighted."""
    from lowmem_rl_cli.app import main

    folder = tmp_path_factory.mktemp("gone_back")
    (folder / "rewards.py").write_text(GLITCH.format(first=90))
    options = (
        f"--reward={folder / 'rewards.py'}:glitch=10.0",
        "--set=health.action=roll_back",
        "--set=logging.checkpoint_every=1",
        "--set=grpo.steps_per_rollout=2",
        "--steps=5",
        "--force",
        f"--out={folder / 'run'}",
    )
    assert main(["train", *SMALL, *options]) == 0
    return RunDir(folder / "run")


def test_a_spoiled_run_goes_back_and_on_at_a_third_of_the_rate(gone_back):
    (undone,) = read_rows(gone_back.rollbacks)
    rows = list(read_rows(gone_back.metrics))
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    spoiled = [row["step"] for row in rows if row.get("reward", 0) is None]
    assert spoiled == [undone["step"]]
    assert (undone["to"], undone["finding"]) == (undone["step"] - 1, "not_a_number")
    assert undone["learning_rate"] == pytest.approx(5e-4 / 3)
    assert rows[-1]["learning_rate"] < 5e-4 / 3
    assert all(abs(weight).max() < 10 for weight in weights_in(gone_back.adapter).values())


def test_a_run_that_is_killed_after_a_rollback_samples_what_it_would_have_sampled(gone_back, cli_here, tmp_path):
    killed = RunDir(tmp_path / "run")
    shutil.copytree(gone_back.path, killed.path)
    (gone_back.path.parent / "fixed").touch()
    (undone,) = read_rows(gone_back.rollbacks)
    for step in range(undone["step"] + 1, 6):
        shutil.rmtree(killed.checkpoint(step))
    write_json(killed.evaluations, read_json(killed.evaluations) | {"after": None, "comparison": None})
    assert cli_here("train", "--resume", "--allow-code", f"--out={killed.path}").code == 0
    assert list(differences(gone_back, killed)) == []
    assert list(read_rows(killed.rollbacks)) == [undone]


def test_a_run_that_may_go_back_keeps_thirty_rounds_of_sampling():
    grpo = {"steps_per_rollout": 3, "passes_per_rollout": 2}
    logging = {"checkpoint_every": 10}
    config = RunConfig.model_validate({"grpo": grpo, "logging": logging, "health": {"action": "roll_back"}})
    assert with_old_checkpoints(config).keep_checkpoints == 19


def test_the_audit_of_a_run_that_went_back_says_that_it_is_over(gone_back):
    found = read_json(gone_back.health)["findings"][0]
    assert (found["name"], found["lasts"]) == ("not_a_number", False)
