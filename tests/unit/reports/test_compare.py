import json
import shutil

import pytest

from lowmem_rl.errors import ConfigError, RunDirError
from lowmem_rl.reports.compare import compare_runs
from lowmem_rl.storage.run_dir import RunDir, read_json, write_json
from tests.run_maker import make_run


@pytest.fixture
def two(tmp_path):
    return make_run(tmp_path / "a", right=(4, 6)), make_run(tmp_path / "b", right=(4, 18), optimizer__learning_rate=0.5)


def test_runs_are_paired_item_by_item_and_only_differing_settings_are_listed(two) -> None:
    comparison = compare_runs(two)
    (pair,) = comparison.pairs
    assert (pair.first, pair.second, pair.lenient.won, pair.lenient.lost) == ("a", "b", 12, 0)
    assert pair.is_distinguishable
    assert list(comparison.differences) == ["optimizer.learning_rate"]


def test_runs_that_are_not_distinguishable_are_called_so(tmp_path) -> None:
    runs = [make_run(tmp_path / "a", right=(4, 12)), make_run(tmp_path / "b", right=(4, 14))]
    comparison = compare_runs(runs)
    assert not comparison.pairs[0].is_distinguishable
    assert comparison.differences == {}


def test_strict_and_lenient_are_compared_separately(tmp_path) -> None:
    first = make_run(tmp_path / "a", right=(4, 16), strict=(0, 2))
    second = make_run(tmp_path / "b", right=(4, 16), strict=(0, 16))
    (pair,) = compare_runs([first, second]).pairs
    assert pair.lenient_p == 1
    assert pair.strict_p < 0.05
    assert not pair.is_distinguishable


def test_the_p_values_of_several_pairs_are_adjusted(two) -> None:
    alone = compare_runs(two).pairs[0].lenient_p
    assert compare_runs([*two, two[1]]).pairs[0].lenient_p == pytest.approx(2 * alone)


def test_the_json_holds_curves_by_step_tokens_and_seconds(two) -> None:
    comparison = json.loads(json.dumps(compare_runs(two).to_json()))
    assert [run["name"] for run in comparison["runs"]] == ["a", "b"]
    assert comparison["runs"][1]["curve"][-1].keys() >= {"step", "tokens", "seconds", "pass_at_1", "accuracy", "reward"}
    assert comparison["pairs"][0]["distinguishable"] is True


def test_one_run_alone_is_a_mistake_of_usage(two) -> None:
    with pytest.raises(ConfigError):
        compare_runs(two[:1])


def test_runs_of_different_tasks_are_refused_by_name(two) -> None:
    run = RunDir(two[1])
    written = read_json(run.evaluations)
    written["after"]["task"] = "gsm8k"
    write_json(run.evaluations, written)
    with pytest.raises(RunDirError, match="task is arithmetic there and gsm8k here"):
        compare_runs(two)


def test_runs_of_different_levels_are_refused(tmp_path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", task__levels=[2])]
    with pytest.raises(RunDirError, match="levels"):
        compare_runs(runs)


def test_a_run_without_an_evaluation_after_training_is_refused(two) -> None:
    run = RunDir(two[0])
    write_json(run.evaluations, {"before": read_json(run.evaluations)["before"], "during": []})
    with pytest.raises(RunDirError, match="no evaluation"):
        compare_runs(two)


def test_missing_items_are_named(two) -> None:
    shutil.rmtree(two[1] / "eval")
    with pytest.raises(RunDirError, match=r"after\.jsonl has no rows"):
        compare_runs(two)


def test_runs_without_a_common_item_are_refused(two) -> None:
    rows = RunDir(two[1]).eval_items("after")
    rows.write_text(rows.read_text().replace("arithmetic/", "other/"))
    with pytest.raises(RunDirError, match="no evaluated item in common"):
        compare_runs(two)
