import random
from dataclasses import replace

import pytest

from lowmem_rl.errors import RunDirError
from lowmem_rl.experiment.outcomes import Outcome
from lowmem_rl.experiment.seed_statistics import power
from lowmem_rl.experiment.study import Study, parse_study
from lowmem_rl.experiment.verdicts import compare_arms

SPREAD = 0.03


def study_of(seeds: int, arms: str = "abc") -> Study:
    tables = "".join(f"[arms.{arm}]\n" for arm in arms)
    return parse_study(f'[study]\nname = "s"\nseeds = {list(range(seeds))}\nbaseline = "a"\n{tables}', "s")


def runs(study: Study, gains: dict[str, float], drawn: random.Random) -> list[Outcome]:
    return [
        Outcome("task", arm.name, seed, "done", pass_at_1=0.5 + gains.get(arm.name, 0.0) + drawn.gauss(0, SPREAD))
        for arm in study.arms
        for seed in study.seeds
    ]


def words(study: Study, gains: dict[str, float], drawn: random.Random) -> dict[str, str]:
    return {one.arm: one.word for one in compare_arms(study, runs(study, gains, drawn)).arms}


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 6])
def test_of_studies_without_a_difference_at_most_one_in_twenty_names_a_winner(seeds: int) -> None:
    study, drawn = study_of(seeds), random.Random(seeds)
    found = [words(study, {}, drawn).values() for _ in range(200)]
    assert sum("better" in study_words for study_words in found) <= 0.05 * 200
    # A false alarm in either direction, three standard errors above 5 %.
    assert sum({"better", "worse"} & {*study_words} != set() for study_words in found) <= 19


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [2, 3])
def test_shares_of_few_items_name_no_winner_either(seeds: int) -> None:
    study, drawn, alarms = study_of(seeds, "ab"), random.Random(seeds), 0
    for _ in range(200):
        shares = {
            (arm, seed): sum(drawn.random() < 0.5 for _ in range(10)) / 10 for arm in "ab" for seed in range(seeds)
        }
        outcomes = [Outcome("task", arm, seed, "done", pass_at_1=share) for (arm, seed), share in shares.items()]
        alarms += compare_arms(study, outcomes).arms[1].word in ("better", "worse")
    assert alarms <= 19  # three standard errors above 5 %


def test_items_are_paired_by_id_and_not_by_their_order() -> None:
    study, share = study_of(2, "ab"), {"x": 1.0, "y": 0.0}
    turned = dict(reversed(share.items()))
    found = [
        compare_arms(
            study, [Outcome("task", "a", seed, "done", pass_at_1=0.5, items=one) for seed, one in enumerate(two)]
        )
        for two in ([share, share], [share, turned])
    ]
    assert found[0].arms[0].interval == found[1].arms[0].interval


@pytest.mark.slow
def test_a_true_gain_is_found_as_often_as_the_plan_said() -> None:
    study, drawn = study_of(6, "ab"), random.Random(0)
    found = sum(words(study, {"b": 0.05}, drawn)["b"] == "better" for _ in range(200))
    assert found / 200 == pytest.approx(power(0.05, SPREAD, 6), abs=0.1)  # three standard errors of 200


def test_words() -> None:
    study = study_of(6)
    noise = [0.001 * (-1) ** seed for seed in range(6)]
    outcomes = [
        Outcome("task", arm, seed, "done", pass_at_1=0.5 + gain + noise[seed] * scale)
        for arm, gain, scale in (("a", 0.0, 1), ("b", 0.1, 2), ("c", -0.005, 6))
        for seed in study.seeds
    ]
    assert [one.word for one in compare_arms(study, outcomes).arms] == ["baseline", "better", "no worse"]
    wide = [
        replace(one, pass_at_1=(one.pass_at_1 or 0) + (0.1 * noise[one.seed] / 0.001 if one.arm == "c" else 0))
        for one in outcomes
    ]
    assert compare_arms(study, wide).arms[2].word == "not distinguishable"


def test_a_run_that_failed_counts_with_what_it_reached_or_with_the_base() -> None:
    study = study_of(3, "ab")
    outcomes = [Outcome("task", "a", seed, "done", pass_at_1=0.9, base=0.1) for seed in study.seeds]
    outcomes += [Outcome("task", "b", 0, "done", pass_at_1=0.9), Outcome("task", "b", 1, "failed", pass_at_1=0.4)]
    found = compare_arms(study, [*outcomes, Outcome("task", "b", 2, "failed")])
    assert found.arms[1].value == pytest.approx((0.9 + 0.4 + 0.1) / 3)
    assert [one.seed for one in found.failed] == [1, 2]
    assert not found.is_interim


def test_a_study_is_interim_until_every_run_has_ended() -> None:
    study = study_of(2, "ab")
    outcomes = [Outcome("task", arm, 0, "done", pass_at_1=0.5) for arm in "ab"]
    found = compare_arms(study, [*outcomes, Outcome("task", "a", 1, "running"), Outcome("task", "b", 1, "to come")])
    assert found.is_interim
    assert [one.num_seeds for one in found.arms] == [1, 1]


def test_runs_on_other_items_are_refused() -> None:
    outcomes = [
        Outcome("task", arm, 0, "done", pass_at_1=1.0, items={item: 1.0}) for arm, item in (("a", "x"), ("b", "y"))
    ]
    with pytest.raises(RunDirError, match="evaluated on other items"):
        compare_arms(study_of(1, "ab"), outcomes)


def test_runs_on_items_of_the_same_ids_with_other_answers_are_refused() -> None:
    study, share = study_of(1, "ab"), {"x": 1.0, "y": 0.0}
    first = Outcome("task", "a", 0, "done", pass_at_1=0.5, items=share, answers={"x": "1", "y": "2"})
    other = replace(first, arm="b", answers={"x": "1", "y": "3"})
    with pytest.raises(RunDirError, match="evaluated on other items"):
        compare_arms(study, [first, other])
    assert compare_arms(study, [first, replace(first, arm="b", answers={"y": "2"})]).arms[1].num_seeds == 1


def test_a_run_that_failed_after_an_evaluation_on_a_part_of_the_items_counts_on_those() -> None:
    whole, part = {"x": 1.0, "y": 0.0, "z": 0.0}, {"x": 0.0, "y": 0.0}
    outcomes = [Outcome("task", "a", seed, "done", pass_at_1=1 / 3, items=whole) for seed in (0, 1)]
    outcomes += [
        Outcome("task", "b", 0, "failed", pass_at_1=0.0, items=part),
        Outcome("task", "b", 1, "done", pass_at_1=1 / 3, items=whole),
    ]
    found = compare_arms(study_of(2, "ab"), outcomes).arms[1]
    assert found.difference is not None
    assert found.difference.gain == pytest.approx((-0.5 + 0.0) / 2)
    assert found.value == pytest.approx(1 / 6)
    assert found.interval is not None


def test_runs_without_a_shared_item_have_no_interval() -> None:
    items = ({"x": 1.0, "y": 0.0}, {"x": 1.0}, {"y": 0.0})
    outcomes = [Outcome("task", "a", seed, "done", pass_at_1=0.5, items=one) for seed, one in enumerate(items)]
    assert compare_arms(study_of(3, "ab"), outcomes).arms[0].interval is None
