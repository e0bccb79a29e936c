"""The benchmark of a step without a model: the workload, the ratios, the law, the timer, the page, the picture."""

import random
import sys
import xml.dom.minidom
from pathlib import Path
from statistics import fmean

import pytest
from lowmem_rl_cli.bench_view import render
from lowmem_rl_cli.text_page import TextPage

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import SetupError
from lowmem_rl.example import Example
from lowmem_rl.planning.overrides import with_overrides
from lowmem_rl_bench.step.bench_workload import BenchWorkload, WorkloadShape, make_workload

pytest.importorskip("torch")  # modules below import it

import numpy

from lowmem_rl.grpo.micro_batches import BatchPlan
from lowmem_rl_bench.step.ablations import WORK, predicted
from lowmem_rl_bench.step.arms import ABLATIONS, ARMS
from lowmem_rl_bench.step.batch_ablations import ablation_mixins
from lowmem_rl_bench.step.live_runs import LearningCurve, has_reached, time_ratio
from lowmem_rl_bench.step.matrix_products import shares
from lowmem_rl_bench.step.plot import draw
from lowmem_rl_bench.step.ratios import Ratio, clock_of, distance, ratio_of
from lowmem_rl_bench.step.sweep import LAW, fit, points

STOP = 1
SHAPE = WorkloadShape(prompts=8, group_size=8, prompt_tokens=48, completion_tokens=96)


def words(messages) -> list[int]:
    return [2 + len(word) for message in messages for word in message["content"].split()]


def workload(shape: WorkloadShape, seed: int = 0) -> BenchWorkload:
    examples = [
        Example(str(n), ({"role": "user", "content": f"What is {n} times seven?"},), "7") for n in range(shape.prompts)
    ]
    return make_workload(shape, examples, words, list(range(2, 50)), STOP, seed)


def test_skewed_lengths_have_the_requested_mean_and_maximum() -> None:
    lengths = workload(SHAPE).completion_lengths
    assert max(lengths) == 96
    assert min(lengths) >= 1
    assert fmean(lengths) / 96 == pytest.approx(0.43, abs=0.02)


def test_three_of_eight_groups_are_dead_and_the_others_differ() -> None:
    groups = workload(SHAPE).groups
    assert sum(group.is_dead for group in groups) == 3
    assert all({0.0, 1.0} == set(group.rewards) for group in groups if not group.is_dead)


def test_in_the_worst_case_all_completions_are_equally_long_and_no_group_is_dead() -> None:
    made = workload(WorkloadShape(8, 8, 48, 96, mean_share=1.0, dead_share=0.0))
    assert set(made.completion_lengths) == {96}
    assert len(set(made.prompt_lengths)) == 1
    assert not any(group.is_dead for group in made.groups)


def test_a_completion_ends_in_its_only_stop_id() -> None:
    for group in workload(SHAPE).groups:
        assert all(ids[-1] == STOP and STOP not in ids[:-1] for ids in group.completions)


def test_a_seed_makes_one_workload_and_its_file_holds_it(tmp_path: Path) -> None:
    made = workload(SHAPE)
    made.write(tmp_path / "workload.json")
    assert made == workload(SHAPE) == BenchWorkload.read(tmp_path / "workload.json")
    assert made != workload(SHAPE, seed=1)


def steps(*seconds: float, cpu_share: float = 1.0) -> list[dict]:
    return [{"wall": wall, "cpu": cpu_share * wall} for wall in seconds]


def test_a_ratio_is_the_median_over_rounds_with_an_interval_around_it() -> None:
    ratio = ratio_of(steps(4, 6, 8, 60), steps(2, 2, 2, 2), "wall")
    assert (ratio.median, ratio.rounds) == (3.5, 4)
    assert 2 <= ratio.low < ratio.median < ratio.high <= 30


def test_wall_time_counts_unless_something_else_used_the_core() -> None:
    alone, disturbed = steps(1, 1, 1, cpu_share=0.97), steps(1, 1, 1, cpu_share=0.5)
    assert clock_of({"a": alone, "b": alone}, is_gpu=False) == "wall"
    assert clock_of({"a": alone, "b": disturbed}, is_gpu=False) == "cpu"
    assert clock_of({"a": disturbed}, is_gpu=True) == "wall"


