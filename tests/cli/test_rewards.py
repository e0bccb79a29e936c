"""`lowmem-rl rewards`: list, check, score."""

import json
import runpy
from pathlib import Path

import pytest

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.rewards.adversarial_cases import RewardCase
from lowmem_rl.rewards.reward import Reward
from lowmem_rl.rewards.reward_check import check_rewards
from lowmem_rl.rewards.reward_registry import REWARDS, load_reward_set
from lowmem_rl.tasks.task import Selection
from lowmem_rl.tasks.task_registry import load_task

DATA = Path(__file__).parents[1] / "data"
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_list_has_a_line_for_each_reward(cli_here) -> None:
    outcome = cli_here("rewards", "list")
    assert [line.split()[0] for line in outcome.stdout.splitlines()[1:]] == list(REWARDS)
    assert (outcome.code, outcome.stderr) == (0, "")


def test_list_as_json_has_range_kind_and_need(cli_here) -> None:
    rows = {row["name"]: row for row in json.loads(cli_here("rewards", "list", "--json").stdout)}
    assert all(row["pays"] and row["low"] < row["high"] for row in rows.values())
    assert {name for name, row in rows.items() if row["needs_model"]} == {
        "cosine_length", "perplexity", "perplexity_signed", "soft_overlong",
    }  # fmt: skip


def test_all_of_ours_pass_their_check(cli_here) -> None:
    outcome = cli_here("rewards", "check")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert [line.split()[0] for line in outcome.stdout.splitlines()] == list(REWARDS)


def test_a_preset_is_checked_with_its_task_and_template(cli_here) -> None:
    outcome = cli_here("rewards", "check", "--preset=tiny-cpu", "--json")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert json.loads(outcome.stdout)["findings"] == []


def test_a_reward_that_cannot_be_earned_on_a_preset_is_named(cli_here) -> None:
    outcome = cli_here("rewards", "check", "--preset=tiny-cpu", "--reward=boxed_answer", "--reward=answer_tags=0.5")
    assert outcome.code == 6
    assert "answer_tags             never-full: pays" in outcome.stdout
    assert "hint:" in outcome.stderr


def test_a_users_broken_reward_is_refused_with_the_finding(cli_here, tmp_path) -> None:
    (tmp_path / "mine.py").write_text(
        "def lazy(completion, example):\n    return float(example.answer in completion)\n"
    )
    outcome = cli_here("rewards", "check", "--reward=mine.py:lazy", "--json")
    assert outcome.code == 6
    (finding,) = json.loads(outcome.stdout)["findings"]
    assert (finding["reward"], finding["fault"]) == ("lazy", "blind")
    assert outcome.stderr.startswith("error: Reward 'lazy' pays 1 for ")


@pytest.mark.slow
def test_a_function_in_trls_form_is_checked_and_its_faults_are_notes(cli_here) -> None:
    name = f"{EXAMPLES / 'trl_rewards.py'}:strict_format_reward_func"
    outcome = cli_here("rewards", "check", f"--reward={name}", "--preset=tiny-cpu")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert outcome.stdout.startswith("strict_format_reward_func  note: constant: pays 0 for each of ")
    finding = json.loads(cli_here("rewards", "check", f"--reward={name}", "--json").stdout)["findings"][0]
    assert (finding["level"], finding["fault"]) == ("note", "constant")


REWARDS_OF_EXAMPLES = [
    f"{file}:{name}"
    for file in sorted(EXAMPLES.glob("custom_*.py"))
    for name, value in runpy.run_path(str(file)).items()
    if isinstance(value, Reward)
]


@pytest.mark.slow
@pytest.mark.parametrize("name", REWARDS_OF_EXAMPLES)
@pytest.mark.parametrize("options", [[], ["--preset=tiny-cpu"], ["--preset=qwen1.5b-a6000"]])
def test_the_rewards_of_the_examples_pass(cli_here, name: str, options: list[str]) -> None:
    outcome = cli_here("rewards", "check", f"--reward={name}", *options)
    assert (outcome.code, "error" in outcome.stderr) == (0, False)


@pytest.mark.slow
@pytest.mark.parametrize("name", REWARDS_OF_EXAMPLES)
def test_the_rewards_of_the_examples_pass_on_word_problems(name: str) -> None:
    task = load_task(TaskConfig(name="gsm8k", path=str(DATA / "gsm8k")))
    cases = [RewardCase(e, task.gold_completion(e)) for e in task.examples(Selection("train", 8))]
    assert check_rewards(load_reward_set({name: 1.0}), cases) == []


@pytest.mark.parametrize("name", ["boxed_anser", "boxed_answer=much", "boxed_answer=nan"])
def test_a_bad_name_or_weight_is_usage(cli_here, name: str) -> None:
    assert cli_here("rewards", "check", f"--reward={name}").code == 2


