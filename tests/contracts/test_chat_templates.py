"""Chat templates render as transformers renders them, each with each prompt convention.

`tests/data/chat_templates` has small copies of published families, with the structure of each; TRL's package brings
whole ones. transformers runs in a process of its own: wherever Unsloth is, it must be imported first.
"""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from lowmem_rl.chat_templates.model_template import template_of_model
from lowmem_rl.chat_templates.prompt_template import PromptTemplate
from lowmem_rl.example import Message
from lowmem_rl.models.lookup import TINY_DIRECTORY
from lowmem_rl.prompts import CONVENTIONS, conversation

ROOT = Path(__file__).parents[2]
SMALL = sorted((ROOT / "tests" / "data" / "chat_templates").glob("*.jinja"))
TRL = find_spec("trl")
WHOLE = sorted(Path(TRL.origin).parent.glob("chat_templates/*.jinja")) if TRL and TRL.origin else []
QUESTION = 'What is <b> 2 + 3 </b>?\n  "Zwölf" & more, in {braces} and <think> </think>.'
ROW = ({"role": "system", "content": "You are a heron."}, {"role": "user", "content": "How many legs?"})
SHOTS = (
    {"role": "user", "content": "1 + 1?"},
    {"role": "assistant", "content": "<think>\none and one\n</think>\n\nTwo."},
    {"role": "user", "content": "2 + 2?"},
)
PROMPTS: dict[str, tuple[Message, ...]] = {
    **{convention: conversation(QUESTION, convention) for convention in CONVENTIONS},
    "a row with its own system message": ROW,
    "worked examples": SHOTS,
    "worked examples under an instruction": (ROW[0], *SHOTS),
}
SPECIAL = {"bos_token": "<bos>", "eos_token": "</s>", "pad_token": None, "image_token": "<image>"}


def write_model(folder: Path, template: str) -> Path:
    """Writes a tokenizer's directory with a chat template."""
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes((TINY_DIRECTORY / "tokenizer.json").read_bytes())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template, **SPECIAL})
    )
    return folder


def template_in(file: Path, tmp_path: Path) -> PromptTemplate:
    template = template_of_model(str(write_model(tmp_path / file.stem, file.read_text("utf-8"))))
    assert template
    return template


@pytest.mark.slow
@pytest.mark.usefixtures("preloaded")
@pytest.mark.parametrize("files", [pytest.param(SMALL, id="small copies"), pytest.param(WHOLE, id="TRL's")])
def test_every_template_renders_as_in_transformers(files: list[Path], tmp_path: Path) -> None:
    if not files:
        pytest.skip("TRL is not installed")
    ours, asked = [], []
    for file in files:
        template = template_in(file, tmp_path)
        ours.append([template.render(prompt) for prompt in PROMPTS.values()])
        asked.append(json.dumps([str(tmp_path / file.stem), [template.fit(prompt) for prompt in PROMPTS.values()]]))
    done = subprocess.run(
        [sys.executable, "-m", "tests.contracts.rendered"],
        cwd=ROOT,
        input="\n".join(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = [[text for text, _ in json.loads(line)] for line in done.stdout.splitlines()]
    assert len(theirs) == len(files)
    for file, here, there in zip(files, ours, theirs, strict=True):
        assert dict(zip(PROMPTS, here, strict=True)) == dict(zip(PROMPTS, there, strict=True)), file.name


@pytest.mark.parametrize("file", [*SMALL, *WHOLE], ids=lambda file: file.stem)
def test_no_template_loses_a_word(file: Path, tmp_path: Path) -> None:
    template = template_in(file, tmp_path)
    for prompt in (conversation("How many legs?", convention) for convention in CONVENTIONS):
        rendered = template.render(prompt)
        assert all(message["content"].strip() in rendered for message in prompt)
    if file.stem != "lfm2_2_5_vl":  # it shows the last question only
        rendered = template.render(PROMPTS["worked examples under an instruction"])
        assert all(text in rendered for text in ("You are a heron.", "1 + 1?", "Two.", "2 + 2?"))


IN_USERS_TURN = {"gemma_2", "mistral_v1", "phi_3"}
PARTS_ONLY = {"smolvlm"}
PREFILLED = {"deepseek_r1_distill", "nemotron_nano", "qwen_3_5_think"}
CLOSED = {"smollm_3_no_think", "qwen_3_5_no_think"}
UNOPENED = {"chatml_unopened": "<|im_start|>assistant\n"}


@pytest.mark.parametrize("file", SMALL, ids=lambda file: file.stem)
def test_what_a_family_accepts_is_found(file: Path, tmp_path: Path) -> None:
    template = template_in(file, tmp_path)
    assert template.form.takes_system is (file.stem not in IN_USERS_TURN)
    assert template.form.takes_text is (file.stem not in PARTS_ONLY)
    assert template.prefill == ("<think>\n" if file.stem in PREFILLED else "")
    assert bool(template.closed_thoughts) is (file.stem in CLOSED)
    assert template.missing_header == UNOPENED.get(file.stem, "")
    expected = sum(file.stem in group for group in (IN_USERS_TURN, CLOSED, UNOPENED))
    assert len(list(template.notes())) == expected
