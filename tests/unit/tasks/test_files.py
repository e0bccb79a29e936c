"""Data files in the forms in which people have them: read right, or refused with the right cause and fix."""

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lowmem_rl.errors import TaskError
from lowmem_rl.tasks.files import read_files

ROWS = [{"question": f"What is {n} and 1?", "answer": str(n + 1)} for n in range(3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
COLUMNS = ("question", "answer")


def table(delimiter: str) -> str:
    return "".join(delimiter.join(row) + "\n" for row in (COLUMNS, *(row.values() for row in ROWS)))


def read(path: Path, content: str | bytes) -> list[dict[str, Any]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    rows = list(read_files([path], COLUMNS))
    assert not [row.fault for row in rows if row.fault]
    return [dict(row.values) for row in rows]


def refusal(path: Path, content: str | bytes) -> tuple[str, str]:
    """Returns what is wrong, and the fix."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        faults = [row.fault for row in read_files([path], COLUMNS)]
        fault = next(filter(None, faults))
    except TaskError as error:
        fault = error
    assert path.name in str(fault)
    return str(fault), fault.hint


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", LINES),
        ("a.ndjson", LINES),
        ("a.json", LINES),
        ("A.JSONL", LINES),
        ("a.jsonl", "\n\n" + LINES.replace("\n", "\r\n\r\n")),
        ("a.json", json.dumps(ROWS)),
        ("a.jsonl", json.dumps(ROWS)),
        ("a.jsonl", json.dumps(ROWS, indent=2)),
        ("a.json", "\n".join(json.dumps(row, indent=2) for row in ROWS)),
        ("a.jsonl", "\n".join(json.dumps(row, indent=2) for row in ROWS)),
        ("a.json", json.dumps({"version": "1", "data": ROWS})),
        ("a.json", json.dumps({"version": "1", "data": ROWS}, indent=1)),
        ("a.json", json.dumps({name: [row[name] for row in ROWS] for name in COLUMNS})),
        ("a.json", json.dumps({name: {n: row[name] for n, row in enumerate(ROWS)} for name in COLUMNS})),
        ("a.csv", table(",")),
        ("a.csv", table(";")),
        ("a.csv", table("\t")),
        ("a.tsv", table("\t")),
        ("a.tsv", table(",")),
        ("a.json", json.dumps({"columns": COLUMNS, "index": [0, 1, 2], "data": [list(row.values()) for row in ROWS]})),
        ("a.json", json.dumps(dict(enumerate(ROWS)))),
        ("a.csv", table("|")),
        ("a.csv", "sep=;\r\n" + table(";")),
        ("a.csv", "\n" + table(",").replace("\n", ",\n")),
        ("a.csv", "question,answer\n" + table(",").partition("\n")[2].replace("\n", ",,\n")),
        ("a.csv", table(",").replace(",", ", ").replace("answer", "answer ")),
        ("a.csv", "\ufeff" + table(",")),
    ],
)
@pytest.mark.parametrize("is_compressed", [False, True])
def test_each_form_of_the_same_rows_reads_the_same(
    name: str, content: str, is_compressed: bool, tmp_path: Path
) -> None:
    path = tmp_path / (f"{name}.gz" if is_compressed else name)
    assert read(path, gzip.compress(content.encode()) if is_compressed else content) == ROWS


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32", "utf-8-sig"])
def test_a_marked_encoding_is_read(encoding: str, tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "question,answer\nWie groß?,5 µm\n".encode(encoding)) == [
        {"question": "Wie groß?", "answer": "5 µm"}
    ]


def test_compressed_text_is_known_by_its_content(tmp_path: Path) -> None:
    assert read(tmp_path / "a.jsonl", gzip.compress(LINES.encode())) == ROWS


def test_a_delimiter_is_the_one_that_finds_the_columns(tmp_path: Path) -> None:
    rows = read(tmp_path / "a.csv", "id, as in the book, or none;question;answer\n1;Add 1, 2, 3 and 4.;10\n")
    assert rows == [{"id, as in the book, or none": "1", "question": "Add 1, 2, 3 and 4.", "answer": "10"}]
    rows = read(tmp_path / "a.tsv", 'a, b, c\tquestion\tanswer\n1\tA 5" pipe?\t5\n')
    assert rows[0]["question"] == 'A 5" pipe?'


def test_quoted_fields_may_hold_delimiters_and_lines_and_be_long(tmp_path: Path) -> None:
    long = "x" * 200_000
    rows = read(tmp_path / "a.csv", f'question,answer\n"One, ""two""\nor three?","{long}"\n')
    assert rows == [{"question": 'One, "two"\nor three?', "answer": long}]


def test_columns_without_a_name_do_not_count(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", ",question,answer\n0,Q,5\n1,R,6\n")[1] == {"question": "R", "answer": "6"}


def test_a_short_row_has_empty_fields(tmp_path: Path) -> None:
    assert read(tmp_path / "a.csv", "question,answer,note\nQ,5\n") == [{"question": "Q", "answer": "5", "note": ""}]


@pytest.mark.parametrize(
    ("name", "content", "what", "fix"),
    [
        ("a.csv", "question,answer,answer\nQ,5,6\n", "column 'answer' twice", "own name"),
        ("a.tsv", "answer\tquestion\t answer\n5\tQ\t6\n", "column 'answer' twice", "own name"),
        ("a.jsonl", '{"answer": "5", "question": "Q", "answer": "6"}\n' * 2, "'answer' twice", "own name"),
        ("a.json", '[{"answer": "5", "question": "Q", "answer": "6"}]', "'answer' twice", "own name"),
        (
            "a.csv",
            "question,answer\nIs it 1, 2 or 3?,2\n",
            "more fields than the header: 3, not 2",
            "Quote fields that hold ','",
        ),
        (
            "a.csv",
            "question;answer\nIs it 1; 2?;2\n",
            "more fields than the header: 3, not 2",
            "Quote fields that hold ';'",
        ),
        ("a.csv", 'question,answer\nQ,5\n"Q,5\nQ,6\n', "line 3: a quote opens and never closes", "twice"),
        ("a.csv", 'question,answer\n"Q" she said,5\n', "line 2: ',' expected", "twice"),
        ("a.jsonl", "{'question': 'Q', 'answer': '5'}\n", "line 1 is not JSON", "json.dumps"),
        ("a.json", "[{'question': 'Q', 'answer': '5'}]", "is not JSON", "json.dumps"),
        ("a.jsonl", LINES + '{"question": "Q", "ans', "line 4 is not JSON: Unterminated string", "One object a line"),
        ("a.json", json.dumps(ROWS)[:-9], "is not JSON: Unterminated string", "list of objects"),
        ("a.json", "5", "holds int, no rows", "list of objects"),
        ("a.jsonl", '["Q", "5"]\n["R", "6"]\n', "line 1 holds list, not an object", "One object a line"),
        ("a.json", json.dumps({"train": ROWS, "test": ROWS}), "holds the lists train, test", "file of its own"),
        ("a.csv", b"PAR1\x15\x04\x15", "is a parquet file", ".parquet"),
        ("a.csv", b"PK\x03\x04\x14\0\x06", "Excel workbook", "CSV in UTF-8"),
        ("a.csv", b"\x28\xb5\x2f\xfd\x04", "compressed by zstd", "zstd -d"),
        ("a.jsonl", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS", "git lfs pull"),
        ("a.jsonl", "<!DOCTYPE html><html>", "is a web page", "resolve/main"),
        ("a.csv", "question,answer\nQ,5\n".encode("utf-16-le"), "holds zero bytes", "UTF-8"),
        (
            "a.csv",
            "question,answer\nWie groß?,5\n".encode("latin-1"),
            "not UTF-8 after 'stion,answer\\nWie gro'",
            "iconv",
        ),
        ("a.csv.gz", gzip.compress(table(",").encode(), mtime=0)[:-12], "damaged gzip", "again"),
        ("a.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS", "git lfs pull"),
        ("a.parquet", "<!doctype html><html>", "is a web page", "resolve/main"),
        ("a.parquet", table(","), "cannot be read as parquet", "again"),
        ("a.xlsx", b"PK\x03\x04", "is not a data file", ".jsonl, .json, .ndjson, .csv, .tsv, .parquet"),
    ],
)
def test_a_refusal_names_the_cause_and_the_fix(
    name: str, content: str | bytes, what: str, fix: str, tmp_path: Path
) -> None:
    found, hint = refusal(tmp_path / name, content)
    assert what in found
    assert fix in hint


def test_a_bad_line_is_one_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(LINES + "{oops\n[1]\n" + LINES)
    rows = list(read_files([path]))
    assert [row.where for row in rows if row.fault] == ["a.jsonl line 4", "a.jsonl line 5"]
    assert [row.values for row in rows if not row.fault] == ROWS * 2


def test_a_single_conversation_is_a_row_and_no_list_of_rows(tmp_path: Path) -> None:
    row = {"messages": [{"role": "user", "content": "Q"}], "answer": "5"}
    assert read(tmp_path / "a.json", json.dumps(row)) == [row]
    assert read(tmp_path / "a.json", json.dumps(row, indent=2)) == [row]


def test_parquet_reads_the_columns_that_hold_a_path(tmp_path: Path) -> None:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    rows = [{"prompt": [{"role": "user", "content": "Q"}], "reward_model": {"ground_truth": "5"}, "a.b": 1, "c": 2}]
    path = tmp_path / "train.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    read_rows = list(read_files([path], ["prompt", "reward_model.ground_truth", "a.b"]))
    assert read_rows[0].values == {name: rows[0][name] for name in ("prompt", "reward_model", "a.b")}
    assert read_rows[0].value("reward_model.ground_truth") == "5"


def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    twice = pyarrow.table([pyarrow.array(["Q"]), pyarrow.array(["5"])], names=["answer", "answer"])
    parquet.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(TaskError, match="names column 'answer' twice"):
        list(read_files([tmp_path / "a.parquet"]))


def test_numbers_of_parquet_have_the_digits_that_were_written(tmp_path: Path) -> None:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    columns = {"single": pyarrow.array([0.1, None], pyarrow.float32()), "decimal": [Decimal("12.50"), Decimal("100")]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    first, second = read_files([tmp_path / "a.parquet"])
    assert (first.answer("single"), second.value("single")) == ("0.1", None)
    assert (first.answer("decimal"), second.answer("decimal")) == ("12.5", "100")
