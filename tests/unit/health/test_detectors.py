"""Each detector on simulated runs: a fault is named within 20 steps, and none in a healthy run."""

from collections import Counter
from dataclasses import replace

import pytest

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.health.audit import DETECTORS, audit, detect_all
from lowmem_rl.health.dead_groups import CONCENTRATION, uneven_share
from lowmem_rl.health.dead_reward import PENALTIES
from lowmem_rl.health.detector import HealthFinding
from lowmem_rl.health.history import RunHistory
from lowmem_rl.rewards.reward_registry import REWARDS, load_reward
from lowmem_rl.signal.pass_rate import Beta
from tests.unit.health.simulated_runs import Fault, Policy, simulate

WITHIN = 20
EIGHTS = RunConfig.model_validate({"grpo": {"group_size": 8, "prompts_per_step": 8, "max_completion_tokens": 200}})


def with_settings(**sections: object) -> RunConfig:
    return RunConfig.model_validate(EIGHTS.model_dump() | sections)


def truncation_wall(policy: Policy, age: int) -> None:
    policy.tokens = 1000


def dead_reward(policy: Policy, age: int) -> None:
    policy.pass_rate = policy.form = 0.0


def never_right(policy: Policy, age: int) -> None:
    policy.pass_rate = 0.0


def dead_format(policy: Policy, age: int) -> None:
    policy.form = 0.0


def prefilled_think(policy: Policy, age: int) -> None:
    policy.form = 0.0
    policy.write = lambda rng, question, answer: f"{question}</think>\\boxed{{{answer}}}"


def blind_reward(policy: Policy, age: int) -> None:
    policy.extra = {"informative_share": 0.0, "reward_std": 0.0}


def destroyed(policy: Policy, age: int) -> None:
    policy.pass_rate, policy.form, policy.entropy, policy.tokens = 0.0, 0.0, 3.0, 4 * policy.tokens
    policy.write = lambda rng, question, answer: "".join(rng.choices("0123456789>boxed\ufffd\r", k=90))


def in_a_loop(policy: Policy, age: int) -> None:
    policy.write = lambda rng, question, answer: f"{question} {answer}. " + "So the answer is that. " * 20


def in_another_script(policy: Policy, age: int) -> None:
    policy.write = lambda rng, question, answer: "".join(chr(rng.randrange(0x4E00, 0x9FA0)) for _ in range(80))


def frozen(policy: Policy, age: int) -> None:
    policy.entropy, policy.unevenness, policy.form = 0.004, 0.1, 1.0


def far_from_base(policy: Policy, age: int) -> None:
    policy.extra = {"kl": 5.0}


def padding(policy: Policy, age: int) -> None:
    policy.tokens, policy.pass_rate = 2.6 * 50, 0.3


def laconic(policy: Policy, age: int) -> None:
    policy.tokens, policy.pass_rate = 15, 0.3


def only_form(policy: Policy, age: int) -> None:
    policy.form, policy.pass_rate = min(1.0, 0.3 + age / 10), max(0.05, 0.5 - age / 20)


def hacked(policy: Policy, age: int) -> None:
    policy.hacked, policy.pass_rate = min(1.0, age / 10), 0.3


def other_weights(policy: Policy, age: int) -> None:
    policy.extra = {"rollout_gap_nats": 1.7, "sampler_fell_back": 1.0} if age == 0 else {}


def never_stops(policy: Policy, age: int) -> None:
    policy.tokens = 1000
    policy.write = lambda rng, question, answer: f"\\boxed{{{answer}}}" + f" {rng.random()}" * 8


def plays_the_user(policy: Policy, age: int) -> None:
    policy.write = lambda rng, question, answer: f"\\boxed{{{answer}}}\nuser\n{question}"


def one_answer(policy: Policy, age: int) -> None:
    policy.write, policy.pass_rate = lambda rng, question, answer: "\\boxed{42}", 0.01


def no_number(policy: Policy, age: int) -> None:
    policy.extra = {"loss": None, "grad_norm": None}