def write(tmp_path, *lines: str) -> str:
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return "rows.jsonl"


def test_a_row_comes_back_with_its_score(cli_here, tmp_path) -> None:
    rows = [
        {"answer": "5", "completion": "<think></think>\\boxed{5}", "note": [1, {"a": None}], "id": 7},
        {"completion": "\\boxed{6}", "answer": "5", "score": 0.5},
        {"answer": "5", "completion": "\ud800 é \0"},
    ]
    file = write(tmp_path, json.dumps(rows[0]), "", *map(json.dumps, rows[1:]))
    outcome = cli_here("rewards", "score", file, "--reward=boxed_answer")
    assert (outcome.code, outcome.stderr) == (0, "")
    scored = [json.loads(line) for line in outcome.stdout.splitlines()]
    assert scored == [row | {"score": score} for row, score in zip(rows, (1.0, 0.0, 0.0), strict=True)]


@pytest.mark.slow
def test_a_row_whose_verdict_was_late_is_marked_and_counted(cli, tmp_path) -> None:
    pytest.importorskip("math_verify")
    rows = [{"answer": gold, "completion": "\\boxed{7}"} for gold in ("\\sum_{n=1}^{10^8} \\sin n", "7")]
    outcome = cli("rewards", "score", write(tmp_path, *map(json.dumps, rows)), "--reward=boxed_answer")
    late, right = map(json.loads, outcome.stdout.splitlines())
    assert (late["score"], late["late"], right["score"], "late" in right) == (0.0, True, 1.0, False)
    assert outcome.stderr.startswith("1 verdict took too long")


def test_a_tasks_own_fields_are_what_its_reward_reads(cli_here, tmp_path) -> None:
    numbers = {"numbers": [1, 2, 3], "target": 9}
    row = {"answer": "9", "completion": "<answer>3 * (1 + 2)</answer>"}
    file = write(tmp_path, json.dumps(row | numbers), json.dumps(row | {"extra": numbers}))
    outcome = cli_here("rewards", "score", file, "--reward=countdown")
    assert [json.loads(line)["score"] for line in outcome.stdout.splitlines()] == [1.0, 1.0]


@pytest.mark.parametrize(
    "row",
    [
        {"answer": 5, "completion": "\\boxed{5}"},
        {"answer": 5.0, "completion": "\\boxed{5}"},
        {"answer": ["5"], "completion": "\\boxed{5}"},
        {"ground_truth": "5", "response": "\\boxed{5}"},
        {"reward_model": {"ground_truth": 5}, "output": "\\boxed{5}"},
        {"solution": "5", "generation": ["\\boxed{5}"]},
        {"answer": "5", "completion": [{"role": "assistant", "content": "\\boxed{5}"}]},
        {"answer": "5", "completion": "\\boxed{5}", "prompt": [{"role": "user", "content": "2 + 3?"}]},
    ],
)
def test_a_row_is_read_as_tasks_and_other_projects_write_it(cli_here, tmp_path, row) -> None:
    outcome = cli_here("rewards", "score", write(tmp_path, json.dumps(row)), "--reward=boxed_answer")
    assert (outcome.code, outcome.stderr) == (0, "")
    assert json.loads(outcome.stdout) == row | {"score": 1.0}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", "answer,completion\n5,\\boxed{5}\n6,\\boxed{5}\n"),
        ("rows.json", '[{"answer": 5, "completion": "\\\\boxed{5}"}, {"answer": 6, "completion": "5"}]'),
    ],
)
def test_a_table_is_scored_as_a_task_reads_it(cli_here, tmp_path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    outcome = cli_here("rewards", "score", name, "--reward=boxed_answer")
    assert [json.loads(row)["score"] for row in outcome.stdout.splitlines()] == [1.0, 0.0]


def test_rows_are_one_call_of_a_function_in_trls_form(cli_here, tmp_path) -> None:
    (tmp_path / "mine.py").write_text(
        "def many(completions, note, **kwargs):\n    return [len(set(note))] * len(note)\n"
    )
    rows = [json.dumps({"answer": "5", "completion": "", "note": n}) for n in range(10)]
    outcome = cli_here("rewards", "score", write(tmp_path, *rows), "--reward=mine.py:many")
    assert {json.loads(row)["score"] for row in outcome.stdout.splitlines()} == {10.0}


@pytest.mark.slow
def test_a_reward_that_hangs_is_given_up_after_three_rows(cli_here, tmp_path) -> None:
    (tmp_path / "mine.py").write_text("def hangs(completion, example):\n    while completion: pass\n    return 1.0\n")
    rows = [json.dumps({"answer": "5", "completion": "5" * (n > 0)}) for n in range(9)]
    outcome = cli_here("rewards", "score", write(tmp_path, *rows), "--reward=mine.py:hangs", "--timeout=0.5")
    assert outcome.code == 6
    assert [json.loads(row)["score"] for row in outcome.stdout.splitlines()] == [1.0]
    assert "takes longer than 0.5 s for one completion (example 'rows.jsonl line 3'" in outcome.stderr
    assert "hangs on 3 rows" in outcome.stderr
    assert "--timeout" in outcome.stderr


def test_a_skipped_score_is_null(cli_here, tmp_path) -> None:
    file = write(tmp_path, json.dumps({"answer": "5", "completion": "5"}))
    outcome = cli_here("rewards", "score", file, "--reward=language_consistency")
    assert json.loads(outcome.stdout)["score"] is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ('{"answer": NaN, "completion": ""}', "NaN is not a JSON number"),
        ("9" * 5000, "is not JSON"),
        ("[1]", "holds list"),
        ('{"answer": "5"}', "has no 'completion'; it has answer"),
        ('{"answer": true, "completion": "5"}', "'answer' is bool, not text"),
        ('{"answer": ["5", {}], "completion": "5"}', "'answer' is dict, not text"),
        ('{"answer": "5", "completion": null}', "'completion' is NoneType, not text"),
        ('{"answer": " ", "completion": ""}', "'answer' is empty"),
    ],
)
def test_a_hostile_row_is_named_by_its_line_and_costs_only_itself(cli_here, tmp_path, line: str, message: str) -> None:
    good = json.dumps({"answer": "5", "completion": "\\boxed{5}"})
    outcome = cli_here("rewards", "score", write(tmp_path, good, line, good), "--reward=boxed_answer")
    assert outcome.code == 6
    assert [json.loads(row)["score"] for row in outcome.stdout.splitlines()] == [1.0, 1.0]
    assert "1 of 3 rows were not scored" in outcome.stderr
    assert f"rows.jsonl line 2{':' if message.startswith(chr(39)) else ''} " in outcome.stderr
    assert message in outcome.stderr


