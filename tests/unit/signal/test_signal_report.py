import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from lowmem_rl.config.run_config import RolloutConfig
from lowmem_rl.signal.pass_rate import given, measured, unknown
from lowmem_rl.signal.signal_report import MOST_PROMPTS, VERDICTS, signal_report

PASS_RATES = st.one_of(st.just(unknown()), st.floats(0, 1).map(given), st.just(measured([(1, 8), (5, 8), (8, 8)])))


@pytest.mark.parametrize(
    ("group_size", "prompts", "verdict"),
    [
        # P0 = .03 and K = 2.4 with four prompts, K = 1.8 with three; a group of four stays a note.
        (4, 4, "note"),
        (4, 3, "warning"),
        (8, 3, "ok"),
        (8, 2, "warning"),  # K = 1.6
        (8, 1, "warning"),  # P0 = .22
        (4, 1, "warning"),  # P0 = .40
        (2, 4, "too-small"),
        (3, 64, "too-small"),
        (16, 8, "ok"),
    ],
)
def test_verdicts_when_nothing_is_known_of_the_pass_rate(group_size, prompts, verdict):
    assert signal_report(group_size, prompts, unknown()).verdict == verdict


def test_the_figures_of_the_usual_set_ups():
    figures = {
        (size, prompts): round(signal_report(size, prompts, unknown()).dead_step_probability, 2)
        for size, prompts in [(8, 1), (4, 1), (2, 4), (4, 4)]
    }
    assert figures == {(8, 1): 0.22, (4, 1): 0.40, (2, 4): 0.20, (4, 4): 0.03}
    assert round(signal_report(8, 2, unknown()).informative_groups_per_step, 1) == 1.6
    assert signal_report(8, 2, unknown()).smallest_group_size == 9


@pytest.mark.parametrize(
    ("pass_rate", "prompts", "verdict"),
    [
        (0.02, 64, "too-small"),  # S = .15
        (0.05, 64, "warning"),  # S = .34
        (0.1, 8, "ok"),  # S = .57, P0 = .001, K = 4.6
        (0.05, 1, "too-small"),  # P0 = .66
        (0.0, 64, "too-small"),
        (1.0, 64, "too-small"),
    ],
)
def test_verdicts_of_a_group_of_eight_at_a_given_pass_rate(pass_rate, prompts, verdict):
    assert signal_report(8, prompts, given(pass_rate)).verdict == verdict


@pytest.mark.parametrize(
    ("scale_rewards", "prompts", "pairwise", "verdict"),
    [
        ("none", 8, True, "warning"),
        ("batch", 8, True, "warning"),
        ("group", 8, True, "too-small"),
        ("none", 7, True, "too-small"),
        ("none", 8, False, "too-small"),
    ],
)
def test_pairs_pass_only_when_asked_for_unscaled_and_many(scale_rewards, prompts, pairwise, verdict):
    report = signal_report(2, prompts, given(0.5), scale_rewards, pairwise=pairwise)
    assert report.verdict == verdict


def test_the_fix_of_thin_steps_is_more_prompts():
    (finding,) = signal_report(8, 1, unknown()).findings
    assert finding.what == "0.8 informative groups a step, none at all in 22 % of steps"
    assert finding.settings == {"grpo.prompts_per_step": 3}


def test_the_fix_of_rare_differences_is_a_larger_group_or_other_data():
    (finding,) = signal_report(8, 64, given(0.05)).findings
    assert finding.settings == {"grpo.group_size": 14}
    assert "0.2 to 0.8" in finding.fix


@pytest.mark.parametrize("group_size", [2, 4, 8, 64])
@pytest.mark.parametrize("pass_rate", [given(0.0), given(0.01), measured([(0, 8)] * 64)])
def test_near_zero_no_finding_advises_a_larger_group_alone(group_size, pass_rate):
    report = signal_report(group_size, 2, pass_rate, reward="boxed_answer", other_rewards=["think_format"])
    assert report.findings
    for finding in report.findings:
        ways = ("easier level", "any_answer", "`lowmem-rl warmup`", "larger model", "examples in the prompt")
        places = [finding.fix.index(way) for way in ways]
        assert places == sorted(places)
        assert (dict(finding.settings), "group_size" in finding.fix) == ({}, False)