def skipped(policy: Policy, age: int) -> None:
    """float16 finds its scale: gradients that overflow, and no weight that moves."""
    policy.extra = {"grad_norm": None, "optimizer_skipped": 1.0, "loss_scale": 2.0 ** (16 - age), "kl": 0.0}


def endless_sums(policy: Policy, age: int) -> None:
    policy.extra = {"late_verdicts": 6}


CASES: list[tuple[str, Fault, RunConfig, int]] = [
    ("truncation_wall", truncation_wall, EIGHTS, 1),
    ("truncation_wall", truncation_wall, EIGHTS, 21),
    ("dead_reward", dead_reward, EIGHTS, 1),
    ("dead_reward", dead_reward, EIGHTS, 21),
    ("dead_reward", never_right, EIGHTS, 1),
    ("dead_reward", dead_format, EIGHTS, 1),
    ("template_mismatch", prefilled_think, EIGHTS, 1),
    ("template_mismatch", never_stops, EIGHTS, 1),
    ("template_mismatch", plays_the_user, EIGHTS, 11),
    ("dead_groups", blind_reward, EIGHTS, 1),
    ("dead_groups", blind_reward, EIGHTS, 21),
    ("learning_rate_too_high", destroyed, EIGHTS, 3),
    ("learning_rate_too_high", destroyed, EIGHTS, 21),
    ("gibberish", destroyed, EIGHTS, 3),
    ("gibberish", in_a_loop, EIGHTS, 1),
    ("gibberish", in_a_loop, EIGHTS, 21),
    ("gibberish", in_another_script, EIGHTS, 11),
    ("entropy_collapse", frozen, EIGHTS, 21),
    ("kl_blowup", far_from_base, EIGHTS, 21),
    ("length_explosion", padding, EIGHTS, 21),
    ("length_collapse", laconic, EIGHTS, 21),
    ("format_gain", only_form, EIGHTS, 1),
    ("reward_hacking", hacked, EIGHTS, 6),
    ("sampler_mismatch", other_weights, EIGHTS, 1),
    ("late_verdicts", endless_sums, EIGHTS, 1),
    ("late_verdicts", endless_sums, EIGHTS, 21),
    ("input_agnostic", one_answer, EIGHTS, 11),
    ("not_a_number", no_number, EIGHTS, 21),
    ("not_a_number", skipped, EIGHTS, 1),
]


def named_at(record: RunHistory, name: str) -> int | None:
    """Returns the step after which the name is first reported during the run."""
    steps = (row["step"] for row in record.rows)
    return next((step for step in steps if any(found.name == name for found in detect_all(record.until(step)))), None)


def names(record: RunHistory) -> dict[str, HealthFinding]:
    return {finding.name: finding for finding in audit(record).findings}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "fault", "config", "onset"), CASES, ids=lambda value: getattr(value, "__name__", value)
)
def test_a_fault_is_named_within_20_steps_of_its_onset(name, fault, config, onset, seed):
    start = 0.5 if name not in ("length_explosion", "length_collapse", "reward_hacking") else 0.3
    record = simulate(seed, onset + 2 * WITHIN, config=config, fault=fault, onset=onset, start=start)
    named = named_at(record, name)
    assert named is not None
    assert onset <= named < onset + WITHIN


def bfloat16(policy: Policy, age: int) -> None:
    policy.extra = {"lost_update_share": 0.9}


IN_BFLOAT16 = with_settings(trainable={"method": "full", "layers": "first:1", "dtype": "bfloat16"})


def test_lost_updates_are_named_after_ten_steps_of_bfloat16_alone() -> None:
    record = simulate(0, 30, config=IN_BFLOAT16, fault=bfloat16, onset=4, start=0.5)
    assert named_at(record, "updates_lost") == 13
    found = names(record)["updates_lost"]
    assert found.level == "warning"
    assert "float32" in found.fix
    assert "learning_rate" in found.fix
    in_float32 = with_settings(trainable={"method": "full", "layers": "first:1"})
    assert "updates_lost" not in names(simulate(0, 30, config=in_float32, fault=bfloat16, start=0.5))