def test_a_reward_that_fails_is_named_with_the_line(cli_here, tmp_path) -> None:
    file = write(tmp_path, json.dumps({"answer": "5", "completion": "\\boxed{5}"}))
    outcome = cli_here("rewards", "score", file, "--reward=countdown")
    assert outcome.code == 6
    assert "'countdown'" in outcome.stderr
    assert "rows.jsonl line 1" in outcome.stderr


def test_a_users_reward_cannot_end_the_command(cli_here, tmp_path) -> None:
    (tmp_path / "mine.py").write_text("import os\ndef ends(completion, example):\n    os._exit(0)\n")
    file = write(tmp_path, json.dumps({"answer": "5", "completion": "\\boxed{5}"}))
    outcome = cli_here("rewards", "score", file, "--reward=mine.py:ends")
    assert outcome.code == 6
    assert "ended the process that tried it, with exit code 0 (example 'rows.jsonl line 1'" in outcome.stderr


def test_a_reward_that_needs_the_model_says_so(cli_here, tmp_path) -> None:
    file = write(tmp_path, json.dumps({"answer": "5", "completion": "\\boxed{5}"}))
    outcome = cli_here("rewards", "score", file, "--reward=perplexity")
    assert outcome.code == 6
    assert "needs the model" in outcome.stderr


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_a_data_error(cli_here, tmp_path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "rows.jsonl").write_bytes(content)
    outcome = cli_here("rewards", "score", "rows.jsonl", "--reward=boxed_answer")
    assert outcome.code == 6
    assert outcome.stderr.startswith("error: ")


def test_rows_are_scored_as_they_come(cli, tmp_path) -> None:
    lines = [json.dumps({"answer": "5", "completion": f"\\boxed{{{n % 7}}}"}) for n in range(2000)]
    outcome = cli("rewards", "score", write(tmp_path, *lines), "--reward=any_answer")
    assert outcome.code == 0
    assert sum(json.loads(line)["score"] for line in outcome.stdout.splitlines()) == sum(
        n % 7 == 5 for n in range(2000)
    )


def test_score_takes_the_answer_out_of_a_worked_solution(cli_here, tmp_path) -> None:
    golds = ("2 + 3\n#### 5", "So it is $\\boxed{5}$.", "We add. The answer is: 5", "5")
    rows = (json.dumps({"answer": gold, "completion": "\\boxed{5}"}) for gold in golds)
    outcome = cli_here("rewards", "score", write(tmp_path, *rows), "--reward=boxed_answer")
    assert [json.loads(line)["score"] for line in outcome.stdout.splitlines()] == [1.0] * 4
