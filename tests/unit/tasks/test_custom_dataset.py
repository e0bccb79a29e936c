"""The task over a table: its columns in the forms of published sets, its levels, bad rows and held-out rows."""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.errors import ConfigError, LowMemError, TaskError
from lowmem_rl.example import Example
from lowmem_rl.rewards.reward_registry import load_reward_set
from lowmem_rl.tasks.hub_task import DataSet
from lowmem_rl.tasks.task import Selection, Split
from lowmem_rl.tasks.task_registry import load_task

VERL = {
    "data_source": "gsm8k",
    "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "What is 6 times 7?"}],
    "reward_model": {"style": "rule", "ground_truth": "42"},
    "extra_info": {"split": "train", "index": 7},
}


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def task_of(path: Path, *columns: str, **settings: Any) -> Any:
    return load_task(TaskConfig(name="table", path=str(path), prompt="bare", columns=columns, **settings))


def read(path: Path, *columns: str, split: Split = "train", **settings: Any) -> list[Example]:
    examples = task_of(path, *columns, **settings).examples(Selection(split))
    return sorted(examples, key=lambda example: int(example.id.split("/")[-1]))


def one(tmp_path: Path, row: dict[str, Any], *columns: str) -> Example:
    write(tmp_path / "test.jsonl", [row])  # else the row may be held out
    return read(write(tmp_path / "train.jsonl", [row]), *columns)[0]


def refusal(tmp_path: Path, row: dict[str, Any], *columns: str) -> tuple[str, str]:
    with pytest.raises(LowMemError) as caught:
        one(tmp_path, row, *columns)
    return str(caught.value), caught.value.hint


def test_verls_rows_are_read_by_paths_from_lines_parquet_and_a_table_of_texts(tmp_path: Path) -> None:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    for folder in ("lines", "parquet", "csv"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "lines" / "train.jsonl", [VERL])
    parquet.write_table(pyarrow.Table.from_pylist([VERL]), tmp_path / "parquet" / "train.parquet")
    texts = ["'" + json.dumps(VERL[name]).replace("'", "''") + "'" for name in ("prompt", "reward_model", "extra_info")]
    csv = "prompt;reward_model;extra_info\n" + ";".join(texts).replace('"', '""').replace("'", '"') + "\n"
    (tmp_path / "csv" / "train.csv").write_text(csv)
    for folder in ("lines", "parquet", "csv"):
        example = read(tmp_path / folder, "prompt", "reward_model.ground_truth", "extra_info.index")[0]
        assert (list(example.prompt), example.answer, example.level) == (VERL["prompt"], "42", 7)


@pytest.mark.parametrize(
    ("row", "columns", "question", "answer"),
    [
        ({"a.b": "Q", "a": {"b": "R"}, "c": 1}, ("a.b", "c"), "Q", "1"),
        ({"a": {"b": {"c": "Q"}}, "d": [{"e": 1}, {"e": 2}]}, ("a.b.c", "d.-1.e"), "Q", "2"),
        ({"q": "Q", "answers": {"text": ["5"], "start": [0]}}, ("q", "answers.text"), "Q", "5"),
        (
            {"instruction": "Add.", "input": "1 and 2", "output": 3},
            ("instruction+input", "output"),
            "Add.\n\n1 and 2",
            "3",
        ),
        ({"instruction": "Say 3.", "input": "", "output": 3}, ("instruction+input", "output"), "Say 3.", "3"),
        ({"instruction": "Say 3.", "input": None, "output": 3}, ("instruction+input", "output"), "Say 3.", "3"),
        ({"Body": "A.", "Question": "B?", "Answer": 145.0}, ("Body+Question", "Answer"), "A.\n\nB?", "145"),
        ({"a": {"x": "A.", "y": "B?"}, "z": "1"}, ("a.x+a.y", "z"), "A.\n\nB?", "1"),
        ({"a+b": "Q", "c": 1}, ("a+b", "c"), "Q", "1"),
    ],
)
def test_a_column_is_a_name_a_path_or_several_joined(
    row: dict[str, Any], columns: tuple[str, ...], question: str, answer: str, tmp_path: Path
) -> None:
    example = one(tmp_path, row, *columns)
    assert (example.question, example.answer) == (question, answer)


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "user", "content": "1?"}],
        [{"from": "human", "value": "1?"}],
        [{"from": "human", "value": "1?"}, {"from": "gpt", "value": "It is 1."}],
        [{"role": "user", "content": "1?"}, {"role": "assistant", "content": "It is 1."}],
        [{"role": "user", "content": [{"type": "text", "text": "1"}, {"type": "text", "text": "?"}]}],
        [{"role": "USER", "content": "1?", "name": "Ann", "weight": None}],
        json.dumps([{"role": "user", "content": "1?"}]),
    ],
)
def test_a_conversation_has_one_form(turns: Any, tmp_path: Path) -> None:
    example = one(tmp_path, {"turns": turns, "gold": 1}, "turns", "gold")
    assert example.prompt == ({"role": "user", "content": "1?"},)


