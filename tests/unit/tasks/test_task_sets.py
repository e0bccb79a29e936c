"""Each published set's schema, from small files in its exact shape: problems invented here, none of the sets'."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.config.run_config import TaskConfig
from lowmem_rl.errors import ConfigError, TaskError
from lowmem_rl.example import Example
from lowmem_rl.models.hub import hub_cache
from lowmem_rl.rewards.reward_registry import load_reward
from lowmem_rl.tasks.task import Selection, Split
from lowmem_rl.tasks.task_registry import load_task, load_task_class

DATA = Path(__file__).parents[2] / "data"


def read(name: str, split: Split = "train", path: Path | None = None, **settings: Any) -> list[Example]:
    config = TaskConfig(name=name, path=str(path or DATA / name), **settings)
    return sorted(load_task(config).examples(Selection(split)), key=lambda example: int(example.id.split("/")[-1]))


def rows_of(name: str, split: str = "train") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name / f"{split}.jsonl").read_text().splitlines()]


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def refused(name: str, tmp_path: Path, **changes: Any) -> str:
    """Returns what is said of a file whose second row has these changes."""
    row = rows_of(name)[0]
    with pytest.raises(TaskError) as caught:
        read(name, path=write(tmp_path / "train.jsonl", row, row | changes))
    assert caught.value.hint
    return str(caught.value)


def test_math_takes_the_last_box_and_the_level() -> None:
    examples = read("math")
    square = examples[2]
    assert (square.answer, square.level) == (str(int(square.question.split("\\sqrt{")[1].split("}")[0]) // 2), 3)
    assert [example.answer for example in examples if "modulo" in example.question] == ["3", "3", "3"]
    assert (examples[1].answer[:6], examples[3].answer[0]) == ("\\frac{", "(")
    assert examples[0].extra["subject"] == "Algebra"


def test_a_problem_without_a_known_level_has_none_and_drops_out_of_a_choice() -> None:
    assert [example.level for example in read("math")] == [1, 2, 3, 4, 5] * 2 + [1, 2, 3, 4, None]
    task = load_task(TaskConfig(name="math", path=str(DATA / "math")))
    assert {example.level for example in task.examples(Selection("train", levels=(4, 5)))} == {4, 5}
    with pytest.raises(TaskError, match="no level 6"):
        list(task.examples(Selection("train", levels=(6,))))


def test_math_500_is_judged_by_its_answers_and_learns_from_math() -> None:
    held_out, trained = read("math500", "test"), read("math500")
    assert [example.answer for example in held_out] == [row["answer"] for row in rows_of("math500", "test")]
    assert {example.level for example in held_out} == {1, 2, 3, 4, 5}
    assert trained[0].question == rows_of("math500")[0]["problem"]


def test_two_empty_boxes_of_thousands_are_left_out_and_reported(tmp_path: Path) -> None:
    row = rows_of("math")[0]
    rows = [row | {"problem": f"What is {n}?"} for n in range(2000)]
    rows[7] |= {"solution": "So it is $\\boxed{}$."}
    path = write(tmp_path / "train.jsonl", *rows)
    assert len(read("math", path=path)) == 1999
    task = load_task_class("math")(convention="boxed", path=str(path))
    assert task.left_out("train") == ["train.jsonl line 8: its solution boxes no answer."]


def test_a_bad_row_in_a_small_file_is_refused_and_the_others_are_named(tmp_path: Path) -> None:
    good, bad = rows_of("math")[0], rows_of("math")[0] | {"solution": "It is 5."}
    with pytest.raises(TaskError, match="line 2: its solution boxes no answer. Also unusable: .* line 3 .1 rows") as e:
        read("math", path=write(tmp_path / "train.jsonl", good, bad, bad))
    assert "boxed{42}" in e.value.hint


def test_a_conversation_stays_as_it_is_under_its_own_convention() -> None:
    row, example = rows_of("rlvr_gsm")[0], read("rlvr_gsm", prompt="bare")[0]
    assert list(example.prompt) == [{"role": "user", "content": row["messages"][0]["content"]}]
    assert example.answer == row["ground_truth"]
    assert read("rlvr_gsm", prompt="boxed")[0].prompt[0]["role"] == "system"


def test_rows_of_other_sources_are_left_aside_and_lists_of_one_are_read(tmp_path: Path) -> None:
    assert len(rows_of("rlvr_math")) == 9
    assert len(read("rlvr_math")) == 8
    listed = rows_of("rlvr_gsm")[0] | {"ground_truth": ["12"], "dataset": ["gsm8k"]}
    assert read("rlvr_gsm", path=write(tmp_path / "train.jsonl", listed))[0].answer == "12"


def test_the_sanity_test_asks_for_a_box_itself_and_is_held_out_by_its_own_rows() -> None:
    row, example = rows_of("sanity_math")[0], read("sanity_math", prompt="bare")[0]
    assert (list(example.prompt), example.answer) == (row["prompt"], row["reward_model"]["ground_truth"])
    assert len(read("sanity_math", "test")) == len(rows_of("sanity_math", "test"))


def test_countdown_holds_what_its_checker_needs() -> None:
    row, example = rows_of("countdown_hub")[0], read("countdown_hub")[0]
    assert (example.extra["numbers"], example.extra["target"]) == (tuple(row["nums"]), row["target"])
    assert example.level == len(row["nums"])
    assert str(row["nums"]) in example.question


def test_only_mathematics_with_an_answer_is_taken() -> None:
    assert {row["domain"] for row in rows_of("open_thoughts")} == {"math", "code"}
    assert len(read("open_thoughts")) == 8
    assert {row["question_type"] for row in rows_of("openr1_math")} == {"math-word-problem", "MCQ", "proof"}
    assert len(read("openr1_math")) == 8


def test_difficulties_become_levels() -> None:
    assert [row["difficulty"] for row in rows_of("deepmath")[:5]] == [-1.0, 3.0, 4.5, 6.0, 8.5]
    assert [example.level for example in read("deepmath")[:5]] == [None, 3, 4, 6, 8]


def test_hellaswag_by_choice_asks_for_the_letter_of_the_right_ending() -> None:
    row, example = rows_of("hellaswag")[1], read("hellaswag")[1]
    assert example.answer == "ABCD"[int(row["label"])]
    assert f"{example.answer}. {row['endings'][int(row['label'])]}" in example.question
    assert example.question.startswith("Riding a bicycle: A boy climbs onto a bicycle. He ...")


def test_hellaswag_in_free_words_shows_no_ending() -> None:
    rows, examples = rows_of("hellaswag"), read("hellaswag_free", path=DATA / "hellaswag")
    for row, example in zip(rows, examples, strict=True):
        assert example.answer == row["endings"][int(row["label"])]
        assert not any(ending in example.question for ending in row["endings"])


def test_hellaswag_is_held_out_by_its_validation_rows_as_its_test_has_no_labels() -> None:
    assert len(rows_of("hellaswag", "test")) == 1
    assert len(read("hellaswag", "test")) == 6
    assert not {e.question for e in read("hellaswag")} & {e.question for e in read("hellaswag", "test")}


def test_hellaswag_reads_a_file_with_the_whole_scene_only(tmp_path: Path) -> None:
    row = {"ctx": "[header] How to wait [title] Sit down.", "endings": ["Rise.", "Wait."], "label": 1}
    example = read("hellaswag", path=write(tmp_path / "train.jsonl", row))[0]
    assert example.question.startswith("How to wait. Sit down. ...")
    assert example.answer == "B"


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("math", {"problem": None}, "column 'problem' is of type NoneType"),
        ("math", {"solution": "So \\boxed{\\frac{1}{2}"}, "boxes no answer"),
        ("deepscaler", {"answer": ""}, "column 'answer' is empty"),
        ("deepscaler", {"answer": "\\boxed{}"}, "is empty"),
        ("deepscaler", {"answer": "9" * 5000}, "is longer than"),
        ("deepscaler", {"answer": "\\frac{1}{2"}, "braces"),
        ("deepscaler", {"answer": ["1", "2"]}, "of type list"),
        ("deepscaler", {"answer": float("nan")}, "is nan"),
        ("rlvr_gsm", {"messages": []}, "column 'messages' is"),
        ("rlvr_gsm", {"messages": [{"role": "robot", "content": "Q"}]}, "is not a message"),
        ("rlvr_gsm", {"messages": [{"role": "assistant", "content": "A"}]}, "is not the user's"),
        ("rlvr_gsm", {"ground_truth": []}, "of type list"),
        ("countdown_hub", {"nums": [1, "2"]}, "column 'nums' is"),
        ("countdown_hub", {"nums": list(range(9))}, "holds 9 numbers"),
        ("countdown_hub", {"target": 1.5}, "column 'target' is 1.5"),
        ("hellaswag", {"label": ""}, "column 'label' is ''"),
        ("hellaswag", {"label": "4"}, "label 4 names none of its 4 endings"),
        ("hellaswag", {"endings": "none"}, "column 'endings' is"),
    ],
)
def test_an_unusable_row_is_named_with_its_place(name: str, changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    message = refused(name, tmp_path, **changes)
    assert "train.jsonl line 2" in message
    assert said in message


@pytest.mark.parametrize(
    ("answer", "text"), [(27.0, "27"), (-3, "-3"), (0.5, "0.5"), (" 7 ", "7"), (["12"], "12"), ("3/4", "3/4")]
)
def test_numbers_and_lists_of_one_are_answers_too(answer: Any, text: str, tmp_path: Path) -> None:
    row = rows_of("deepscaler")[0] | {"answer": answer}
    assert read("deepscaler", path=write(tmp_path / "train.jsonl", row))[0].answer == text


def test_a_set_without_held_out_rows_keeps_some_that_training_never_sees(tmp_path: Path) -> None:
    row = rows_of("deepscaler")[0]
    rows = [row | {"problem": f"What is {n % 900} and 1?"} for n in range(1000)]  # some occur twice
    write(tmp_path / "all.jsonl", *rows)
    train, test = (read("deepscaler", split, tmp_path) for split in ("train", "test"))
    assert len(train) + len(test) == 1000
    assert 20 < len(test) < 90
    assert not {e.question for e in train} & {e.question for e in test}
    assert not {e.id for e in train} & {e.id for e in test}


def test_the_same_numbers_in_another_order_are_held_out_together(tmp_path: Path) -> None:
    rows = [{"target": t, "nums": nums} for t in range(1, 200) for nums in ([t, 2, 2], [2, t, 2])]
    write(tmp_path / "all.jsonl", *rows)
    train, test = (read("countdown_hub", split, tmp_path) for split in ("train", "test"))
    groups = [{(tuple(sorted(e.extra["numbers"])), e.answer) for e in split} for split in (train, test)]
    assert test
    assert not groups[0] & groups[1]


@pytest.mark.parametrize(
    ("name", "repository", "train", "test"),
    [
        ("math", "DigitalLearningGmbH/MATH-lighteval", "data/train-00000-of-00001", "data/test-00000-of-00001"),
        ("rlvr_gsm", "allenai/RLVR-GSM", "data/train-00000-of-00001", "data/test-00000-of-00001"),
        ("hellaswag", "Rowan/hellaswag", "data/train-00000-of-00001", "data/validation-00000-of-00001"),
        ("open_thoughts", "open-thoughts/OpenThoughts-114k", "metadata/train-00000-of-00012", None),
        ("countdown_hub", "Jiayi-Pan/Countdown-Tasks-3to4", "data/train-00000-of-00001", None),
        ("openr1_math", "open-r1/OpenR1-Math-220k", "data/train-00000-of-00010", None),
        ("deepmath", "zwhe99/DeepMath-103K", "data/train-00000-of-00010", None),
        ("sanity_math", "sail/Sanity-Test-R1D-1.5B", "train/math_1460", "test/aime_2024"),
    ],
)
def test_what_hf_download_left_in_the_cache_reads_like_the_files_of_lines(
    name: str, repository: str, train: str, test: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cache = hub_cache() / f"datasets--{repository.replace('/', '--')}"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc123")
    held_out = "validation" if name == "hellaswag" else "test"
    for file, split in ((train, "train"), (test, held_out)):
        if file:
            path = cache / "snapshots" / "abc123" / f"{file}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(pyarrow.Table.from_pylist(rows_of(name, split)), path)
    cached = facts(load_task(TaskConfig(name=name)).examples(Selection("train")))
    local = facts(read(name))
    assert cached
    assert cached == local if test else cached <= local  # without a test split of its own some are held out


def facts(examples: Iterable[Example]) -> set[tuple[str, str, float | None]]:
    return {(example.question, example.answer, example.level) for example in examples}


def test_a_folders_only_file_is_read_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "deepscaler.json").write_text(json.dumps(rows_of("deepscaler")))
    assert len(read("deepscaler", "train", tmp_path)) + len(read("deepscaler", "test", tmp_path)) == 8


def test_a_column_that_parquet_lacks_is_named_among_those_that_are_there(tmp_path: Path) -> None:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    parquet.write_table(pyarrow.Table.from_pylist([{"question": "Q", "topic": "T"}]), tmp_path / "train.parquet")
    with pytest.raises(TaskError, match="no column 'final_answer'; it has question, topic"):
        read("deepmath", path=tmp_path / "train.parquet")


TABLE = DATA / "table" / "problems.csv"


def test_a_table_is_read_by_the_names_of_its_columns() -> None:
    settings: dict[str, Any] = {"path": TABLE, "columns": ["problem", "solution", "grade"]}
    train, test = read("table", **settings), read("table", "test", **settings)
    assert (len(train) + len(test), {e.level for e in train}) == (60, {1, 2, 3})
    left, right = train[0].question.removeprefix("What is ").removesuffix(", Ann?").split(" plus ")
    assert train[0].answer == str(int(left) + int(right))


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_a_table_carries_its_columns_for_reward_functions(tmp_path: Path, ending: str) -> None:
    rows = [
        {
            "q": f"What is {n} + 1?",
            "gold": f" {n + 1} ",
            "task": "sums",
            "extra_info": {"index": n},
            "long": "a" * 20_000,
        }
        for n in range(60)
    ]
    path = tmp_path / f"train.{ending}"
    if ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pyarrow.Table.from_pylist(rows), path)
    (tmp_path / "mine.py").write_text(
        "def trl(completions, gold, task, answer, q, **kwargs):\n"
        "    assert gold == answer and 'long' not in kwargs\n"
        "    return [(c, g, t, x[:4]) == ('', '5', 'sums', 'What') for c, g, t, x in zip(completions, gold, task, q)]\n"
        "def verl(data_source, solution_str, ground_truth, extra_info):\n"
        "    return (data_source, ground_truth, extra_info['index']) == ('table', '5', 4)\n"
    )
    example = next(e for e in read("table", path=path, columns=["q", "gold"]) if e.answer == "5")
    for name in ("trl", "verl"):
        assert load_reward(f"{tmp_path}/mine.py:{name}").score("", example)


def test_a_table_of_conversations_is_one_of_questions(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "1?"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "2?"},
    ]
    path = write(tmp_path / "chat.jsonl", {"turns": turns, "gold": 2})
    example = read("table", path=path, columns=["turns", "gold"], prompt="bare")[0]
    assert (list(example.prompt), example.question, example.answer) == (turns, "2?", "2")


@pytest.mark.parametrize(
    ("solution", "form"),
    [("2 + 3 = 5\n#### 5", "after_hashes"), ("So \\boxed{5}.", "last_box"), ("The answer is: 5", "after_answer_is")],
)
def test_a_table_of_solutions_is_one_of_answers(solution: str, form: str, tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", {"question": "2 + 3?", "answer": solution})
    found, named = read("table", path=path)[0], read("table", path=path, answer=form)[0]
    assert (found.answer, found.extra["reasoning"]) == (named.answer, named.extra["reasoning"]) == ("5", solution)
    assert (found.extra["read_as"], named.extra.get("read_as")) == (f"task.answer={form}", None)
    assert read("table", path=path, answer="whole")[0].answer == solution


def test_an_options_letter_is_taken_only_if_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", {"question": "2 + 3?", "answer": "\\textbf{(B)}\\ 5"})
    assert [read("table", path=path, **how)[0].answer for how in ({}, {"answer": "letter"})] == [
        "\\textbf{(B)}\\ 5",
        "B",
    ]


def test_a_row_that_states_no_answer_in_the_named_form_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl", {"question": "2 + 3?", "answer": "Five."})
    with pytest.raises(TaskError, match="1: its answer 'Five.' states none as task.answer=last_box reads it"):
        read("table", path=path, answer="last_box")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "no data"),
        ({"path": "a.csv", "hub": "a/b"}, "both"),
        ({"path": "a.csv", "columns": ["question"]}, "1 columns"),
        ({"hub": "a/b", "splits": ["a", "b", "c"]}, "3 splits"),
    ],
)
def test_a_table_that_is_not_described_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_task(TaskConfig(name="table", **settings))


def test_a_columns_name_that_is_not_there_is_reported_with_those_that_are() -> None:
    with pytest.raises(TaskError, match="no column 'title'; it has id, problem, solution, grade"):
        read("table", path=TABLE, columns=["title", "solution"])
    with pytest.raises(TaskError, match="column 'problem' is 'What"):
        read("table", path=TABLE, columns=["problem", "solution", "problem"])


@pytest.mark.parametrize("key", ["hub", "subset", "columns", "splits", "answer"])
def test_a_setting_of_the_table_is_refused_by_tasks_that_know_their_data(key: str) -> None:
    value: Any = {"columns": ["a", "b"], "splits": ["a", "b"], "answer": "whole"}.get(key, "a/b")
    with pytest.raises(ConfigError, match=f"task.{key} is .*'gsm8k' knows where its data is") as caught:
        load_task(TaskConfig.model_validate({"name": "gsm8k", key: value}))
    assert "task.name=table" in caught.value.hint


@pytest.mark.parametrize(
    "row",
    [
        {"numbers": [3, 4, 6], "target": 24},
        {"nums": [3.0, 4.0, 6.0], "target": 24.0},
        {"nums": "[3, 4, 6]", "target": "24"},
        {"nums": "[3 4  6]", "target": "24"},
        {"reward_model": {"style": "rule", "ground_truth": {"numbers": [3, 4, 6], "target": 24}}},
        {"reward_model": '{"ground_truth": {"numbers": [3, 4, 6], "target": 24}}'},
        {"ground_truth": {"numbers": [3, 4, 6], "target": 24}},
    ],
)
def test_countdown_finds_its_numbers_in_each_published_form(row: dict[str, Any], tmp_path: Path) -> None:
    paths = write(tmp_path / "train.jsonl", row), write(tmp_path / "test.jsonl", row)
    example = read("countdown_hub", path=paths[0])[0]
    assert (example.extra["numbers"], example.extra["target"]) == ((3, 4, 6), 24)


def test_verls_countdown_is_read_from_parquet(tmp_path: Path) -> None:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    row = {
        "prompt": [{"role": "user", "content": "Make 24."}],
        "reward_model": {"ground_truth": {"numbers": [3, 4, 6], "target": 24}},
    }
    for name in ("train", "test"):
        parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / f"{name}.parquet")
    assert read("countdown_hub", path=tmp_path)[0].answer == "24"
