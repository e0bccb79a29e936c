"""GSM8K's schema, from local files in its own shape: problems invented here, none of the data set's."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.errors import SetupError, TaskError, UnknownName
from lowmem_rl.example import Example
from lowmem_rl.models.hub import hub_cache
from lowmem_rl.rewards.reward_registry import load_reward_set
from lowmem_rl.tasks.task import Selection, Split, Task
from lowmem_rl.tasks.task_registry import load_task

DATA = Path(__file__).parents[2] / "data" / "gsm8k"
ROWS = [
    {"question": f"What is {n} and 1?", "answer": f"It is <<{n}+1={n + 1}>>{n + 1}.\n#### {n + 1}"} for n in range(5)
]


def gsm8k(path: Path | str | None) -> Task:
    return load_task(TaskConfig(name="gsm8k", path=path and str(path)))


def read(path: Path | str | None, split: Split = "train", limit: int | None = None, seed: int = 0) -> list[Example]:
    return list(gsm8k(path).examples(Selection(split, limit, seed=seed)))


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def message_of(path: Path, split: Split = "train") -> str:
    with pytest.raises(TaskError) as caught:
        read(path, split)
    assert caught.value.hint
    return str(caught.value)


@pytest.mark.parametrize(("split", "rows"), [("train", 30), ("test", 12)])
def test_every_gold_completion_pays_in_full(split: Split, rows: int) -> None:
    rewards = load_reward_set({"boxed_answer": 1.0, "any_answer": 1.0, "think_format": 1.0})
    examples = read(DATA, split)
    assert len(examples) == rows
    for example in examples:
        assert rewards.score(gsm8k(DATA).gold_completion(example), example).reward == 3


def test_a_row_becomes_an_example_without_notes_and_commas() -> None:
    example = read(DATA, "test")[2]
    assert example.id == "gsm8k/test/2"
    assert example.question == "A city plants 1100 trees a year. How many does it plant in 3 years?"
    assert example.answer == "3300"
    assert gsm8k(DATA).gold_completion(example) == "<think>It plants 1100*3=3,300 trees.</think>\\boxed{3300}"


def test_negative_answers_keep_their_sign() -> None:
    assert [e.answer for e in read(DATA, "test") if e.answer.startswith("-")] == ["-10", "-2"]


def test_train_is_shuffled_by_the_seed_and_test_keeps_its_order() -> None:
    assert read(DATA) == read(DATA)
    assert read(DATA) != read(DATA, seed=1)
    assert sorted(e.id for e in read(DATA)) == sorted(e.id for e in read(DATA, seed=1))
    assert [e.id for e in read(DATA, "test", seed=1)] == [f"gsm8k/test/{i}" for i in range(12)]


def test_a_limit_takes_the_first_of_the_order() -> None:
    assert read(DATA, limit=7) == read(DATA)[:7]


def test_a_missing_column_names_a_fix_that_exists(tmp_path: Path) -> None:
    with pytest.raises(TaskError) as caught:
        read(write_lines(tmp_path / "train.jsonl", {"problem": "Q"}))
    assert "on the hub" in caught.value.hint
    assert "tasks show" not in caught.value.hint


def test_levels_are_refused() -> None:
    with pytest.raises(TaskError, match="no levels"):
        list(gsm8k(DATA).examples(Selection("train", levels=(1,))))


def test_json_csv_and_jsonl_say_the_same(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", *ROWS)
    (tmp_path / "b.json").write_text(json.dumps(ROWS))
    with (tmp_path / "c.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["question", "answer"])
        writer.writeheader()
        writer.writerows(ROWS)
    read_files = [read(tmp_path / name) for name in ("a.jsonl", "b.json", "c.csv")]
    assert read_files[0] == read_files[1] == read_files[2]
    assert len(read_files[0]) == 5


def test_parquet_is_read_from_the_layout_that_hf_download_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").Table.from_pylist(ROWS)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = hub_cache() / "datasets--openai--gsm8k"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc123")
    files = repository / "snapshots" / "abc123" / "main"
    files.mkdir(parents=True)
    parquet.write_table(table, files / "train-00000-of-00001.parquet")
    assert len(read(None)) == 5
    assert not load_task(TaskConfig(name="gsm8k")).is_on_disk
    parquet.write_table(table, files / "test-00000-of-00001.parquet")
    assert load_task(TaskConfig(name="gsm8k")).is_on_disk
    assert load_task(TaskConfig(name="gsm8k", path="nowhere")).is_on_disk


def test_local_lines_are_read_without_loading_datasets() -> None:
    program = (
        "import sys; from lowmem_rl.config.run_config import TaskConfig; from lowmem_rl.tasks.task import Selection\n"
        "from lowmem_rl.tasks.task_registry import load_task\n"
        f"list(load_task(TaskConfig(name='gsm8k', path={str(DATA)!r})).examples(Selection('train')))\n"
        "sys.exit(bool({'datasets', 'pyarrow', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], cwd=DATA.parents[2], check=False).returncode == 0


@pytest.mark.slow
def test_data_that_is_neither_cached_nor_reachable_names_the_command_that_fetches_it() -> None:
    with pytest.raises(SetupError, match="openai/gsm8k") as caught:
        read(None)
    assert "hf download openai/gsm8k --repo-type dataset" in caught.value.hint
    assert "task.path" in caught.value.hint


def test_one_file_alone_is_its_own_split_and_the_other_is_named_as_missing(tmp_path: Path) -> None:
    train = write_lines(tmp_path / "train.jsonl", *ROWS)
    assert len(read(train)) == 5
    assert "no test split" in message_of(train, "test")
    write_lines(tmp_path / "test.jsonl", *ROWS[:2])
    assert len(read(train, "test")) == 2


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"question": "Q", "answer": ', "line 2 is not JSON"),
        ("[" * 5000, "line 2 is not JSON"),
        ("[1]", "line 2 holds list"),
        ({"problem": "Q", "answer": "#### 5"}, "line 2: no column 'question'; it has problem, answer"),
        ({"question": "Q", "solution": "5"}, "line 2: no column 'answer'; it has question, solution"),
        ({"question": 5, "answer": "#### 5"}, "line 2: column 'question' is of type int"),
        ({"question": " ", "answer": "#### 5"}, "line 2: column 'question' is empty"),
        ({"question": "Q", "answer": None}, "line 2: column 'answer' is of type NoneType"),
        ({"question": "Q", "answer": "It is 5."}, "line 2: column 'answer' needs one ####"),
        ({"question": "Q", "answer": "It is 5. #### "}, "no answer after it"),
        ({"question": "Q", "answer": "#### 5 #### 6"}, "2 of them"),
    ],
)
def test_a_bad_row_is_named_with_its_place(tmp_path: Path, line: object, said: str) -> None:
    message = message_of(write_lines(tmp_path / "data.jsonl", ROWS[0], line))
    assert said in message
    assert "data.jsonl" in message


def test_unusable_files_say_what_is_wrong(tmp_path: Path) -> None:
    assert "does not exist" in message_of(tmp_path / "nowhere")
    assert "no train split" in message_of(tmp_path)
    assert "not a data file" in message_of(write_lines(tmp_path / "data.txt", "text"))
    assert "no train rows" in message_of(write_lines(tmp_path / "empty.jsonl", ""))
    assert "no column 'answer'" in message_of(write_lines(tmp_path / "one.json", {"question": "Q"}))
    assert "more than" in message_of(write_lines(tmp_path / "long.jsonl", "x" * 1_000_001))
    assert "more fields" in message_of(write_lines(tmp_path / "wide.csv", "question,answer", "a,b,c"))
    (tmp_path / "latin.jsonl").write_bytes(b'{"question": "\xe9"}')
    assert "UTF-8" in message_of(tmp_path / "latin.jsonl") or "utf-8" in message_of(tmp_path / "latin.jsonl")


def test_an_unknown_task_offers_near_names() -> None:
    with pytest.raises(UnknownName) as caught:
        load_task(TaskConfig(name="gsm8"))
    assert "gsm8k" in caught.value.hint
