"""Exports of a real run: loaded again from disk, accepted if they answer equally, refused if they do not."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lowmem_rl.config.run_config import ModelConfig
from lowmem_rl.engine import adapter
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.trained_model import WEIGHTS, config_of, find_trained_adapter
from lowmem_rl.errors import RunDirError
from lowmem_rl.evaluation.eval_set import held_out_examples
from lowmem_rl.evaluation.grader import grader_of
from lowmem_rl.export.export import compare_answers, export, reload_request, write_files
from lowmem_rl.export.export_spec import make_spec
from lowmem_rl.export.model_answers import Answer
from lowmem_rl.export.model_card import render_card
from lowmem_rl.export.plain_worker import answer_reloaded
from lowmem_rl.export.proof import ModelAnswers, Proof, check_accuracy, check_tokens
from lowmem_rl.export.reference_answers import answer_with_trained
from lowmem_rl.models.fingerprint import base_digests
from lowmem_rl.reports.run_record import read_record
from lowmem_rl.storage.run_dir import RunDir, read_json, write_json
from lowmem_rl.tasks.task_registry import load_task
from tests.run_maker import make_run

pytestmark = pytest.mark.usefixtures("preloaded")

ITEMS = 16
SMALL = ("--preset=tiny-cpu", "--set=grpo.prompts_per_step=4", "--set=memory.micro_batch=16", "--set=eval.every=1")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A run whose adapter has moved."""
    from lowmem_rl_cli.app import main

    out = tmp_path_factory.mktemp("export") / "run"
    learns = ("--steps=3", "--set=optimizer.warmup_steps=0", "--set=eval.examples=16")
    assert main(["train", *SMALL, *learns, f"--out={out}"]) == 0
    return RunDir(out)


@pytest.fixture(scope="module")
def trained(run):
    config = config_of(run)
    examples = held_out_examples(load_task(config.task), config.task, ITEMS)
    return answer_with_trained(
        find_trained_adapter(run.path), config, Device("cpu", "float32"), examples, lambda event: None
    )


@pytest.fixture(scope="module")
def merged(run) -> Path:
    return export(run.path, "merged", examples=ITEMS).path


def test_an_adapter_answers_as_the_run_does_and_names_its_base(run, trained, tmp_path) -> None:
    config = config_of(run)
    spec, grader = make_spec(config, Device("cpu", "float32"), "adapter", None), grader_of(load_task(config.task))
    write_files(spec, find_trained_adapter(run.path), trained, tmp_path, run.log)
    proof = compare_answers(spec, trained, answer_reloaded(reload_request(spec, trained, tmp_path)), grader)
    assert (proof.tokens.same, proof.tokens.gap_nats, proof.faults) == (ITEMS, 0, [])
    assert read_json(tmp_path / "adapter_config.json")["base_model_name_or_path"].endswith("tiny-qwen2")
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".jinja", ".safetensors"}


def test_an_export_replaces_nothing(run, merged) -> None:
    before = read_json(merged / "proof.json")
    with pytest.raises(RunDirError, match="not empty"):
        export(run.path, "merged")
    assert read_json(merged / "proof.json") == before


def test_a_merge_into_the_weights_of_training_answers_the_same_token_by_token(run, merged) -> None:
    proof = read_json(merged / "proof.json")
    assert proof["kind"] == "tokens"
    assert proof["tokens"]["same"] + len(proof["tokens"]["ties"]) == ITEMS
    assert proof["tokens"]["gap_nats"] <= proof["tokens"]["most_gap_nats"] < 1e-4
    assert "quantization_config" not in read_json(merged / "config.json")
    assert sorted(path.name for path in merged.parent.iterdir() if path.name.startswith("merged")) == ["merged"]


def test_the_card_holds_the_numbers_of_the_run(run, merged) -> None:
    card, record = (merged / "README.md").read_text(), read_record(run.path)
    for evaluation in (record.before, record.latest):
        assert f"{100 * evaluation.result['pass_at_1']:.1f} % [" in card
    assert "AutoModelForCausalLM" in card
    assert "lowmem-rl train --preset tiny-cpu" in card