def test_sharegpts_roles_and_its_answer(tmp_path: Path) -> None:
    talk = [("system", "Be brief."), ("human", "1?"), ("gpt", "1"), ("human", "2?"), ("gpt", "2")]
    row = {"conversations": [{"from": role, "value": text} for role, text in talk]}
    example = one(tmp_path, row, "conversations", "conversations.-1.value")
    assert [turn["role"] for turn in example.prompt] == ["system", "user", "assistant", "user"]
    assert (example.question, example.answer) == ("2?", "2")


@pytest.mark.parametrize(
    ("turns", "said"),
    [
        ([], "is []"),
        ({"role": "user", "content": "1?"}, "of type dict"),
        ([{"role": "assistant", "content": "1"}], "is not the user's"),
        ([{"role": "tool", "content": "1"}, {"role": "user", "content": "1?"}], "is not a message"),
        ([{"role": "user", "content": [{"type": "image", "url": "x.png"}]}], "is not a message"),
        ([{"role": "user", "content": " "}], "is not a message"),
        ([{"role": "user", "content": "half \ud800"}], "is not a message"),
        ([["user", "1?"]], "is not a message"),
    ],
)
def test_a_conversation_that_cannot_be_one_is_refused(turns: Any, said: str, tmp_path: Path) -> None:
    assert said in refusal(tmp_path, {"turns": turns, "gold": 1}, "turns", "gold")[0]


@pytest.mark.parametrize(
    ("gold", "golds"),
    [
        (["1/2", "0.5"], ("1/2", "0.5")),
        ([1, 2.0, 2], ("1", "2")),
        ('["1/2", "0.5"]', ("1/2", "0.5")),
        ("['1/2', '0.5']", ("1/2", "0.5")),
        ("['1/2' \"0.5\"\n '7']", ("1/2", "0.5", "7")),
        (["5", "", None], ("5",)),
        ("[1, 2]", ("[1, 2]",)),
    ],
)
def test_any_answer_of_a_list_is_right(gold: Any, golds: tuple[str, ...], tmp_path: Path) -> None:
    example = one(tmp_path, {"question": "Q", "answer": gold}, "question", "answer")
    assert example.golds == golds
    rewards = load_reward_set({"boxed_answer": 1.0, "any_answer": 1.0})
    for answer in golds:
        assert rewards.score(f"\\boxed{{{answer}}}", example).reward == 2
    assert rewards.score("\\boxed{77}", example).reward == 0


@pytest.mark.parametrize("gold", [[], [[1]], [None], {"target": 5}, True, None, "", float("inf"), ["1", "\\frac{1}{2"]])
def test_what_is_no_answer_is_refused(gold: Any, tmp_path: Path) -> None:
    assert "answer" in refusal(tmp_path, {"question": "Q", "answer": gold}, "question", "answer")[0]


def test_an_answer_that_has_parts_names_one(tmp_path: Path) -> None:
    row = {"question": "Q", "reward_model": {"ground_truth": {"target": 5}}}
    _, fix = refusal(tmp_path, row, "question", "reward_model.ground_truth")
    assert "reward_model.ground_truth.target" in fix


@pytest.mark.parametrize(
    ("row", "fix"),
    [
        (VERL, '["prompt", "reward_model.ground_truth"]'),
        ({"problem": "Q", "solution": "5"}, '["problem", "solution"]'),
        ({"instruction": "Q", "input": "", "output": "5"}, '["instruction+input", "output"]'),
        ({"Body": "Q", "Question": "?", "Answer": 5}, '["Body+Question", "Answer"]'),
        ({"conversations": [], "ground_truth": "5"}, '["conversations", "ground_truth"]'),
        (
            {"messages": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "5"}]},
            '["messages", "messages.-1.content"]',
        ),
        (
            {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "5"}]},
            '["conversations", "conversations.-1.value"]',
        ),
        ({"conversations": [{"from": "human", "value": "Q"}]}, "or name others"),
        ({"x": "Q", "y": "5"}, "or name others"),
    ],
)
def test_columns_of_other_names_are_suggested(row: dict[str, Any], fix: str, tmp_path: Path) -> None:
    assert fix in refusal(tmp_path, row, "title", "text of the answer")[1]