@pytest.mark.parametrize(("share", "steps"), [(0.5, 30), (0.9, 9)])
def test_few_lost_updates_and_few_steps_are_no_finding(share: float, steps: int) -> None:
    def some(policy: Policy, age: int) -> None:
        policy.extra = {"lost_update_share": share}

    assert named_at(simulate(0, steps, config=IN_BFLOAT16, fault=some, start=0.5), "updates_lost") is None


def test_skipped_steps_are_fine_until_the_scale_falls_below_one() -> None:
    found = names(simulate(0, 17, config=EIGHTS, fault=skipped, onset=1))
    assert not found
    (finding,) = names(simulate(0, 18, config=EIGHTS, fault=skipped, onset=1)).values()
    assert (finding.name, finding.level, finding.steps) == ("not_a_number", "critical", (18, 18))
    assert "scaled by no more than 1." in finding.what
    assert "learning_rate" not in finding.fix


def test_a_destroyed_policy_is_named_with_two_prompts_a_step_too():
    config = with_settings(grpo={"group_size": 8, "prompts_per_step": 2, "max_completion_tokens": 200})
    for seed in range(5):
        named = named_at(
            simulate(seed, 23, config=config, fault=destroyed, onset=3, start=0.5), "learning_rate_too_high"
        )
        assert named is not None


def test_of_pairs_on_hard_prompts_nearly_all_groups_are_reported_dead():
    config = with_settings(grpo={"group_size": 2, "prompts_per_step": 8, "pairwise": True, "scale_rewards": "none"})
    config = config.model_copy(update={"rewards": {"boxed_answer": 1.0}})
    for seed in range(5):
        record = simulate(seed, WITHIN, config=config, start=0.03, fault=hard)
        assert "group_size to 4" in names(record)["dead_groups"].fix


def hard(policy: Policy, age: int) -> None:
    policy.pass_rate = 0.03


def test_a_rate_that_moves_nothing_is_reported_after_sixty_rounds():
    def still(policy: Policy, age: int) -> None:
        policy.pass_rate, policy.form, policy.tokens, policy.entropy = 0.4, 0.9, 50, 0.3

    named = [named_at(simulate(seed, 80, config=EIGHTS, fault=still), "learning_rate_too_low") for seed in range(5)]
    assert sum(step is not None for step in named) >= 4
    assert min(filter(None, named)) >= 60


@pytest.mark.slow
def test_of_forty_healthy_runs_none_is_critical_and_at_most_one_gets_a_warning():
    """Group sizes 4 to 16, 1 to 16 prompts a step, pass rates of 0.2 to 0.97; every step is audited."""
    severities = Counter(finding.level for seed in range(40) for finding in audit(simulate(1000 + seed, 40)).findings)
    assert severities["critical"] == 0
    assert severities["warning"] <= 1


def test_few_rows_give_no_finding_however_bad_they_look():
    for fault in (truncation_wall, dead_reward, blind_reward, padding, hacked):
        record = simulate(0, 2, config=EIGHTS, fault=fault)
        assert not [finding for finding in detect_all(record) if finding.level != "note"], fault.__name__


def test_a_curriculum_from_easy_to_hard_is_not_called_a_breakdown():
    config = with_settings(curriculum={"by": "level", "how": "easy_to_hard"})

    def harder(policy: Policy, age: int) -> None:
        policy.pass_rate, policy.tokens, policy.entropy = max(0.1, 0.8 - age / 30), 20 + 3 * age, 0.1 + age / 50

    record = simulate(0, 40, config=config, fault=harder, start=0.8)
    assert not names(record)
    assert "prompts of one kind" in audit(record).not_judged["learning_rate_too_high"]


def test_longer_completions_that_pay_and_certainty_that_is_right_are_learning():
    def learns(policy: Policy, age: int) -> None:
        done = min(1.0, age / 20)
        policy.pass_rate, policy.tokens, policy.entropy = 0.3 + 0.66 * done, 20 + 25 * done, 0.15 - 0.14 * done

    assert not names(simulate(0, 40, config=EIGHTS, fault=learns, start=0.3))