def test_who_pays_any_answer_is_offered_no_more_lenient_reward():
    (finding, *_) = signal_report(8, 8, given(0.0), reward="any_answer").findings
    assert "--reward" not in finding.fix


@forall(st.integers(4, 64), st.integers(1, 64), PASS_RATES)
def test_a_fix_works_and_never_lowers_the_group(group_size, prompts, pass_rate):
    for finding in signal_report(group_size, prompts, pass_rate).findings:
        fixed = {"grpo.group_size": group_size, "grpo.prompts_per_step": prompts} | finding.settings
        assert fixed["grpo.group_size"] >= group_size
        assert prompts <= fixed["grpo.prompts_per_step"] <= MOST_PROMPTS + prompts
        after = signal_report(fixed["grpo.group_size"], fixed["grpo.prompts_per_step"], pass_rate)
        if finding.settings:
            assert finding.what.partition(" ")[2] not in [other.what.partition(" ")[2] for other in after.findings]


@forall(st.integers(2, 64), st.integers(1, 64), PASS_RATES)
def test_more_prompts_or_completions_never_make_the_verdict_worse(group_size, prompts, pass_rate):
    def badness(size: int, count: int) -> int:
        return VERDICTS.index(signal_report(size, count, pass_rate).verdict)

    assert badness(group_size, prompts + 1) <= badness(group_size, prompts)
    assert badness(group_size + 1, prompts) <= badness(group_size, prompts)


def test_hard_and_easy_data_call_for_sixteen():
    sizes = [signal_report(8, 8, given(rate)).recommended_group_size for rate in (0.05, 0.5, 0.95)]
    assert sizes == [16, 8, 16]


def test_a_paid_format_is_named_as_what_it_hides():
    report = signal_report(8, 8, unknown(), other_rewards=["think_format"])
    assert report.caveats == (
        "think_format is paid too: it can keep groups informative that say nothing about being right",
    )


@pytest.mark.parametrize(
    ("sampling", "level", "fix"),
    [
        ({"top_k": 1}, "too-small", "set rollout.top_k=0"),
        ({"top_p": 0.001}, "too-small", "set rollout.top_p=1.0"),
        ({"min_p": 1.0}, "too-small", "set rollout.min_p=0.0"),
        ({"temperature": 0.001}, "too-small", "set rollout.temperature=1.0"),
        ({"temperature": 0.05}, "warning", "set rollout.temperature=1.0"),
        ({"top_p": 0.1}, "warning", "set rollout.top_p=1.0"),
        ({"min_p": 0.9}, "warning", "set rollout.min_p=0.0"),
        ({"temperature": 0.2, "top_k": 1}, "too-small", "set rollout.temperature=1.0 and rollout.top_k=0"),
    ],
)
def test_sampling_without_variety_carries_no_signal(sampling, level, fix) -> None:
    report = signal_report(16, 16, given(0.5), rollout=RolloutConfig(**sampling))
    assert (report.verdict, report.findings[0].fix) == (level, fix)


@pytest.mark.parametrize(
    "sampling", [{}, {"temperature": 0.6}, {"top_k": 2}, {"top_p": 0.9}, {"min_p": 0.1}, {"temperature": 2.0}]
)
def test_usual_sampling_has_variety(sampling) -> None:
    assert signal_report(16, 16, given(0.5), rollout=RolloutConfig(**sampling)).verdict == "ok"


def test_a_small_group_hears_of_the_median_unless_it_has_it():
    for baseline, expected in (("mean", True), ("median", False)):
        (finding,) = signal_report(5, 8, given(0.5), baseline=baseline).findings
        assert (finding.level, "median" in finding.fix) == ("note", expected)
        assert finding.settings == {"grpo.group_size": 8}
