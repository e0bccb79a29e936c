import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from lowmem_rl._version import __version__
from lowmem_rl.chat_templates.model_template import template_of_model
from lowmem_rl.chat_templates.tokenizer_file import encoder_of_model
from lowmem_rl.config.keys import known_keys
from lowmem_rl.models.lookup import TINY_DIRECTORY
from lowmem_rl.scale_out.rows import read_rows
from lowmem_rl.storage.run_dir import RunDir
from tests.run_maker import begin
from tests.unit.engine.test_start import write_adapter

TRL = ("--preset", "tiny-cpu", "--to", "trl", "--gpus", "2")
VERL = ("--preset", "tiny-cpu", "--to", "verl", "--gpus", "2", "--card", "h100", "--set", "optimizer.schedule=constant")


def test_a_folder_for_trl(cli_here, tmp_path: Path) -> None:
    code, out, err = cli_here("scale-out", *TRL, "--out", "scaled")
    assert (code, err) == (0, "")
    assert "no counterpart" in out
    files = {str(path.relative_to("scaled")) for path in Path("scaled").rglob("*") if path.is_file()}
    assert files == {
        *("run.sh", "train.py", "trl.json", "accelerate.yaml", "MAPPING.md", "scale_out.json"),
        *("data/train.parquet", "data/test.parquet"),
    }
    settings = json.loads(Path("scaled/trl.json").read_text())
    rows = (
        settings["grpo_config"]["per_device_train_batch_size"] * settings["grpo_config"]["gradient_accumulation_steps"]
    )
    assert rows * 2 == 64
    assert settings["quantization"]["bnb_4bit_quant_type"] == "nf4"
    assert yaml.safe_load(Path("scaled/accelerate.yaml").read_text())["num_processes"] == 2


def test_a_folder_for_verl(cli_here) -> None:
    code, _, err = cli_here("scale-out", *VERL, "--nodes", "2", "--set", "memory.micro_batch=16", "--out", "scaled")
    assert (code, err) == (0, "")
    overrides = yaml.safe_load(Path("scaled/overrides.yaml").read_text())
    assert "trainer.nnodes=2" in overrides
    assert "actor_rollout_ref.actor.clip_ratio_c=1000000000.0" in overrides
    assert not [line for line in overrides if "scaled/" in line]
    assert "verl has no 4-bit base" in Path("scaled/MAPPING.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "optimizer", "needs"),
    [
        (TRL, "adamw_torch", f"lowmem-rl {__version__} with its extra `train` and wandb on that machine."),
        (VERL, "adamw_torch", f"`vllm`, flash-attn, lowmem-rl {__version__} without extras and math-verify on every"),
        (VERL, "paged_adamw_8bit", "math-verify and bitsandbytes on every"),
    ],
)
def test_what_must_be_installed_there_is_named(cli_here, arguments, optimizer, needs) -> None:
    settings = ("--set", f"optimizer.name={optimizer}", "--set", "logging.report_to=wandb")
    assert cli_here("scale-out", *arguments, *settings, "--out", "scaled")[0] == 0
    assert needs in Path("scaled/MAPPING.md").read_text()


def test_the_width_that_auto_chooses_is_mapped(cli_here) -> None:
    assert cli_here("scale-out", *VERL, "--set", "model.bits=auto", "--out", "scaled")[0] == 0
    facts = json.loads(Path("scaled/scale_out.json").read_text())
    row = next(row for row in facts["mapping"] if row["key"] == "model.bits")
    assert row["value"] == facts["config"]["model"]["bits"]
    assert (row["value"] == 4) == (row["status"] == "changed")


@pytest.mark.parametrize("arguments", [TRL, VERL])
def test_both_files_of_the_mapping_have_a_row_for_each_key(cli_here, arguments) -> None:
    assert cli_here("scale-out", *arguments, "--out", "scaled")[0] == 0
    facts = json.loads(Path("scaled/scale_out.json").read_text())
    assert [row["key"] for row in facts["mapping"]] == [*known_keys()]
    page = Path("scaled/MAPPING.md").read_text()
    assert [key for key in known_keys() if f"| `{key}` |" not in page] == []


def test_for_a_program(cli_here) -> None:
    facts = json.loads(cli_here("scale-out", *TRL, "--out", "scaled", "--json")[1])
    assert facts["to"] == "trl"
    assert {row["status"] for row in facts["mapping"]} == {"equal", "changed", "no counterpart"}


