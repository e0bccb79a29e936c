"""What `train` says before it trains: dry runs and every mistake that needs no model to be found."""

import json
import os
import re
from pathlib import Path

import pytest

from lowmem_rl.config.presets import load_presets

DATA = Path(__file__).parents[1] / "data"
LONGER = "--set=grpo.max_prompt_tokens=256"


@pytest.mark.parametrize("preset", [preset.name for preset in load_presets()])
def test_every_preset_passes_a_dry_run(preset, cli_here) -> None:
    outcome = cli_here("train", "--preset", preset, "--dry-run", "--json")
    assert outcome.code == 0, outcome.stderr
    plan = json.loads(outcome.stdout)
    assert plan["grpo_config"]["num_generations"] == plan["config"]["grpo"]["group_size"]
    assert plan["from_pretrained"]["load_in_4bit"] is (plan["config"]["model"]["bits"] == 4)
    assert plan["origins"]["model.name"] == f"preset {preset}"


def test_a_dry_run_names_what_this_machine_changes(cli_here) -> None:
    outcome = cli_here("train", "--preset=tiny-cpu", "--set=optimizer.name=paged_adamw_8bit", "--dry-run")
    assert "optimizer.name: paged_adamw_8bit -> adamw_8bit" in outcome.stdout
    assert "trl.GRPOConfig" in outcome.stdout


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--task=arithmetik", "arithmetic"),
        ("--set=rewards.boxed_anser=1", "boxed_answer"),
        ("--set=grpo.max_completion_tokens=99999", "takes"),
    ],
)
def test_a_dry_run_finds_what_training_would_refuse(option, expected, cli_here) -> None:
    outcome = cli_here("train", "--preset=tiny-cpu", option, "--dry-run")
    assert outcome.code == 2
    assert expected in outcome.stderr


def test_a_dry_run_reads_the_pass_rates(cli_here) -> None:
    options = ["--set=curriculum.by=pass_rate", "--set=curriculum.rates=nowhere.json"]
    outcome = cli_here("train", "--preset=tiny-cpu", *options, "--dry-run")
    assert outcome.code == 6
    assert "nowhere.json holds no pass rates" in outcome.stderr


def test_a_dry_run_shows_the_arguments_as_they_are_on_this_machine(cli_here) -> None:
    outcome = cli_here("train", "--preset=tiny-cpu", "--set=memory.checkpointing=unsloth", "--dry-run", "--json")
    plan = json.loads(outcome.stdout)
    assert plan["from_pretrained"]["use_gradient_checkpointing"] is True
    assert [adjustment["key"] for adjustment in plan["adjustments"]] == ["memory.checkpointing"]


def test_a_dry_run_leaves_no_files(cli_here) -> None:
    cli_here("train", "--preset=tiny-cpu", "--dry-run")
    assert os.listdir() == []


MISTAKES = [
    (["--preset=tiny-cqu"], 2, "tiny-cpu"),
    (["--set=grpo.group_sise=8"], 2, "group_size"),
    (["--set=grpo.group_size=1"], 2, "greater than or equal to 2"),
    (["--set=grpo.group_size=eight"], 2, "grpo.group_size"),
    (["--set=memory.micro_batch=7"], 2, "micro_batch"),
    (["--set=grpo.loss=dr_grpo"], 2, "scale_rewards"),
    (["--set=grpo.max_completion_tokens=1000000"], 2, "takes"),
    (["--steps=0"], 2, "steps"),
    (["--task=arithmetik"], 2, "arithmetic"),
    (["--reward=boxed_anser=1.0"], 2, "boxed_answer"),
    (["--reward=boxed_answer=0"], 2, "weight"),
    (["--set=task.levels=[9]"], 6, "level 9"),
    (["--set=model.name='no/such-model'", "--set=model.bits=16"], 3, "no/such-model"),
    (["--set=model.name=./nowhere"], 2, "nowhere"),
    (["--preset=qwen7b-a6000"], 3, "--dry-run"),
    (["--resume", "runs/x"], 2, "train --resume --out runs/NAME"),
    (["--set=rollout.engine=vllm"], 3, "vllm"),
    (["--task=nowhere.py:T"], 6, "nowhere.py"),
    (["--set=logging.report_to=wandb"], 3, "wandb"),
    (["--set=logging.report_to=mlflow"], 2, "tensorboard"),
    (["--set=rollout.temperature=10"], 2, "less than 10"),
    (["--steps=3", "--set=grpo.steps_per_rollout=4"], 2, "steps_per_rollout"),
    (["--set=adapter.targets=[]"], 2, "adapter.targets"),
    (["--set=model.revision=main", "--set=rollout.engine=vllm"], 2, "revision"),
    (["--set=curriculum.by=difficulty"], 2, "answer_length"),
    (["--set=curriculum.by=pass_rate"], 2, "lowmem-rl probe"),
    (["--set=curriculum.by=pass_rate", "--set=curriculum.rates=nowhere.json"], 6, "nowhere.json"),
    (
        [
            "--task=gsm8k",
            f"--set=task.path={DATA}/gsm8k",
            "--set=task.levels=[]",
            "--set=curriculum.by=level",
            "--set=grpo.prompts_per_step=4",
            "--set=grpo.steps=1",
        ],
        6,
        "has no level",
    ),
    (["--task=countdown", "--set=task.levels=[]", LONGER], 6, "--reward countdown=1"),
    (["--task=program_synthesis", "--set=task.levels=[]", LONGER], 6, "--reward program_synthesis=1"),
]