def test_the_card_names_a_best_adapter_that_is_the_base_model(tmp_path) -> None:
    run = RunDir(make_run(tmp_path / "run"))
    write_json(run.evaluations, read_json(run.evaluations) | {"best": {"name": "before", "step": 0}})
    spec = make_spec(config_of(run), Device("cpu", "float32"), "adapter", None)
    card = render_card(
        read_record(run.path), spec, Proof("accuracy", None, check_accuracy([True], [True])), of_best=True
    )
    assert "answer as the base model does" in card
    assert card.count("| before |") == 1
    assert "Gain" not in card


def altered(merged: Path, run: RunDir, folder: Path, alter) -> Path:
    """Copies a merge with `alter(weight, what the adapter added)` for each weight that has an adapter."""
    shutil.copytree(merged, folder)
    weights, learned = load_file(merged / "model.safetensors"), load_file(run.adapter / WEIGHTS)
    scale = config_of(run).adapter.alpha / config_of(run).adapter.rank
    for name in [name for name in learned if "lora_A" in name]:
        target = name.removeprefix("base_model.model.").replace(".lora_A", "")
        added = scale * learned[name.replace("lora_A", "lora_B")] @ learned[name]
        weights[target] = alter(weights[target], added).contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


WRONG = {
    "none of it": lambda weight, added: weight - added,
    "twice": lambda weight, added: weight + added,
    "a twentieth more": lambda weight, added: weight + added / 20,
    "transposed": lambda weight, added: weight - added + added.T if added.shape[0] == added.shape[1] else weight,
}


@pytest.mark.parametrize("alter", [pytest.param(alter, id=name) for name, alter in WRONG.items()])
def test_a_wrong_merge_is_refused(alter, run, trained, merged, tmp_path) -> None:
    config = config_of(run)
    spec, grader = make_spec(config, Device("cpu", "float32"), "merged", None), grader_of(load_task(config.task))
    right = compare_answers(spec, trained, answer_reloaded(reload_request(spec, trained, merged)), grader)
    wrong = altered(merged, run, tmp_path / "wrong", alter)
    assert right.faults == []
    assert compare_answers(spec, trained, answer_reloaded(reload_request(spec, trained, wrong)), grader).faults != []


def test_a_refused_export_leaves_only_its_proof(run, cli_here, tmp_path) -> None:
    shutil.copytree(run.path, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
    settings = tmp_path / "run" / "adapter" / "adapter_config.json"
    settings.write_text(json.dumps(read_json(settings) | {"lora_alpha": 320}))
    code, stdout, stderr = cli_here("export", str(tmp_path / "run"), "--to=adapter", f"--examples={ITEMS}")
    assert (code, stdout) == (7, "")
    assert [line.split()[0] for line in stderr.splitlines()[-2:]] == ["error:", "hint:"]
    assert [path.name for path in (tmp_path / "run" / "export").iterdir()] == ["adapter.refused.json"]
    assert read_json(tmp_path / "run" / "export" / "adapter.refused.json")["holds"] is False


WHOLE = ("--set=trainable.method=full", "--set=trainable.layers=first:1")
LAST = ("--set=trainable.layers=last:1",)


@pytest.fixture(scope="module")
def some_layers(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunDir]:
    """Trains a run in which only some layers learn, once for each choice."""
    from lowmem_rl_cli.app import main

    @cache
    def train(*settings: str) -> RunDir:
        out = tmp_path_factory.mktemp("layers") / "run"
        learns = ("--steps=2", "--set=optimizer.warmup_steps=0", "--set=eval.examples=8", "--set=eval.every=0")
        assert main(["train", *SMALL[:-1], *learns, *settings, f"--out={out}"]) == 0
        return RunDir(out)

    return train


def test_whole_weights_over_16_bit_answer_the_same_from_files_alone(some_layers) -> None:
    run = some_layers(*WHOLE, "--set=model.bits=16")
    made = export(run.path, "weights", examples=ITEMS)
    assert (made.proof.kind, made.proof.faults) == ("tokens", [])
    assert made.proof.tokens.same + len(made.proof.tokens.ties) == ITEMS
    names = {path.name for path in made.path.iterdir()}
    assert {"model-00001-of-00001.safetensors", "model.safetensors.index.json", "tokenizer.json"} <= names
    assert not [name for name in names if name.startswith("adapter")]
    weights = load_file(made.path / "model-00001-of-00001.safetensors")
    assert weights.keys() == read_json(made.path / "model.safetensors.index.json")["weight_map"].keys()
    assert "model.layers.0.mlp.up_proj.weight" in weights
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}
    about = read_json(made.path / "trainable.json")
    assert (about["base"], about["revision"], about["layers"], about["bits"]) == ("tiny", None, "0", 16)
    assert about["base_digests"].keys() == {"config", "tokenizer", "weights"}
    assert read_json(run.weights / "trainable.json") == about
    own = load_file(run.weights / "model-00001-of-00001.safetensors")
    assert own.keys() == weights.keys()
    assert all(own[name].equal(weights[name]) for name in weights)
    card = (made.path / "README.md").read_text()
    assert "strict=False" in card
    assert "| layers that learn | `first:1` |" in card


