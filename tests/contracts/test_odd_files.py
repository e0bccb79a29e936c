"""`tasks check` over files that nobody would write on purpose: a verdict or two lines for each, never a traceback."""

import csv
import gzip
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_FILES = 300
_NAMES = ("question", "answer", "level", "prompt", "reward_model", "a.b", "a+b", "", " answer", "Ünï", "0", "data")
_COLUMNS = ("reward_model.ground_truth", "prompt.0.content", "question+level", "prompt.-1", "+", ".", "a..b", "x.y.z")
_ENDINGS = (".jsonl", ".json", ".ndjson", ".csv", ".tsv", ".parquet", ".CSV", ".txt", "")
_ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252", "shift_jis", "utf-7")
_TEXTS = (
    *(
        "",
        " ",
        "5",
        "-1",
        "3/8",
        "Level 5",
        "\\frac{1}{2}",
        "\\boxed{",
        "\\boxed{5}",
        "#### 5",
        '"',
        '""',
        "'",
        ",",
        ";",
    ),
    *("\t", "\n", "\r", "\0", "a,b", 'say "x"', "\u2028", "\ud800", "\ufeff", "{", "[", '["1", "2"]', '[{"role": 1}]'),
    *("9" * 5000, "x" * 9999, "1e999", "-0", "½", "١٢", "\x1b[31m", "<think>", "{'a': 1}", "NaN", "null"),
)

texts = st.sampled_from(_TEXTS) | st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts
roles = st.sampled_from(["user", "assistant", "system", "human", "gpt", "tool"]) | scalars
messages = st.builds(
    lambda a, b, role, text: {a: role, b: text}, *map(st.sampled_from, ("rf", "cv")), roles, scalars
).map(lambda message: {{"r": "role", "f": "from", "c": "content", "v": "value"}[key]: message[key] for key in message})
parts = st.lists(st.fixed_dictionaries({"type": scalars, "text": scalars}), max_size=2)
values = st.recursive(
    scalars | messages | parts | st.fixed_dictionaries({"ground_truth": scalars}),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=3),
    max_leaves=8,
)
sane_tables = st.integers(1, 999).map(lambda n: [{"question": f"{k} plus {n}?", "answer": k + n} for k in range(60)])
odd_rows = st.dictionaries(st.sampled_from(_NAMES), values, max_size=5)
mixed_tables = st.builds(lambda sane, odd: [*sane, *odd], sane_tables, st.lists(odd_rows, min_size=1, max_size=3))
tables = sane_tables | mixed_tables | st.lists(odd_rows, max_size=5)


class OddFile(NamedTuple):
    """A file's ending and content, and the settings under which it is read."""

    ending: str
    content: bytes
    settings: dict[str, Any]


@st.composite
def odd_files(draw: st.DrawFn) -> OddFile:
    """Draws rows in some form, whose text or bytes may then be damaged, compressed or wrongly named."""
    rows, form = (
        draw(tables),
        draw(st.sampled_from(["lines", "list", "indented", "columns", "csv", "value", "parquet"])),
    )
    ending = {"csv": ".csv", "parquet": ".parquet"}.get(form, ".jsonl")
    if draw(st.integers(0, 2)) == 0:
        ending = draw(st.sampled_from(_ENDINGS))
    content = _parquet(rows) if form == "parquet" else draw(_encoded(_text(draw, rows, form)))
    if draw(st.integers(0, 4)) == 0:
        start = draw(st.integers(0, len(content)))
        content = content[:start] + draw(st.binary(max_size=4)) + content[draw(st.integers(start, len(content))) :]
    if draw(st.integers(0, 4)) == 0:
        content, ending = gzip.compress(content)[: draw(st.sampled_from([None, -5, 12]))], ending + ".gz"
    names = st.sampled_from((*_NAMES, *_COLUMNS))
    columns = ["question", "answer"] if draw(st.integers(0, 3)) else draw(st.lists(names, min_size=2, max_size=3))
    shares = {"task.eval_share": st.just(0.3), "task.max_bad_share": st.sampled_from([0.0, 0.5, 0.99])}
    return OddFile(ending, content, {"task.columns": columns} | draw(st.fixed_dictionaries({}, optional=shares)))


def _text(draw: st.DrawFn, rows: list[dict[str, Any]], form: str) -> str:
    if form == "csv":
        text, delimiter = io.StringIO(), draw(st.sampled_from(",;\t|:"))
        header = sorted({name for row in rows for name in row}) + draw(st.sampled_from([[], [""], ["answer"]]))
        writer = csv.writer(text, delimiter=delimiter)
        for record in (header, *([row.get(name) for name in header] for row in rows)):
            if draw(st.integers(0, 3)) == 0:
                text.write(delimiter.join(map(str, record)) + "\n")  # without quotes
            else:
                writer.writerow(record)
        return text.getvalue()
    if form == "lines":
        return "\n".join(map(json.dumps, rows))
    if form == "columns":
        return json.dumps({name: [row.get(name) for row in rows] for name in _NAMES})
    value = draw(values) if form == "value" else rows
    return json.dumps(value, indent=2 if form == "indented" else None, ensure_ascii=draw(st.booleans()))


def _encoded(text: str) -> st.SearchStrategy[bytes]:
    return st.sampled_from((*["utf-8"] * 12, *_ENCODINGS)).map(lambda encoding: text.encode(encoding, "replace"))


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    parquet, pyarrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    file = io.BytesIO()
    try:
        parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    except (pyarrow.ArrowException, UnicodeError, OverflowError):  # columns of several types, structs without fields
        parquet.write_table(pyarrow.table({"question": [json.dumps(row) for row in rows]}), file)
    return file.getvalue()


@pytest.mark.slow
def test_no_file_is_a_traceback(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from lowmem_rl_cli.app import main

    codes = Counter[int]()

    @settings(max_examples=_FILES, suppress_health_check=list(HealthCheck))
    @given(odd_files())
    def check(odd: OddFile) -> None:
        path = tmp_path / f"train{odd.ending}"
        path.write_bytes(odd.content)
        given = {"task.path": str(path)} | odd.settings
        codes[code := main(_check(given))] += 1
        shown = capsys.readouterr()
        assert code in (0, 2, 6)
        assert "Traceback" not in shown.err
        assert len(shown.err.splitlines()) == (2 if code else 0)

    check()
    assert codes.total() >= _FILES
    assert min(codes[0], codes[6]) > 20  # neither all refused nor all plain


def _check(given: dict[str, Any]) -> tuple[str, ...]:
    pairs = (("--set", f"{key}={json.dumps(value)}") for key, value in given.items())
    return ("tasks", "check", "table", "--examples=3", *(argument for pair in pairs for argument in pair))
