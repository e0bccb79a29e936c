"""Models of other families train: their chat templates on the embedded model."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lowmem_rl.chat_templates.prompt_template import TurnForm
from lowmem_rl.config.compose import resolve
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import load_policy, prepare_process
from lowmem_rl.entrypoints.generate import ask
from lowmem_rl.errors import SetupError
from lowmem_rl.export.export import export
from lowmem_rl.models.lookup import TINY_DIRECTORY
from lowmem_rl.prompts import CONVENTIONS, conversation
from lowmem_rl.storage.run_dir import RunDir, read_json

pytestmark = pytest.mark.usefixtures("preloaded")

TEMPLATES = Path(__file__).parents[1] / "data" / "chat_templates"
CHOSEN = ("memory.checkpointing=none", "memory.micro_batch=8", "grpo.prompts_per_step=1")
STEP = ("--steps=1", "--set=grpo.prompts_per_step=2", "--set=memory.micro_batch=8", "--set=eval.examples=8")


def write_model(folder: Path, name: str) -> Path:
    shutil.copytree(TINY_DIRECTORY, folder)
    (folder / "chat_template.jinja").write_bytes((TEMPLATES / f"{name}.jinja").read_bytes())
    return folder


@pytest.mark.slow
def test_a_run_under_a_template_without_a_system_role_trains_and_is_exported(tmp_path: Path) -> None:
    from lowmem_rl_cli.app import main

    model, run = write_model(tmp_path / "model", "gemma_2"), RunDir(tmp_path / "run")
    chosen = ("--preset=tiny-cpu", f"--set=model.name={json.dumps(str(model))}", "--set=task.prompt=boxed")
    assert main(["train", *chosen, *STEP, f"--out={run.path}"]) == 0
    assert len(run.metrics.read_text().splitlines()) == 1
    assert len(ask(run.path, "1 + 1").trained) == 1
    exported = export(run.path, "adapter", examples=8).path
    assert read_json(exported / "proof.json")["tokens"]["same"] == 8
    card = (exported / "README.md").read_text()
    assert json.dumps(CONVENTIONS["boxed"])[1:-1] in card
    assert '"role": "system"' not in card


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gemma_2", "smolvlm"])
def test_a_policys_prompts_are_in_the_form_that_its_template_takes(name: str, tmp_path: Path) -> None:
    settings = [f"model.name={json.dumps(str(write_model(tmp_path / name, name)))}", *CHOSEN]
    config, device = resolve(preset="tiny-cpu", settings=settings).config, Device("cpu", "float32")
    prepare_process(config, device)
    policy = load_policy(config, device)
    assert policy.template.form == (TurnForm(takes_system=False) if name == "gemma_2" else TurnForm(takes_text=False))
    decoded = policy.tokenizer.decode(policy.tokenize(conversation("1 + 1", "boxed")))
    end = "<start_of_turn>model" if name == "gemma_2" else "Assistant:"
    assert decoded.index(CONVENTIONS["boxed"]) < decoded.index("1 + 1") < decoded.index(end)
    with pytest.raises(SetupError, match="the model embeds 3 tokens"):
        replace(policy, embedded_tokens=3).encode("1 + 1")