@pytest.mark.parametrize(
    ("settings", "to", "kind"),
    [
        (WHOLE, "merged", "tokens"),
        (WHOLE, "weights", "accuracy"),
        (LAST, "merged", "tokens"),
        (LAST, "adapter", "tokens"),
    ],
    ids=["whole merged", "whole weights", "last:1 merged", "last:1 adapter"],
)
def test_some_layers_over_4_bit_are_exported(settings, to, kind, some_layers) -> None:
    run = some_layers(*settings)
    made = export(run.path, to, examples=64 if kind == "accuracy" else ITEMS)
    assert (made.proof.kind, made.proof.faults) == (kind, [])


@pytest.mark.parametrize(
    ("settings", "to", "fix"), [(WHOLE, "adapter", "--to weights"), (LAST, "weights", "--to adapter")]
)
def test_what_has_not_learned_is_refused_in_two_lines(settings, to, fix, some_layers, cli_here) -> None:
    run = some_layers(*settings)
    outcome = cli_here("export", str(run.path), f"--to={to}")
    assert (outcome.code, outcome.stdout, len(outcome.stderr.splitlines())) == (2, "", 2)
    assert fix in outcome.stderr


@pytest.mark.parametrize(
    "command",
    [("eval",), ("samples", "--prompt=1 * 2"), ("export", "--to=merged"), ("train", "--resume", "--steps=3", "--out")],
    ids=lambda command: command[0],
)
def test_whole_weights_over_another_base_are_refused_before_it_is_loaded(
    command, some_layers, cli_here, monkeypatch
) -> None:
    run = some_layers(*WHOLE, "--set=model.bits=16")
    monkeypatch.setattr(adapter, "base_digests", lambda *model: base_digests(*model) | {"config": "another"})
    outcome = cli_here(*command, str(run.path))
    error, hint = outcome.stderr.splitlines()[-2:]
    assert (outcome.code, outcome.stdout) == (7, "")
    assert "loading" not in outcome.stderr
    assert "learned over another model than tiny: its config differs" in error
    assert "model.name" in hint


def test_whole_weights_of_an_older_version_belong_to_any_base(some_layers, tmp_path) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(some_layers(*WHOLE, "--set=model.bits=16").adapter, folder)
    about = read_json(folder / "trainable.json")
    keys = ("base", "revision", "bits", "base_digests")
    write_json(folder / "trainable.json", {key: value for key, value in about.items() if key not in keys})
    adapter.check_base(folder, ModelConfig(name="Qwen/Qwen2.5-7B-Instruct"))
    assert adapter.read_adapter(folder).trainable.layers == "first:1"


def answered(*ids: int, second: float = 5.0, noise: float = 0.0) -> ModelAnswers:
    """One answer with the tokens 1 and 2 as the most likely at each place, at a distance of `second` nats."""
    answer = Answer(list(ids), [[1, 2]] * len(ids), [[-0.1, -0.1 - second]] * len(ids))
    return ModelAnswers([[0]], [answer], [[[-0.1 + noise, -0.1 - second + noise]] * len(ids)])


@pytest.mark.parametrize(
    ("second", "taken", "faults"), [(0.01, 2, 0), (0.5, 2, 1), (0.01, 7, 1)], ids=["tie", "no tie", "no neighbour"]
)
def test_an_answer_may_only_differ_at_a_tie(second, taken, faults) -> None:
    ours, theirs = answered(1, 1, 1, second=second, noise=0.01), answered(1, taken, 1, second=second)
    check = check_tokens(ours, theirs, ours.read_own, "float32")
    assert (len(check.differences), len(check.ties)) == (faults, 1 - faults)
    assert len(check.faults) == faults


def test_other_prompts_and_nan_are_faults() -> None:
    ours = answered(1, 1)
    assert check_tokens(ours, ours, [[[float("nan")] * 2] * 2], "float32").faults
    assert check_tokens(ours, replace(ours, prompts=[[9]]), ours.read_own, "float32").faults