def test_a_path_that_leads_nowhere_says_how_far_it_leads(tmp_path: Path) -> None:
    said, _ = refusal(tmp_path, VERL, "prompt", "reward_model.truth")
    assert "no column 'reward_model.truth'; 'reward_model' has style, ground_truth" in said


def test_five_bad_rows_of_sixty_are_left_out_if_that_is_tolerated(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "answer": None if n % 12 == 3 else n} for n in range(60)]
    path = write(tmp_path / "train.jsonl", rows)
    with path.open("a") as file:
        file.write("not JSON\n")
    with pytest.raises(
        TaskError, match=r"line 4: column 'answer' is of type NoneType. Also unusable: .*\(5 rows\)"
    ) as e:
        read(path, "question", "answer")
    assert e.value.hint.endswith("task.max_bad_share=0.099.")
    task = task_of(path, "question", "answer", max_bad_share=0.099)
    assert len([*task.examples(Selection("train")), *task.examples(Selection("test"))]) == 55
    assert (len(task.left_out("train")), task.left_out("test")) == (6, [])
    assert task.left_out("train")[-1].startswith("train.jsonl line 61 is not JSON")


def test_a_table_whose_rows_are_mostly_bad_is_not_to_be_tolerated(tmp_path: Path) -> None:
    _, fix = refusal(tmp_path, {"question": "Q", "answer": ""}, "question", "answer")
    assert "max_bad_share" not in fix


def test_every_task_over_data_takes_the_shares(tmp_path: Path) -> None:
    rows = [{"problem": f"{n}?", "answer": n if n % 10 else None} for n in range(1000)]
    path = write(tmp_path / "all.jsonl", rows)
    task = load_task(TaskConfig(name="deepscaler", path=str(path), max_bad_share=0.1, eval_share=0.3))
    assert isinstance(task, DataSet)
    assert "0.3 of its rows" in task.held_out
    train, test = (list(task.examples(Selection(split))) for split in ("train", "test"))
    assert len(train) + len(test) == 900
    assert 230 < len(test) < 310
    with pytest.raises(ConfigError, match="eval_share is 0.3, but task 'arithmetic' generates its problems"):
        load_task(TaskConfig(name="arithmetic", eval_share=0.3))


def test_a_share_is_not_held_out_of_data_that_has_held_out_rows(tmp_path: Path) -> None:
    for name in ("train", "test"):
        write(tmp_path / f"{name}.jsonl", [{"question": name, "answer": "5"}])
    with pytest.raises(ConfigError, match="eval_share is 0.2, but the data has held-out rows"):
        read(tmp_path, "question", "answer", eval_share=0.2)


@pytest.mark.parametrize(
    "name", ["test.jsonl", "valid.jsonl", "validation.csv", "val.tsv", "dev.jsonl.gz", "eval.json"]
)
@pytest.mark.parametrize("path", [".", "train.jsonl", "mine.jsonl"])
def test_held_out_rows_next_to_the_training_rows_are_found(name: str, path: str, tmp_path: Path) -> None:
    content = "question,answer\nHeld?,5\n"
    content = content.replace(",", "\t") if ".tsv" in name else content
    content = content if ".csv" in name or ".tsv" in name else '{"question": "Held?", "answer": "5"}\n'
    data = content.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    write(tmp_path / ("mine.jsonl" if path == "mine.jsonl" else "train.jsonl"), [{"question": "Q", "answer": "5"}])
    write(tmp_path / "dataset_info.json", [{"splits": "train"}])
    for split, question in (("train", "Q"), ("test", "Held?")):
        assert [example.question for example in read(tmp_path / path, "question", "answer", split=split)] == [question]


def test_a_folder_without_a_training_file_says_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.csv"):
        (tmp_path / name).touch()
    with pytest.raises(TaskError, match=r"holds a.jsonl, b.csv, and no train.jsonl") as caught:
        read(tmp_path, "question", "answer")
    assert "task.path" in caught.value.hint