@pytest.mark.parametrize(("options", "code", "expected"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_is_reported_in_two_lines_before_anything_is_written(options, code, expected, cli_here) -> None:
    preset = [] if options[0].startswith("--preset") else ["--preset=tiny-cpu"]
    outcome = cli_here("train", *preset, *options, "--out=run")
    assert outcome.code == code, outcome.stderr
    assert expected in outcome.stderr
    lines = outcome.stderr.strip().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["error", "hint"]
    assert not Path("run/metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("rows", "code", "expected"),
    [
        ('{"question": "1+1?"}', 6, "answer"),
        ('{"question": "1+1?", "answer": "two ####"}', 6, "####"),
        ("", 6, "no train rows"),
        ("nonsense", 6, "line 1"),
    ],
)
def test_unusable_data_is_reported_with_file_and_row(rows, code, expected, cli_here, tmp_path) -> None:
    for split in ("train", "test"):
        (tmp_path / f"{split}.jsonl").write_text(rows + "\n")
    options = ["--task=gsm8k", "--set=task.levels=[]", f"--set=task.path={json.dumps(str(tmp_path))}"]
    outcome = cli_here("train", "--preset=tiny-cpu", *options, "--out=run")
    assert outcome.code == code
    assert expected in outcome.stderr
    assert str(tmp_path) in outcome.stderr or "train.jsonl" in outcome.stderr


def test_a_split_that_repeats_itself_is_refused_unless_forced(cli_here, tmp_path) -> None:
    def rows(numbers: list[int]) -> str:
        return "".join(json.dumps({"question": f"{n}+1?", "answer": f"#### {n + 1}"}) + "\n" for n in numbers)

    (tmp_path / "train.jsonl").write_text(rows([n // 2 for n in range(64)]))
    (tmp_path / "test.jsonl").write_text(rows([100, 101]))
    options = ["--task=gsm8k", "--set=task.levels=[]", f"--set=task.path={json.dumps(str(tmp_path))}"]
    outcome = cli_here("train", "--preset=tiny-cpu", *options, "--out=run")
    assert outcome.code == 6
    assert "32 of 64 train questions occur twice" in outcome.stderr


def test_a_half_downloaded_model_names_what_is_missing(cli_here, tmp_path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(Path(_tiny(), "config.json").read_text())
    outcome = cli_here("train", "--preset=tiny-cpu", f"--set=model.name={json.dumps(str(tmp_path / 'model'))}")
    assert outcome.code == 3
    assert "model.safetensors" in outcome.stderr


def test_a_model_that_writes_no_text_is_refused(cli_here, tmp_path) -> None:
    config = json.loads(Path(_tiny(), "config.json").read_text()) | {
        "architectures": ["Qwen2ForSequenceClassification"]
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    outcome = cli_here("train", "--preset=tiny-cpu", f"--set=model.name={json.dumps(str(tmp_path))}")
    assert outcome.code in (2, 3)
    assert "Traceback" not in outcome.stderr


def test_code_that_a_config_file_names_is_not_run_unasked(cli_here, tmp_path) -> None:
    (tmp_path / "evil.py").write_text("open('ran', 'w')\ndef f(c, e):\n    return 1.0\n")
    (tmp_path / "mine.toml").write_text(f'[rewards]\n"{tmp_path}/evil.py:f" = 1.0\n')
    outcome = cli_here("train", "--preset=tiny-cpu", f"--config={tmp_path}/mine.toml", "--out=run")
    assert outcome.code == 2
    assert "--allow-code" in outcome.stderr
    assert not Path("ran").exists()


def _tiny() -> str:
    from lowmem_rl.models.lookup import model_path

    return model_path("tiny")


def test_a_dry_run_tells_the_verdict_and_what_train_would_refuse(cli_here) -> None:
    arguments = ["train", "--dry-run", "--preset", "tiny-cpu"]
    unknown = r"^# Fits: .*; whether its groups carry signal is not known .*: `lowmem-rl probe` .* 8 rollouts"
    assert re.search(unknown, cli_here(*arguments).stdout, re.MULTILINE)
    known = cli_here(*arguments, "--pass-rate", "0.3").stdout
    assert re.search(r"^# Fits: .* of the groups carry signal\.$", known, re.MULTILINE)
    hopeless = cli_here(*arguments, "--pass-rate", "0")
    assert hopeless.code == 0
    assert "\n# `train` refuses this run: group_size=" in hopeless.stdout
    plan = json.loads(cli_here(*arguments, "--pass-rate", "0", "--json").stdout)
    assert plan["verdict"]["signal"] == "too-small"
    assert [(one["exit_code"], bool(one["hint"])) for one in plan["refusals"]] == [(8, True)]
    assert plan["pass_rate"] == "given pass rate 0"


def test_train_refuses_what_the_pass_rate_makes_hopeless(cli_here, tmp_path) -> None:
    refused = cli_here("train", "--preset", "tiny-cpu", "--pass-rate", "0", "--out", str(tmp_path / "run"))
    assert refused.code == 8
    assert not (tmp_path / "run").exists()


def test_a_gain_whose_items_are_missing_is_not_tested() -> None:
    from lowmem_rl_cli.train_command import _paired_verdict

    assert "cannot be tested" in _paired_verdict({"gain": 0.1, "paired": None})
