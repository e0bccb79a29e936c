"""`train --dry-run` reads the data, renders the prompts and tries the rewards, as `train` does before the model."""

import json
import re
import shutil
from pathlib import Path

import pytest

from lowmem_rl.models.lookup import TINY_DIRECTORY

TEMPLATES = Path(__file__).parents[1] / "data" / "chat_templates"
TINY = ("train", "--preset=tiny-cpu", "--dry-run")
LONGER = "--set=grpo.max_prompt_tokens=256"
ROWS = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(200)]


@pytest.fixture
def table(tmp_path: Path) -> str:
    return write_rows(tmp_path, ROWS)


def write_rows(folder: Path, rows: list[dict[str, object]]) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return f"--set=task.path={json.dumps(str(folder / 'rows.jsonl'))}"


def write_model(folder: Path, template: str) -> str:
    """Writes the embedded model with another chat template."""
    shutil.copytree(TINY_DIRECTORY, folder)
    (folder / "chat_template.jinja").write_text(template)
    return f"--set=model.name={json.dumps(str(folder))}"


def family(tmp_path: Path, name: str) -> str:
    return write_model(tmp_path / name, (TEMPLATES / f"{name}.jinja").read_text("utf-8"))


BROKEN = [
    (["--task=table", "--set=task.path=nope.jsonl"], "nope.jsonl' does not exist"),
    (["--set=task.levels=[9]"], "has no level 9"),
    (["--set=task.limit=3"], "gives 3 examples"),
    (["--reward=mine.py:fails=1"], "raised KeyError"),
    (["--reward=mine.py:text=1"], "text"),
    (["--reward=mine.py:same=1"], "constant"),
    (["--task=countdown", "--set=task.levels=[]", LONGER], "--reward countdown=1"),
    (["--set=eval.tasks=['arithmetic', 'mine.py:NoRows']"], "no held-out examples"),
]
MINE = """
def fails(completion, example):
    return example.extra["missing"]

def text(completion, example):
    return "1"

def same(completion, example):
    return 1.0

class NoRows:
    def examples(self, selection):
        return iter(())

    def gold_completion(self, example):
        return example.answer
"""


@pytest.mark.parametrize(("options", "expected"), BROKEN, ids=lambda value: str(value)[:40])
def test_what_train_would_refuse_of_data_and_rewards_ends_with_6(options, expected, cli_here, tmp_path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    outcome = cli_here(*TINY, *options, "--allow-code")
    assert outcome.code == 6
    assert [line.partition(":")[0] for line in outcome.stderr.splitlines()] == ["error", "hint"]
    assert expected in outcome.stderr
    assert "# `train` refuses this run: " in outcome.stdout
    assert "trl.GRPOConfig gets" in outcome.stdout


def test_a_row_that_cannot_be_read_is_named(cli_here, tmp_path) -> None:
    table = write_rows(tmp_path, [*ROWS, {"question": "5 + 5?"}])
    outcome = cli_here(*TINY, "--task=table", table, "--set=task.levels=[]", "--set=task.max_bad_share=0", "--json")
    assert outcome.code == 6
    assert "rows.jsonl line 201: no column 'answer'" in outcome.stderr
    (refusal,) = json.loads(outcome.stdout)["refusals"]
    assert refusal["exit_code"] == 6
    assert refusal["hint"]


def test_sound_data_is_read_and_reported(table, cli_here) -> None:
    outcome = cli_here(*TINY, "--task=table", table, "--set=task.levels=[]")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "training examples and" in outcome.stdout
    assert "refuses" not in outcome.stdout


def test_data_that_is_not_on_this_disk_is_left_to_train_and_a_note_says_so(cli_here, tmp_path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    outcome = cli_here("train", "--preset=qwen7b-a6000", "--dry-run", "--reward=mine.py:fails=1")
    assert outcome.code == 0
    assert "# note: the data is neither read nor tried: openai/gsm8k" in outcome.stdout
    assert "# note: on built-in problems: Reward 'fails' raised KeyError" in outcome.stdout


def test_prompts_beyond_the_limit_are_counted_and_refused_if_all_are(cli_here, tmp_path) -> None:
    pytest.importorskip("tokenizers")
    words = " and nothing more" * 40
    some = [{**row, "question": f"{row['question']}{words}"} if n % 4 == 0 else row for n, row in enumerate(ROWS)]
    options = (*TINY, "--task=table", "--set=task.levels=[]")
    outcome = cli_here(*options, write_rows(tmp_path, some))
    assert outcome.code == 0, outcome.stderr
    assert re.search(
        r"prompts are longer than grpo\.max_prompt_tokens=128 and left out; the longest has \d+", outcome.stdout
    )
    outcome = cli_here(*options, "--set=grpo.max_prompt_tokens=2", write_rows(tmp_path, ROWS))
    assert outcome.code == 6
    assert "prompts is longer than grpo.max_prompt_tokens=2; the shortest has" in outcome.stderr


def test_force_overrides_what_it_overrides_in_train(cli_here, tmp_path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    outcome = cli_here(*TINY, "--reward=mine.py:same=1", "--reward=boxed_answer=1", "--force")
    assert outcome.code == 0
    assert "# note: --force overrides: " in outcome.stdout
    assert cli_here(*TINY, "--task=table", "--set=task.path=nope.jsonl", "--force").code == 6


@pytest.mark.parametrize("name", ["gemma_2", "mistral_v1", "phi_3"])
@pytest.mark.parametrize("convention", ["think_boxed", "boxed"])
def test_a_family_without_a_system_role_passes_with_a_note(name, convention, cli_here, tmp_path) -> None:
    outcome = cli_here(*TINY, LONGER, family(tmp_path, name), f"--set=task.prompt={convention}")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "takes no system message: instructions are at the beginning of the user's turn" in outcome.stdout


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("qwen_3_5_no_think", r"closes the thoughts already with '<think>\n\n</think>'"),
        ("chatml_unopened", r"ignores add_generation_prompt: unless Unsloth adds '<|im_start|>assistant\n'"),
        ("smollm_3", "would change the system message in 200 of 200 prompts"),
    ],
)
def test_what_a_user_should_know_of_a_template_is_a_note(name, note, cli_here, tmp_path, table) -> None:
    options = [family(tmp_path, name), "--task=table", table, "--set=task.levels=[]", "--set=task.prompt=think_boxed"]
    outcome = cli_here(*TINY, *options, "--set=grpo.max_prompt_tokens=192")
    assert outcome.code == 0, outcome.stderr
    assert note in outcome.stdout


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{% if %}", "is broken, line 1"),
        ("{{ raise_exception('never') }}", "cannot render a question: never"),
        ("{{ messages[9].content }}", "cannot render a question"),
        ("{{ 'hello' }}", "a question is not in what it renders"),
    ],
)
@pytest.mark.parametrize(
    "command", [TINY, ("train", "--preset=tiny-cpu", "--out=run"), ("tasks", "check", "arithmetic")]
)
def test_a_broken_template_is_refused_in_two_lines_before_the_model(command, template, expected, cli_here, tmp_path):
    outcome = cli_here(*command, write_model(tmp_path / "model", template))
    assert outcome.code == 6
    assert [line.partition(":")[0] for line in outcome.stderr.splitlines()] == ["error", "hint"]
    assert expected in outcome.stderr
    assert not Path("run/metrics.jsonl").exists()


