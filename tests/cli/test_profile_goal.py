"""`profile --goal`: what is known before a run of when it reaches an accuracy."""

import json

import pytest

CARD = ("profile", "--preset", "qwen1.5b-24gb")


def goal_of(cli_here, *args: str) -> dict:
    outcome = cli_here(*args, "--json")
    assert outcome.code == 0
    return json.loads(outcome.stdout).get("goal")


def test_a_pass_rate_alone_forecasts_nothing(cli_here) -> None:
    found = goal_of(cli_here, *CARD, "--pass-rate", "0.3", "--goal", "0.6", "--price", "0.5")
    assert found["verdict"] == "too-early"
    assert (found["steps"], found["hours"], found["money"]) == (None, None, None)
    out = cli_here(*CARD, "--pass-rate", "0.3", "--goal", "0.6", "--price", "0.5").stdout
    low, high = found["planned_hours"]["low"], found["planned_hours"]["high"]
    last = " ".join(out.split("\n\n")[-1].split())
    assert "too early to tell" in last
    assert "report RUN --goal 0.6" in last
    assert last.endswith(f"takes {low:.2g} to {high:.2g} hours, {low / 2:.2f} to {high / 2:.2f} at 0.5 an hour.")


def test_runs_that_are_recorded_speak_for_their_like(cli_here) -> None:
    found = goal_of(cli_here, "profile", "--preset", "tiny-cpu", "--pass-rate", "0.3", "--goal", "0.6")
    assert found["verdict"] == "forecast"
    assert 14 < found["steps"]["low"] < 16 < 17 < found["steps"]["high"] < 19
    assert found["hours"] is None  # not known on a CPU


@pytest.mark.parametrize(("rate", "verdict"), [("0.7", "reached"), ("0.00001", "no-signal")])
def test_what_a_pass_rate_decides(cli_here, rate: str, verdict: str) -> None:
    assert goal_of(cli_here, *CARD, "--pass-rate", rate, "--goal", "0.6")["verdict"] == verdict


def test_without_a_goal_nothing_is_said(cli_here) -> None:
    assert goal_of(cli_here, *CARD, "--pass-rate", "0.3") is None


@pytest.mark.parametrize("other", [("--measure",), ("--score", "rows.json")])
def test_it_is_about_a_plan(cli_here, other: tuple[str, ...]) -> None:
    assert cli_here("profile", "--goal", "0.6", *other).code == 2