@pytest.mark.parametrize(
    ("arguments", "code", "what", "fix"),
    [
        ((*TRL[:-1], "3"), 2, "do not divide over 3 cards", "2 or 4 cards"),
        ((*TRL[:-1], "8"), 2, "memory.micro_batch 32 does not divide the 8", "memory.micro_batch=8"),
        ((*TRL[:-1], "9"), 2, "at most 8 cards", "--to verl"),
        ((*TRL, "--nodes", "2"), 2, "TRL is for the cards of one machine", "--to verl"),
        ((*TRL[:2], "--to", "velr", "--gpus", "2"), 2, "no target named 'velr'", "verl"),
        ((*VERL[:-2],), 2, "optimizer.schedule = 'linear'", "--accept optimizer.schedule"),
        ((*VERL, "--set", "grpo.mask_truncated=true"), 2, "grpo.mask_truncated", "--accept grpo.mask_truncated"),
        ((*VERL, "--accept", "grpo.mask_trunc"), 2, "no key named 'grpo.mask_trunc'", "grpo.mask_truncated"),
        (
            (*VERL, "--accept", "optimizer.schedule"),
            2,
            "does not refuse optimizer.schedule = 'constant'",
            "Leave it out",
        ),
        ((*TRL, "--accept", "health.action"), 2, "TRL does not refuse health.action", "Leave it out"),
        ((*TRL, "--set", "grpo.max_prompt_tokens=5"), 6, "longer than grpo.max_prompt_tokens=5", "max_prompt_tokens="),
        ((*VERL, "--set", "grpo.max_prompt_tokens=5"), 6, "longer than grpo.max_prompt_tokens=5", "max_prompt_tokens="),
        ((*VERL[:6], *VERL[8:]), 2, "needs cards", "--card h100"),
        ((*VERL, "--set", "rewards.perplexity=1"), 2, "perplexity asks the model", "rewards.perplexity=0"),
        ((*TRL, "--card", "h1000"), 2, "h1000", "h100"),
        ((*TRL, "--continue"), 2, "--continue needs a RUN", "--help"),
        (("nowhere", "--to", "trl", "--gpus", "2"), 7, "nowhere is not a directory", "where a run is"),
        ((*TRL, "--set", "task.path=nowhere.jsonl", "--set", "task.name=gsm8k"), 6, "nowhere.jsonl", ""),
        (("--preset", "qwen7b-a6000", "--to", "verl", "--gpus", "8"), 3, "chat template of Qwen", "hf download"),
    ],
)
def test_a_mistake_prints_two_lines_and_writes_nothing(cli_here, arguments, code, what, fix) -> None:
    found = cli_here("scale-out", *arguments, "--out", "scaled")
    assert (found.code, found.stdout) == (code, "")
    error, hint = found.stderr.strip().splitlines()
    assert what in error
    assert fix in hint
    assert not Path("scaled").exists()


TASK = """
from lowmem_rl import Example, conversation
class Sets:
    def examples(self, selection):
        for n in range(200):
            question = conversation(f"{n} in {selection.split}?", "boxed")
            yield Example(f"{selection.split}/{n}", question, str(n), extra={"numbers": {n}})
    def gold_completion(self, example):
        return f"\\\\boxed{{{example.answer}}}"
"""


def test_a_task_whose_rows_cannot_be_written_is_refused(cli_here) -> None:
    Path("tasks.py").write_text(TASK)
    own = ("--set", "task.name=tasks.py:Sets", "--set", "grpo.steps=2", "--set", "grpo.max_prompt_tokens=512")
    code, out, err = cli_here("scale-out", *TRL, *own, "--set", "rewards.think_format=0", "--out", "scaled")
    assert (code, out) == (6, "")
    error, hint = err.splitlines()
    assert "'train/0' cannot be written as a row" in error
    assert "lists and dictionaries" in hint
    assert not Path("scaled").exists()


def test_the_rows_are_the_prompts_that_the_run_asks(cli_here) -> None:
    """Of two lengths of prompts only the shorter ones are within the limit."""
    some = ("--set", "task.levels=[1, 3]", "--set", "grpo.steps=6", "--set", "grpo.max_prompt_tokens=18")
    found = {}
    for target in (TRL, VERL):
        code, out, err = cli_here("scale-out", *target, *some, "--out", target[3])
        assert (code, err) == (0, "")
        assert "are longer than grpo.max_prompt_tokens=18 and left out" in Path(target[3], "MAPPING.md").read_text()
        found[target[3]] = read_rows(Path(target[3], "data", "train.parquet"))
    assert found["trl"] == found["verl"]
    assert len(found["trl"]) == 6 * 8
    encode, template = encoder_of_model("tiny"), template_of_model("tiny")
    assert encode is not None
    assert template is not None
    assert max(len(encode(template.render(row["prompt"]))) for row in found["trl"]) <= 18


