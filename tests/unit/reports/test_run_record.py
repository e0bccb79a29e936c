import json

import pytest

from lowmem_rl.errors import RunDirError
from lowmem_rl.reports.run_record import LENIENT, read_record
from lowmem_rl.reports.sections.curves import learning_curve
from lowmem_rl.storage.run_dir import RunDir, append_row, write_json
from lowmem_rl.units import GIB
from tests.run_maker import make_run, metric_row


def test_a_whole_run_is_read(tmp_path) -> None:
    record = read_record(make_run(tmp_path / "run"))
    assert (record.name, record.preset, record.last_step, record.is_finished) == ("run", "tiny-cpu", 20, True)
    assert [evaluation.name for evaluation in record.evaluations] == ["before", "after"]
    assert sum(record.evaluations[1].shares(LENIENT).values()) == 16


def test_a_folder_that_is_no_run_is_refused(tmp_path) -> None:
    for path in (tmp_path, tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(RunDirError):
            read_record(path)


def test_a_step_that_was_run_again_counts_once(tmp_path) -> None:
    run = RunDir(make_run(tmp_path / "run"))
    append_row(run.metrics, metric_row(20, 20) | {"reward": 0.25})
    record = read_record(run.path)
    assert len(record.metrics) == 20
    assert record.metrics[-1]["reward"] == 0.25


def test_several_completions_of_an_item_are_its_share(tmp_path) -> None:
    run = RunDir(make_run(tmp_path / "run"))
    append_row(run.eval_items("after"), {"example_id": "arithmetic/0", "correct": False, "strict": False})
    latest = read_record(run.path).latest
    assert latest is not None
    assert latest.shares(LENIENT)["arithmetic/0"] == 0.5


def test_a_peak_that_was_not_written_is_the_highest_of_the_steps(tmp_path) -> None:
    run = RunDir(make_run(tmp_path / "run"))
    assert read_record(run.path).peak_bytes == GIB
    write_json(run.peak, {"peak_bytes": 2 * GIB})
    assert read_record(run.path).peak_bytes == 2 * GIB


@pytest.mark.parametrize("line", ["[]", "3", '{"loss": 1}'])
def test_a_row_that_is_none_is_named(tmp_path, line) -> None:
    run = RunDir(make_run(tmp_path / "run"))
    run.metrics.write_text(f"{line}\n")
    with pytest.raises(RunDirError, match="line 1"):
        read_record(run.path)


def test_the_learning_curve_counts_tokens_and_seconds_from_the_base_model_on(tmp_path) -> None:
    curve = learning_curve(read_record(make_run(tmp_path / "run")))
    assert [point.step for point in curve] == list(range(21))
    assert (curve[0].tokens, curve[0].seconds, curve[0].pass_at_1) == (0, 0.0, 0.2)
    assert (curve[-1].tokens, curve[-1].seconds, curve[-1].pass_at_1) == (2000, 40.0, 0.8)
    assert curve[5].pass_at_1 is None
    assert json.loads(json.dumps(curve[3].to_json()))["reward"] == 0.15
