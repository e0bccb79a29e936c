import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.run_dir import (
    RunDir,
    append_row,
    default_path,
    default_probe_path,
    drop_rows_after,
    drop_torn_row,
    new_file,
    read_json,
    read_rows,
    write_json,
)


def test_a_directory_that_is_not_empty_is_refused_and_another_offered(tmp_path) -> None:
    append_row(RunDir.create(tmp_path / "run").metrics, {"step": 1})
    with pytest.raises(RunDirError, match="not empty") as refused:
        RunDir.create(tmp_path / "run")
    assert str(tmp_path / "run-2") in refused.value.hint


def test_an_empty_directory_is_taken(tmp_path) -> None:
    assert RunDir.create(tmp_path).path == tmp_path


def test_the_working_directory_is_refused_like_any_other(tmp_path, monkeypatch) -> None:
    (tmp_path / "notes.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunDirError, match="not empty"):
        RunDir.create(Path())


@pytest.mark.parametrize("name", ["run", "x" * 300, "a\0b"])
def test_a_path_that_cannot_be_a_directory_is_an_error_of_the_user(tmp_path, name) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunDirError, match="cannot be a run directory"):
        RunDir.create(tmp_path / name)


def test_a_torn_last_row_is_left_out(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    append_row(path, {"step": 1})
    with path.open("a") as file:
        file.write('{"step": 2, "rew')
    assert list(read_rows(path)) == [{"step": 1}]


def test_a_damaged_row_in_the_middle_is_named(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"step": 1}\nnonsense\n{"step": 3}\n')
    with pytest.raises(RunDirError, match="line 2"):
        list(read_rows(path))


def test_a_file_that_is_not_there_has_no_rows(tmp_path) -> None:
    assert list(read_rows(tmp_path / "none.jsonl")) == []


def test_half_a_character_from_a_model_can_be_written_and_read(tmp_path) -> None:
    append_row(tmp_path / "rows.jsonl", {"completion": "a\ud800b\u2028c"})
    (row,) = read_rows(tmp_path / "rows.jsonl")
    assert row["completion"] == "a?b\u2028c"


def test_a_whole_file_is_never_seen_half_written(tmp_path) -> None:
    path = tmp_path / "config.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["config.json"]


def test_infinity_is_refused_rather_than_written_as_no_json(tmp_path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_row(tmp_path / "rows.jsonl", {"loss": float("inf")})


@pytest.mark.parametrize("text", ["{", "[" * 100_000])
def test_a_file_that_is_no_json_is_an_error_of_the_run_directory(text, tmp_path) -> None:
    (tmp_path / "eval.json").write_text(text)
    with pytest.raises(RunDirError):
        read_json(tmp_path / "eval.json")
    assert json.loads("{}") == {}


@pytest.mark.parametrize("read", [read_json, lambda path: list(read_rows(path)), drop_torn_row])
def test_a_pipe_is_named_and_not_waited_for(read, tmp_path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RunDirError, match="It is not a file"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize("drop", [drop_torn_row, lambda path: drop_rows_after(path, 0)])
def test_a_file_is_never_cut_through_a_link(drop, tmp_path) -> None:
    (tmp_path / "elsewhere").write_text("not ended")
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(RunDirError, match="is a link"):
        drop(tmp_path / "link")
    assert (tmp_path / "elsewhere").read_text() == "not ended"


def test_undoing_a_start_leaves_what_is_not_the_runs(tmp_path) -> None:
    run = RunDir.create(tmp_path / "run")
    write_json(run.config, {})
    append_row(run.eval_items("before"), {"correct": True})
    (run.path / "notes.txt").write_text("mine")
    run.undo()
    assert [path.name for path in run.path.iterdir()] == ["notes.txt"]


def test_undoing_a_start_leaves_no_directory_of_its_own(tmp_path) -> None:
    run = RunDir.create(tmp_path / "run")
    write_json(run.config, {})
    run.undo()
    assert not run.path.exists()


def test_a_row_that_is_no_text_is_named(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"step": 1}\n{"step": "\xff"}\n{"step": 3}\n')
    with pytest.raises(RunDirError, match="line 2"):
        list(read_rows(path))


def test_a_file_of_rows_that_cannot_be_read_is_named(tmp_path) -> None:
    with pytest.raises(RunDirError, match="cannot be read"):
        list(read_rows(tmp_path))


@pytest.mark.parametrize("torn", ["", '{"step": 4, "rew', '{"step": 4}', "\0\0\0"])
def test_rows_after_a_step_are_dropped_and_a_torn_one_with_them(torn, tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    for step in (1, 1, 2, 3):
        append_row(path, {"step": step})
    with path.open("a") as file:
        file.write(torn)
    drop_rows_after(path, 2)
    append_row(path, {"step": 3})
    assert [row["step"] for row in read_rows(path)] == [1, 1, 2, 3]


def test_dropping_all_rows_or_none_is_no_special_case(tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    drop_rows_after(path, 0)
    path.write_text('{"step": 1}\n{"step": 2}')  # edited by hand
    drop_rows_after(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    drop_rows_after(path, 0)
    assert path.read_text() == ""


def test_two_runs_of_one_second_get_two_directories(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "20261129-120000")
    made = [RunDir.create_new(default_path("qwen1.5b-t4")).path.name for _ in range(3)]
    assert made == [f"qwen1.5b-t4-20261129-120000{number}" for number in ("", "-2", "-3")]


def test_many_processes_at_once_get_one_directory_each(tmp_path) -> None:
    program = (
        "from pathlib import Path; from lowmem_rl.storage.run_dir import RunDir; RunDir.create_new(Path('runs/x'))"
    )
    started = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(6)]
    assert [process.wait(60) for process in started] == [0] * 6
    assert len(list(Path("runs").iterdir())) == 6


def test_a_new_directory_that_cannot_be_made_is_refused(tmp_path) -> None:
    Path("runs").touch()
    with pytest.raises(RunDirError, match="cannot be a run directory"):
        RunDir.create_new(Path("runs/x"))


def test_a_new_file_is_nobody_elses_and_goes_if_it_stays_empty(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(time, "strftime", lambda form: "20261129-120000")
    path = default_probe_path("qwen1.5b-t4")
    assert path.name == "probe-qwen1.5b-t4-20261129-120000.json"
    with new_file(path) as first, new_file(path) as second:
        first.write_text("{}")
    assert second.name == "probe-qwen1.5b-t4-20261129-120000-2.json"
    assert [first.exists(), second.exists()] == [True, False]