def test_a_fault_that_passes_is_reported_as_over():
    def for_a_while(policy: Policy, age: int) -> None:
        if age < 15:
            truncation_wall(policy, age)

    found = names(simulate(0, 60, config=EIGHTS, fault=for_a_while, onset=11))["truncation_wall"]
    assert not found.lasts
    assert "over since" in str(found)
    assert found.steps[0] < 20 < found.steps[1] < 40


def test_a_sampler_fallback_is_reported_and_does_not_hide_a_later_collapse():
    record = simulate(0, 30, config=EIGHTS, fault=other_weights, onset=3)
    assert "sampler_mismatch" in {finding.name for finding in detect_all(record.until(3))}
    assert "sampler_mismatch" not in {finding.name for finding in detect_all(record)}
    found = {finding.name: finding for finding in audit(record).findings}["sampler_mismatch"]
    assert (found.steps, found.level, found.lasts) == ((3, 3), "warning", False)


def test_dead_groups_are_expected_by_the_formula_of_the_signal_report():
    for rate in (0.05, 0.3, 0.9):
        spread = Beta(CONCENTRATION * rate, CONCENTRATION * (1 - rate))
        assert uneven_share(rate, 8) == pytest.approx(1 - spread.dead_share(8))


def test_identical_completions_differ_from_a_reward_that_sees_no_difference():
    def copies(policy: Policy, age: int) -> None:
        blind_reward(policy, age)
        policy.write = lambda rng, question, answer: question

    assert "temperature" in names(simulate(0, 20, config=EIGHTS, fault=copies))["dead_groups"].fix
    assert "rewards check" in names(simulate(0, 20, config=EIGHTS, fault=blind_reward))["dead_groups"].fix


def test_held_out_accuracy_that_falls_under_a_rising_reward_is_hacking():
    record = simulate(0, 40, config=EIGHTS, start=0.2, fault=rise)
    assert "reward_hacking" not in names(record)
    before, *during = record.evaluations
    worse = [replace(evaluation, pass_at_1=0.05) for evaluation in during]
    found = names(replace(record, evaluations=(replace(before, pass_at_1=0.4), *worse)))
    assert "held-out" in found["reward_hacking"].what


def rise(policy: Policy, age: int) -> None:
    policy.pass_rate = min(0.8, 0.2 + age / 30)


def test_penalties_are_those_of_our_rewards_whose_best_is_zero():
    assert set(PENALTIES) == {name for name in REWARDS if getattr(load_reward(name), "high", 1.0) == 0}


def test_every_detector_names_what_it_needs():
    assert len({detector.name for detector in DETECTORS}) == len(DETECTORS)
    assert all(str(detector.needs) for detector in DETECTORS)


@pytest.mark.parametrize(("schedule", "is_found"), [("fixed", True), ("gradual_unfreezing", False)])
def test_a_dip_right_after_other_layers_begin_to_learn_is_no_finding(schedule: str, is_found: bool) -> None:
    trainable = {"schedule": schedule} | ({} if schedule == "fixed" else {"every": 20})
    plain = simulate(3, steps=22, config=with_settings(trainable=trainable), start=0.6)
    before, dip = (
        {"accuracy": 0.6, "trainable_layers": "1-2"},
        {"accuracy": 0.0, "trainable_layers": "0-2", "entropy": 4.0},
    )
    rows = [row | (before if row["step"] <= 20 else dip) for row in plain.rows]
    found = {finding.name for finding in detect_all(replace(plain, rows=tuple(rows)))}
    assert ("learning_rate_too_high" in found) == is_found


def test_who_is_never_right_is_advised_no_larger_group():
    for fault, name in (
        (dead_reward, "dead_reward"),
        (never_right, "dead_reward"),
        (blind_and_never_right, "dead_groups"),
    ):
        fix = names(simulate(0, WITHIN, config=EIGHTS, fault=fault))[name].fix
        assert "easier level" in fix
        assert fix.index("`lowmem-rl warmup`") < fix.index("a larger model")
        assert "group_size" not in fix


def blind_and_never_right(policy: Policy, age: int) -> None:
    policy.pass_rate = 0.0
    policy.extra = {"informative_share": 0.0, "reward_std": 0.0}
