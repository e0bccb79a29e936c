"""What readers of a run directory get of its files: whole, missing, half-written, of another type."""

import json

import pytest

from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.run_dir import RunDir, write_json
from lowmem_rl.storage.run_reader import RunReader, is_number, number, numbers, part, rows_in
from lowmem_rl.units import GIB
from tests.run_maker import make_run

EVALUATION = {"step": 0, "pass_at_1": 0.5}


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir(make_run(tmp_path / "run"))


def test_files_of_a_whole_run_are_read(run) -> None:
    reader = RunReader(run)
    assert (reader.is_run, reader.preset, reader.config["task"]["name"]) == (True, "tiny-cpu", "arithmetic")
    assert [row["step"] for row in reader.metrics] == list(range(1, 21))
    assert reader.peak_bytes == GIB
    assert reader.evaluations.after["step"] == 20
    assert len(reader.eval_items("after")) == 20


def test_missing_files_are_empty(tmp_path) -> None:
    reader = RunReader(RunDir(tmp_path))
    assert (reader.machine, reader.metrics, reader.samples, reader.rollbacks, reader.peak_bytes) == (
        {},
        (),
        (),
        (),
        None,
    )
    assert (reader.evaluations.before, reader.evaluations.during, reader.evaluations.best) == ({}, (), {})
    assert not reader.is_run
    assert reader.evaluations_to_extend()["during"] == []


def test_a_missing_file_that_is_required_is_named_with_the_readers_own_fix(tmp_path) -> None:
    with pytest.raises(RunDirError, match=r"machine\.json") as error:
        RunReader(RunDir(tmp_path), hint="Start again.").table(tmp_path / "machine.json", required=True)
    assert error.value.hint == "Start again."


@pytest.mark.parametrize("name", ["machine", "estimate", "peak", "health", "controls", "eval_file", "config"])
@pytest.mark.parametrize("content", ["{", "[]", "3", "[" * 100_000, "\ud800"])
def test_a_damaged_table_is_named(run, name, content) -> None:
    path = run.path / ("eval.json" if name == "eval_file" else f"{name}.json")
    path.write_text(content, errors="surrogatepass")
    with pytest.raises(RunDirError, match=path.name) as error:
        getattr(RunReader(run), name)
    assert error.value.hint


@pytest.mark.parametrize("row", ["{}", "3", '{"step": true, "to": 1}', '{"step": "1"}', '{"st'])
@pytest.mark.parametrize("name", ["metrics", "samples", "order", "resumes", "rollbacks", "recoveries"])
def test_a_damaged_row_is_named_with_its_line(run, name, row) -> None:
    path = run.path / f"{name}.jsonl"
    path.write_text(f"{row}\n{row}\n")
    with pytest.raises(RunDirError, match=rf"{path.name}, line 1"):
        getattr(RunReader(run), name)


def test_a_row_that_its_parser_refuses_is_named_with_its_line(run) -> None:
    run.order.write_text('{"step": 1}\n{"step": "x"}\n{"torn')
    with pytest.raises(RunDirError, match="line 2"):
        RunReader(run).parsed(run.order, lambda row: int(row["step"]))
    assert RunReader(run).parsed(run.order, lambda row: row["step"]) == [1, "x"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"before": 3},
        {"during": [{}]},
        {"during": {"step": 1}},
        {"during": [3]},
        {"during": None},
        {"out_of_domain": []},
        {"out_of_domain": {"math": 3}},
        {"best": {"step": 1}},
        {"best": [1]},
        {"after": EVALUATION | {"pass_at_1": float("nan")}},
    ],
)
def test_what_could_not_be_written_back_is_refused_to_the_writer_and_empty_to_others(run, wrong) -> None:
    run.evaluations.write_text(json.dumps({"before": EVALUATION} | wrong))
    with pytest.raises(RunDirError, match=r"eval\.json"):
        RunReader(run).evaluations_to_extend()
    assert isinstance(RunReader(run).evaluations.during, tuple)


def test_parts_that_are_not_known_stay_for_the_writer(run) -> None:
    write_json(run.evaluations, {"before": EVALUATION, "from_the_future": 1, "later": [EVALUATION]})
    found = RunReader(run).evaluations_to_extend()
    assert (found["from_the_future"], found["before"], found["later"]) == (1, EVALUATION, [EVALUATION])


def test_a_models_folder_is_not_a_run(tmp_path) -> None:
    write_json(tmp_path / "config.json", {"config": {}, "hidden_size": 64})
    assert not RunReader(RunDir(tmp_path)).is_run


def test_values_are_returned_only_in_their_type() -> None:
    row = {"a": 1, "b": True, "c": float("inf"), "d": 10**400, "e": {"x": 2.5, "y": "z"}, "f": [{}, 3]}
    assert [is_number(row[key]) for key in "abcd"] == [True, False, False, False]
    assert (number(row, "a"), number(row, "b"), number(row, "none")) == (1.0, None, None)
    assert (numbers(row["e"]), numbers(row["a"])) == ({"x": 2.5}, {})
    assert (part(row, "e"), part(row, "f"), rows_in(row, "f"), rows_in(row, "a")) == (row["e"], {}, [{}], [])
