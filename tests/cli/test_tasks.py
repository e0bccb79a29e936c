import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lowmem_rl.tasks.task_registry import TASKS

EXAMPLES = Path(__file__).parents[2] / "examples"
DATA = Path(__file__).parents[1] / "data"


def test_list_has_a_line_for_each_task(cli_here):
    outcome = cli_here("tasks", "list")
    assert [line.split()[0] for line in outcome.stdout.splitlines()[1:]] == list(TASKS)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert [row["name"] for row in json.loads(cli_here("tasks", "list", "--json").stdout)] == list(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_show_tells_data_rewards_and_prompt_of_each(cli_here, name):
    page = cli_here("tasks", "show", name).stdout
    facts = json.loads(cli_here("tasks", "show", name, "--json").stdout)
    assert page.startswith(name)
    assert facts["rewards"][0] in page
    assert ("perfect completion" in page) == (facts["source"] == "generated")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["tasks list", "tasks show countdown", "tasks check arithmetic --examples 20"])
def test_a_command_that_needs_no_model_loads_none(command):
    program = (
        "import sys; from lowmem_rl_cli.app import main; code = main(sys.argv[1:])\n"
        "heavy = {'torch', 'transformers', 'datasets', 'trl', 'unsloth', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(code or bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", program, *command.split()], capture_output=True, timeout=20)
    assert done.returncode == 0


def test_the_task_of_the_examples_passes(cli_here):
    outcome = cli_here("tasks", "check", f"{EXAMPLES / 'custom_task.py'}:Larger", "--examples", "50")
    assert (outcome.code, outcome.stderr) == (0, "")


def test_check_says_that_nothing_is_wrong(cli_here):
    outcome = cli_here("tasks", "check", "gsm8k", "--set", f"task.path={DATA / 'gsm8k'}")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "30 train, 12 test; 42 golds scored" in outcome.stdout
    assert "Nothing is wrong." in outcome.stdout


def test_check_takes_the_rewards_of_the_run_where_one_is_named(cli_here):
    outcome = cli_here("tasks", "check", "countdown", "--reward", "boxed_answer=1", "--examples", "20")
    assert outcome.code == 6
    assert "none of the rewards verifies the answers" in outcome.stdout
    assert len(outcome.stderr.splitlines()) == 2


def test_check_counts_tokens_under_the_presets_tokenizer(cli_here):
    outcome = cli_here("tasks", "check", "arithmetic", "--preset", "tiny-cpu", "--examples", "20", "--json")
    report = json.loads(outcome.stdout)
    assert (outcome.code, report["lengths"]["exact"], report["lengths"]["limit"]) == (0, True, 128)
    assert report["rewards"] == ["boxed_answer", "think_format"]


def test_check_of_a_users_task_runs_it(cli_here):
    example = Path(__file__).parents[2] / "examples" / "custom_task.py"
    outcome = cli_here("tasks", "check", f"{example}:Larger", "--examples", "50")
    assert "50 train, 50 test" in outcome.stdout


def test_code_that_a_file_names_runs_when_it_is_allowed(cli_here, tmp_path):
    (tmp_path / "mine.py").write_text("from lowmem_rl.rewards.boxed import BOXED_ANSWER as mine\n")
    (tmp_path / "mine.toml").write_text('[rewards]\n"mine.py:mine" = 1.0\n')
    check = ("tasks", "check", "arithmetic", "--examples=5", "--config=mine.toml")
    refused = cli_here(*check)
    assert (refused.code, "--allow-code" in refused.stderr) == (2, True)
    assert cli_here(*check, "--allow-code").code == 0


def test_a_task_that_does_not_exist_offers_near_names(cli_here):
    for command in ("show", "check"):
        outcome = cli_here("tasks", command, "contdown")
        assert outcome.code == 2
        assert "countdown" in outcome.stderr.splitlines()[1]


def test_data_that_is_not_there_is_an_error_of_the_data(cli_here):
    outcome = cli_here("tasks", "check", "gsm8k", "--set", "task.path=nowhere")
    assert outcome.code == 6
    assert len(outcome.stderr.splitlines()) == 2


def test_check_reports_rows_that_are_left_out_and_the_levels_that_are_there(cli_here, tmp_path):
    rows = [{"q": f"{n}?", "a": n if n % 20 else "", "level": f"Level {n % 3 + 1}", "rate": n / 64} for n in range(60)]
    (tmp_path / "data.json").write_text("\n".join(map(json.dumps, rows)))
    check = ("tasks", "check", "table", "--set", "task.path=data.json", "--set", "task.eval_share=0.3")
    refused = cli_here(*check, "--set", 'task.columns=["q", "a"]')
    assert refused.code == 6
    assert refused.stderr.splitlines()[1].endswith("Or leave such rows out: task.max_bad_share=0.05.")
    tolerated = (*check, "--set", "task.max_bad_share=0.05")
    by_level = cli_here(*tolerated, "--set", 'task.columns=["q", "a", "level"]')
    assert by_level.code == 0
    assert (
        "note: 3 train rows cannot be used and are left out: data.json line 1: column 'a' is empty" in by_level.stdout
    )
    assert [line[:8] for line in by_level.stdout.splitlines() if "level" in line] == [
        "level 1 ",
        "level 2 ",
        "level 3 ",
    ]
    by_rate = cli_here(*tolerated, "--set", 'task.columns=["q", "a", "rate"]')
    assert re.search(r"^levels   \d\d from 0\.\d+ to 0\.\d+$", by_rate.stdout, re.M)
    few = cli_here(*tolerated, "--set", 'task.columns=["q", "a", "rate"]', "--set", "task.levels=[0.5, 0.25, 0.125]")
    assert "0.25" in few.stdout
    assert "no level" not in few.stderr
    none = cli_here(*tolerated, "--set", 'task.columns=["q", "a", "rate"]', "--set", "task.levels=[0.51]")
    assert "has no level 0.51" in none.stderr


def table_of(folder: Path, *answers: str) -> str:
    rows = [{"question": f"Question {n}?", "answer": answer} for n, answer in enumerate(answers)]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return f"--set=task.path={folder}"


def test_check_refuses_sentences_as_golds(cli_here, tmp_path):
    path = table_of(tmp_path, *(f"Jim has {n}. Ann has two more. So it is {2 * n + 2}." for n in range(60)))
    outcome = cli_here("tasks", "check", "table", path)
    assert outcome.code == 6
    assert "error: 60 of 60 golds are sentences, which no completion repeats, such as" in outcome.stdout


def test_check_reports_how_the_golds_were_read(cli_here, tmp_path):
    path = table_of(tmp_path, *(f"We add {n} and 2.\n#### {n + 2}" for n in range(60)))
    outcome = cli_here("tasks", "check", "table", path)
    assert (outcome.code, outcome.stderr) == (0, "")
    assert "note: 60 of 60 rows are read as task.answer=after_hashes." in outcome.stdout


def test_check_warns_of_marks_for_missing_answers(cli_here, tmp_path):
    path = table_of(tmp_path, *("proof" if n % 9 == 0 else str(n) for n in range(60)))
    outcome = cli_here("tasks", "check", "table", path)
    assert outcome.code == 0
    assert "note: 7 of 60 golds only mark that there is no answer, such as 'proof'" in outcome.stdout