def test_a_folder_with_something_in_it_stays_as_it_is(cli_here) -> None:
    Path("scaled").mkdir()
    Path("scaled/notes.txt").write_text("mine")
    code, _, err = cli_here("scale-out", *TRL, "--out", "scaled")
    assert code == 7
    assert "scaled cannot hold the files: it is not empty." in err
    assert [path.name for path in Path().rglob("*")] == ["scaled", "notes.txt"]


def test_a_folder_that_cannot_be_written_is_refused_and_no_other_is_made(cli_here) -> None:
    Path("loop").symlink_to("loop")
    Path("file").write_text("mine")
    for out in ("loop", "loop/scaled", "file", "file/scaled"):
        code, _, err = cli_here("scale-out", *TRL, "--out", out)
        assert (code, len(err.splitlines())) == (7, 2)
    assert cli_here("scale-out", *TRL[:-1], "3", "--out", "new/scaled")[0] == 2
    assert {path.name for path in Path().iterdir()} == {"loop", "file"}
    assert cli_here("scale-out", *TRL, "--out", "new/scaled")[0] == 0


def test_a_run_with_its_adapter(cli_here, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    begin(run, {"model__name": "tiny", "grpo__steps": 4, "task__prompt": "bare", "memory__micro_batch": 8})
    arguments = ("scale-out", str(run.path), "--to", "trl", "--gpus", "2", "--continue", "--out", "scaled")
    code, _, err = cli_here(*arguments)
    assert code == 7
    assert "no adapter" in err
    write_adapter(run.adapter, layers_to_transform=[0, 1, 2])
    found = cli_here(*arguments)
    assert (found.code, "adapter.rank is 16" in found.stderr, Path("scaled").exists()) == (2, True, False)
    fitting = ("--set", "adapter.rank=8", "--set", "adapter.alpha=16", "--set", "trainable.layers=first:3")
    assert cli_here(*arguments, *fitting)[0] == 0
    assert json.loads(Path("scaled/trl.json").read_text())["adapter"] == "adapter"
    weights = (run.adapter / "adapter_model.safetensors").read_bytes()
    assert Path("scaled/adapter/adapter_model.safetensors").read_bytes() == weights
    assert "the KL reference is" in Path("scaled/MAPPING.md").read_text()
    (run.adapter / "adapter_model.safetensors").write_bytes(weights[:-9])
    assert cli_here(*arguments[:-1], "other", *fitting).code == 7


def test_whole_weights_are_no_adapter_to_continue_with(cli_here, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    begin(run, {"model__bits": 16, "trainable__method": "full", "grpo__steps": 4, "memory__micro_batch": 8})
    write_adapter(run.adapter)
    verl = ("--to", "verl", "--gpus", "2", "--card", "h100", "--continue", "--out", "scaled")
    code, _, err = cli_here("scale-out", str(run.path), *verl)
    assert code == 2
    assert "learned whole weights" in err
    assert "--to merged" in err


def test_a_run_is_changed_by_settings_only(cli_here, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    begin(run, {"grpo__steps": 4, "memory__micro_batch": 8})
    trl = ("scale-out", str(run.path), "--to", "trl", "--gpus", "2")
    assert cli_here(*trl, "--set", "grpo.steps=6", "--out", "scaled")[0] == 0
    assert json.loads(Path("scaled/trl.json").read_text())["grpo_config"]["max_steps"] == 6
    code, _, err = cli_here(*trl, "--preset", "tiny-cpu", "--out", "other")
    assert code == 2
    assert "leave --preset and --config out" in err


def test_code_that_a_run_names_is_not_executed_without_a_word(cli_here, tmp_path: Path) -> None:
    (tmp_path / "rewards.py").write_text(
        "open('ran', 'w')\ndef count(completions, **_):\n    return [0] * len(completions)\n"
    )
    run = RunDir(tmp_path / "run")
    begin(run, {})
    found = json.loads(run.config.read_text())
    name = f"{tmp_path / 'rewards.py'}:count"
    found["config"]["rewards"][name] = 0.1
    run.config.write_text(json.dumps(found))
    code, _, err = cli_here("scale-out", str(run.path), "--to", "trl", "--gpus", "2", "--out", "scaled")
    assert code == 2
    assert "--allow-code" in err
    assert not Path("ran").exists()


HOSTILE_NAME = 'it\'s `touch owned` "x" | #: a] & ; -'


@pytest.mark.parametrize(
    ("target", "name"), [(TRL, f"$(touch owned) ${{HOME}} [a] * {HOSTILE_NAME}"), (VERL, HOSTILE_NAME)]
)
def test_what_a_name_holds_is_data_in_every_file(cli_here, tmp_path: Path, target, name) -> None:
    model, out = tmp_path / name, tmp_path / f"of {name}"
    shutil.copytree(TINY_DIRECTORY, model)
    code, _, err = cli_here("scale-out", *target, "--set", f"model.name={model}", "--out", str(out))
    assert (code, err) == (0, "")
    shared = {"run.sh", "train.py", "reward.py"}
    for path in out.iterdir():
        assert path.name not in shared or name not in path.read_text()
    assert json.loads((out / "scale_out.json").read_text())["config"]["model"]["name"] == str(model)
    assert not list(tmp_path.rglob("owned"))


@pytest.mark.parametrize("name", ["a${HOME}", "$(id)", "$HOME", "[a]", "a*", "a?", "a::b"])
def test_a_path_that_verl_would_read_as_something_else_is_refused(cli_here, tmp_path: Path, name: str) -> None:
    code, _, err = cli_here("scale-out", *VERL, "--out", f"{name}/scaled")
    assert (code, len(err.splitlines())) == (7, 2)
    assert "verl reads" in err
    shutil.copytree(TINY_DIRECTORY, tmp_path / name)
    code, _, err = cli_here("scale-out", *VERL, "--set", f"model.name={tmp_path / name}", "--out", "scaled")
    assert (code, err.splitlines()[1]) == (2, "hint: Rename the folder.")
    assert not Path("scaled").exists()


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "a\tb", "\x7f", "\udcff"])
@pytest.mark.parametrize("target", [TRL, VERL])
def test_control_characters_in_the_folders_path_are_refused(cli_here, target, name: str) -> None:
    code, _, err = cli_here("scale-out", *target, "--out", f"{name}/scaled")
    assert (code, len(err.splitlines())) == (7, 2)
    assert "control characters" in err
    assert name not in err
    assert not [*Path().iterdir()]


def test_control_characters_in_a_runs_path_are_spelled_out(cli_here, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "a\x1b[31m\n| `b` \udcff")
    begin(run, {"model__name": "tiny", "grpo__steps": 4, "task__prompt": "bare", "memory__micro_batch": 8})
    write_adapter(run.adapter, layers_to_transform=[0, 1, 2])
    fitting = ("--set", "adapter.rank=8", "--set", "adapter.alpha=16", "--set", "trainable.layers=first:3")
    trl = (str(run.path), "--to", "trl", "--gpus", "2", "--continue", *fitting, "--out", "scaled")
    code, out, err = cli_here("scale-out", *trl)
    assert (code, err) == (0, "")
    page = Path("scaled/MAPPING.md").read_text()
    for text in (out, page, *map(Path.read_text, Path("scaled").glob("*.*"))):
        assert "\x1b" not in text
        assert "a" not in text.splitlines()
    assert page.splitlines()[0].startswith("# ``")
    assert "a<U+001B>[31m" in out
    assert "<U+DCFF>" in json.loads(Path("scaled/scale_out.json").read_text())["source"]


def test_an_existing_folder_is_filled_and_stays_the_same_one(cli_here, tmp_path: Path) -> None:
    """A shell may be in it: a folder in its place would leave the shell in one that is gone."""
    before = os.stat(".").st_ino
    assert cli_here("scale-out", *TRL, "--out", ".")[0] == 0
    assert os.stat(tmp_path).st_ino == os.stat(".").st_ino == before
    assert json.loads(Path("trl.json").read_text())["grpo_config"]["run_name"] == tmp_path.name
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]
    assert cli_here("scale-out", *TRL, "--out", ".").code == 7


def test_run_sh_is_started_from_anywhere(cli_here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`CDPATH` sends a shell's `cd` elsewhere, and a name may begin with a dash."""
    (tmp_path / "other" / "-scaled").mkdir(parents=True)
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("accelerate", "python3"):
        (programs / name).write_text("#!/bin/sh\npwd\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("CDPATH", str(tmp_path / "other"))
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for target in (TRL, VERL):
        out = tmp_path / target[3] / "-scaled"
        assert cli_here("scale-out", *target, "--out", str(out))[0] == 0
        done = subprocess.run(["bash", "--", "-scaled/run.sh"], cwd=out.parent, capture_output=True, text=True)
        assert (done.stdout, done.stderr) == (f"{out}\n", "")