def test_the_distance_is_relative_to_the_largest_element() -> None:
    reference = {"a": numpy.array([1.0, -4.0]), "b": numpy.array([0.5])}
    assert distance(reference, reference) == 0
    assert distance(reference | {"b": numpy.array([0.6])}, reference) == pytest.approx(0.025)
    with pytest.raises(ValueError, match="differ"):
        distance({"a": reference["a"]}, reference)


def test_the_fit_finds_the_law_of_steps_that_follow_it() -> None:
    rng = random.Random(0)
    found = []
    for _ in range(12):
        sampled = {name: rng.randint(1, 100) for _, name in LAW["rollout"]}
        seconds = 0.01 * sampled["decode_steps"] + 0.002 * sampled["row_steps"]
        found.append({"sampled": sampled, "phases": {"rollout": {"cpu": seconds}}})
    law = fit(found, "rollout", "cpu")
    assert law["r2"] == pytest.approx(1)
    assert law["seconds_per"]["decode_steps"] == pytest.approx(0.01)
    assert law["seconds_per"]["prefill_tokens"] == pytest.approx(0, abs=1e-9)


def test_a_sweep_changes_one_thing_at_a_time() -> None:
    for point in points(SHAPE):
        same = [name for name in SHAPE.__slots__ if getattr(point.shape, name) == getattr(SHAPE, name)]
        assert set(SHAPE.__slots__) - set(same) <= {point.factor}


def test_the_reward_is_reached_when_the_mean_of_the_last_steps_is_there() -> None:
    assert not has_reached([1.0, 1.0], target=0.9)
    assert not has_reached([0.0, 0.0, 1.0, 1.0, 1.0], target=0.9)
    assert has_reached([0.0, 0.9, 0.9, 0.9, 0.9, 0.9], target=0.9)


def test_an_arm_that_never_reaches_the_target_counts_with_the_time_it_had() -> None:
    def curve(seconds: float, step: int | None) -> LearningCurve:
        return LearningCurve(step, {"wall": seconds, "cpu": seconds}, ())

    found = time_ratio([curve(30, 20), curve(80, None)], [curve(10, 20), curve(20, 25)], "wall")
    assert found["by_seed"] == [3, 4]
    assert time_ratio([curve(30, 20)], [curve(10, None)], "wall") is None


def test_the_gain_of_a_saving_is_predicted_from_the_counts() -> None:
    ours = {"updated": {"tokens": 1000}, "sampled": {"row_steps": 400}}
    without = {"updated": {"tokens": 1600}, "sampled": {"row_steps": 900}}
    assert predicted("dead_rows_kept", ours, without) == 1.6
    assert predicted("finished_stay", ours, without) == 2.25
    assert predicted("checkpointing", ours, ours) == 1.5
    assert predicted("quantized", ours, without) is None


def test_every_ablation_has_its_phase() -> None:
    assert set(WORK) == {arm.name for arm in ABLATIONS}


def test_untrimmed_micro_batches_have_every_live_row_and_count_their_tokens() -> None:
    import torch

    lengths, width = torch.tensor([3, 1, 2, 4, 4, 2]), 4
    mask = (torch.arange(width) < lengths[:, None]).long()
    batch = {"advantages": torch.tensor([1.0, 0.0, -1.0, 0.5, 0.5, -1.0]), "completion_mask": mask}
    plan = BatchPlan(2, 2, 1, "dapo", True, False, False, max_prompt_tokens=4, max_completion_tokens=width)
    (untrimmed,) = ablation_mixins("sorted and trimmed")
    found = untrimmed.cut(batch, plan, seed=0)
    slots = [slot for slot in found.slots if slot]
    assert sorted(int(row.sum()) for slot in slots for row in slot["completion_mask"]) == [2, 2, 3, 4, 4]
    assert all(slot["tokens"] == slot["completion_mask"].sum() for slot in slots)
    assert all(slot["completion_mask"].shape[1] == width for slot in slots)