def test_an_accuracy_that_is_worse_or_rests_on_few_items_is_a_fault() -> None:
    assert check_accuracy([True] * 100, [True] * 99 + [False]).faults == []
    assert "fewer items" in check_accuracy([True] * 100, [True] * 80 + [False] * 20).faults[0]
    assert "do not rule out" in check_accuracy([True] * 8, [True] * 8).faults[0]


MISTAKES = [
    (["--to=onnx"], 2, "There is no export format named 'onnx'."),
    (["--to=merged", "--base=8bit"], 2, "There is no base named '8bit'."),
    (["--to=adapter", "--base=16bit"], 2, "--base does not apply to an adapter."),
    (["--to=gguf"], 3, "gguf needs llama.cpp"),
    (["--to=adapter"], 7, "has no adapter"),
]


@pytest.mark.parametrize(("options", "code", "message"), MISTAKES, ids=lambda value: str(value)[:30])
def test_what_cannot_be_exported_is_reported_in_two_lines(
    options, code, message, cli_here, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    outcome = cli_here("export", str(make_run(tmp_path / "run")), *options)
    assert (outcome.code, outcome.stdout, len(outcome.stderr.splitlines())) == (code, "", 2)
    assert message in outcome.stderr


def test_a_prompt_is_answered_without_the_adapter_and_with_it(run, cli_here) -> None:
    asked = ("samples", str(run.path), "--prompt", "What is 346 * 8?")
    once = json.loads(cli_here(*asked, "--json").stdout)
    assert [len(once[name]) for name in ("base", "trained")] == [1, 1]
    assert "\\boxed{" in once["base"][0]["text"]
    page = cli_here(*asked, "--sampled", "3").stdout
    assert page.count("sampled as in training") == 6


def test_the_best_adapter_can_be_exported_and_asked_instead_of_the_last(run, cli_here, tmp_path) -> None:
    copy = RunDir(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    weights = {
        name: 0 * weight if "lora_B" in name else weight for name, weight in load_file(run.best / WEIGHTS).items()
    }
    save_file(weights, copy.best / WEIGHTS)
    write_json(copy.evaluations, read_json(copy.evaluations) | {"best": {"name": "step-000001", "step": 1}})
    answers = json.loads(cli_here("samples", str(copy.best), "--prompt", "What is 346 * 8?", "--json").stdout)
    assert answers["base"] == answers["trained"]
    made = json.loads(cli_here("export", str(copy.best), "--to=adapter", f"--examples={ITEMS}", "--json").stdout)
    assert made["path"] == str(copy.export("best-adapter"))
    exported = load_file(Path(made["path"]) / WEIGHTS)
    assert all((exported[name] == weight).all() for name, weight in weights.items())
    card = (Path(made["path"]) / "README.md").read_text()
    assert "chosen as the best of several" in card
    assert "| steps taken | 1 of 3 |" in card


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--prompt", " "], 2, "empty"),
        (["--prompt", "x" * 5000], 2, "grpo.max_prompt_tokens"),
        (["--prompt", "x", "--step", "3"], 2, "--prompt asks the model"),
        (["--sampled", "3"], 2, "--prompt"),
    ],
)
def test_a_prompt_that_cannot_be_asked_is_reported(options, code, message, run, cli_here) -> None:
    outcome = cli_here("samples", str(run.path), *options)
    assert outcome.code == code
    assert message in outcome.stderr


def test_a_run_without_an_adapter_cannot_be_asked(cli_here, tmp_path) -> None:
    outcome = cli_here("samples", str(make_run(tmp_path / "run")), "--prompt", "What is 3 * 4?")
    assert (outcome.code, outcome.stdout, len(outcome.stderr.splitlines())) == (7, "", 2)


def test_a_setting_of_another_version_is_left_out_and_a_wrong_value_is_not(tmp_path) -> None:
    run = RunDir(make_run(tmp_path / "run"))
    content = read_json(run.config)
    expected = config_of(run)
    content["config"]["grpo"]["from_the_future"] = 7
    run.config.write_text(json.dumps(content))
    assert config_of(run) == expected
    content["config"]["grpo"]["steps"] = "many"
    run.config.write_text(json.dumps(content))
    with pytest.raises(RunDirError, match="not a configuration"):
        config_of(run)