def test_a_prompt_that_the_template_refuses_is_named(cli_here, tmp_path) -> None:
    turns = [{"role": "user", "content": "Ready?"}, {"role": "user", "content": "1 + 1?"}]
    rows = [*ROWS[1:], {"question": turns, "answer": "2"}]
    outcome = cli_here(
        *TINY, family(tmp_path, "gemma_2"), "--task=table", write_rows(tmp_path, rows), "--set=task.levels=[]"
    )
    assert outcome.code == 6
    assert re.search(r"Example 'table/\w+/199': The chat template of \S+ refuses .* user, user: ", outcome.stderr)


@pytest.mark.parametrize("command", [TINY, ("train", "--preset=tiny-cpu", "--out=run")])
def test_a_tokenizer_of_another_model_is_refused_before_the_model(command, cli_here, tmp_path) -> None:
    pytest.importorskip("tokenizers")
    name = write_model(tmp_path / "model", (TINY_DIRECTORY / "chat_template.jinja").read_text())
    tokenizer = json.loads((tmp_path / "model" / "tokenizer.json").read_text())
    for token in tokenizer["added_tokens"]:
        if token["content"] == "<|im_start|>":
            token["id"] = 151_644
    tokenizer["model"]["vocab"]["<|im_start|>"] = 151_644
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(tokenizer))
    outcome = cli_here(*command, name)
    assert outcome.code == 3
    assert "token id 151644, but the model embeds" in outcome.stderr
    assert [line.partition(":")[0] for line in outcome.stderr.splitlines()] == ["error", "hint"]


def test_it_shows_the_arguments_of_the_adapter_that_is_added(cli_here) -> None:
    assert (
        "# unsloth.FastLanguageModel.get_peft_model gets\nr " in cli_here(*TINY, "--set=adapter.use_dora=true").stdout
    )
    outcome = cli_here(*TINY, "--set=adapter.peft_type=tinylora", "--set=adapter.u=4")
    assert "# peft.TinyLoraConfig gets\nr                 2\nu                 4\n" in outcome.stdout
    assert "move each by about 0.02 at most" in outcome.stdout


def test_whole_weights_are_listed_in_place_of_an_adapter(cli_here) -> None:
    settings = ["--set=trainable.method=full", "--set=trainable.layers=last:2", "--set=trainable.extra=norm"]
    shown = cli_here(*TINY, *settings)
    assert shown.code == 0, shown.stderr
    assert "get_peft_model" not in shown.stdout
    assert re.search(r"# whole weights that learn.*\nlayers +'1-2'\nmodules +'all matrices and norms'", shown.stdout)
    found = json.loads(cli_here(*TINY, *settings, "--json").stdout)
    assert found["whole_weights"]["extra"] == ["norm"]
    assert found["get_peft_model"] == {}
    assert json.loads(cli_here(*TINY, "--json").stdout)["whole_weights"] == {}


@pytest.mark.parametrize("bits", ["auto", "16"])
@pytest.mark.parametrize("command", [("profile",), ("train", "--dry-run")])
def test_whole_layers_that_learn_in_turn_over_files_in_4_bit_are_refused_in_two_lines(command, bits, cli_here) -> None:
    settings = [f"--set=model.bits={bits}", "--set=trainable.method=full", "--set=trainable.schedule=lisa"]
    outcome = cli_here(*command, "--preset=qwen7b-a6000", "--model=unsloth/Qwen2.5-7B-Instruct-bnb-4bit", *settings)
    error, hint = outcome.stderr.splitlines()
    assert (outcome.code, outcome.stdout) == (2, "")
    assert "stores its weights in 4 bit, and whole layers that learn in turn need 16" in error
    assert hint == "hint: Name the model in 16 bit, or leave the schedule out."