RATIO = Ratio(3.2, 3.0, 3.4, 8).to_json()
PHASES = {phase: {"wall": 0.1, "cpu": 0.1} for phase in ("rollout", "scoring", "update", "optimizer", "other")}
ARM = {
    "seconds": {"wall": 0.5, "cpu": 0.5},
    "phases": PHASES,
    "useful_tokens_per_s": 5000.0,
    "sampled": {"row_steps": 2600},
    "updated": {"rows": 40},
    "peak_bytes": 2**30,
}
REPLAY = {
    "workload": workload(SHAPE).to_json(),
    "clock": "wall",
    "arms": {"ours": ARM, "trl": ARM},
    "ratios": {"trl": {"wall": RATIO, "cpu": RATIO}},
    "gradient_errors": {"trl": 3e-7},
    "weight_errors": {"trl": 2e-5},
    "row_order_error": 4e-7,
}
RECORD = {
    "preset": "tiny-cpu",
    "ratios": {"trl": {"replay_skewed": 3.2, "replay_equal": 3.2, "live": None}},
    "gradient_error": 3e-7,
    "weight_error": 2e-5,
    "limits": {"gradient_error": 1e-5, "weight_error": 1e-4},
    "is_valid": True,
    "steps": {"warmup": 2, "timed": 8},
    "arms": {"ours": "ours", "trl": "theirs"},
    "plain_trl": "with a shim",
    "replay": {"preset": {"skewed": REPLAY, "equal": REPLAY}},
}


def test_the_page_starts_with_the_ratio_or_reports_that_it_is_void() -> None:
    assert render(RECORD, TextPage()).startswith("A step takes trl 3.2 times as long as ours.")
    void = render(RECORD | {"is_valid": False}, TextPage())
    assert void.startswith("Void: the gradients differ")


def test_a_page_of_one_shape_says_which_and_how_near_its_products_come_to_the_peak() -> None:
    profile = {"step_s": 2.0, "products_s": 1.0, "attention_s": 0.2, "operations": 40e9}
    peak = {"32": 50e9, "2048": 80e9}
    arm = ARM | {"products": profile | {"shares": shares(profile, peak), "peak": peak}}
    replay = REPLAY | {"arms": {"ours": arm, "trl": arm}}
    ratios = {"trl": {"replay_skewed": None, "replay_equal": 3.2, "live": None}}
    page = render(RECORD | {"ratios": ratios, "replay": {"preset": {"equal": replay}}}, TextPage())
    assert page.startswith("A step takes trl 3.2 times as long as ours with equal lengths.")
    (row,) = (line.split() for line in page.splitlines() if line.split()[:1] == ["trl"] and line.endswith("40"))
    assert row == ["trl", "50", "%", "50", "%", "10", "%", "40"]
    assert "50 with 32 rows, 80 with 2048 rows" in page


def test_a_page_of_savings_alone_has_their_intervals_and_whether_gradients_are_equal() -> None:
    worth = {"step": RATIO, "phase": "update", "phase_ratio": 2.77, "phase_interval": [2.19, 2.83]}
    replay = REPLAY | {"gradient_errors": {"states_not_kept": 1.5e-6}}
    ablations = {"worth": {"every_layer": worth | {"predicted_phase_ratio": None}}, "replay": {"skewed": replay}}
    page = render(RECORD | {"ratios": {}, "replay": {}, "ablations": ablations, "plain_trl": None}, TextPage())
    assert page.startswith("What savings are worth.")
    assert "2.77x" in page
    assert "2.19 to 2.83" in page
    assert "first gradient 3.0e-07, limit 1.0e-05" in page


def test_arms_that_are_the_run_itself_are_no_ablation() -> None:
    whole = RunConfig.model_validate({"memory": {"kept_states": "off", "checkpointing": "none"}})
    last = with_overrides(whole, {"trainable.layers": "last:1", "memory.kept_states": "host"})
    every, not_kept = ARMS["every_layer"], ARMS["states_not_kept"]
    assert every.configure(whole) == whole == not_kept.configure(whole)
    assert every.configure(last) == whole != not_kept.configure(last)


@pytest.mark.slow
def test_the_picture_is_well_formed_and_shows_every_ratio() -> None:
    picture = draw(RECORD)
    xml.dom.minidom.parseString(picture)
    assert picture.count("3.20×") == 2
    assert draw(RECORD) == picture


def test_without_matplotlib_the_picture_names_the_extra(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SetupError, match="matplotlib") as raised:
        draw(RECORD)
    assert "lowmem-rl[slides]" in raised.value.hint
