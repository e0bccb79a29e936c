import json
from pathlib import Path

import pytest

from lowmem_rl.reports.html import render
from lowmem_rl.reports.run_record import read_record
from lowmem_rl.reports.sections.goals import goals_of
from lowmem_rl.storage.run_dir import RunDir, write_rows
from tests.run_maker import make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of 15 steps of a minute each, whose accuracy rises from 0.2 to 0.5."""
    path = make_run(tmp_path / "run", steps=15, grpo__steps=20, grpo__group_size=64, grpo__prompts_per_step=64)
    rows = [json.loads(line) for line in RunDir(path).metrics.read_text().splitlines()]
    logistic = [1 / (1 + 2.718281828 ** (1.5 - 0.1 * step)) for step in range(1, 16)]
    write_rows(
        RunDir(path).metrics, (row | {"accuracy": y, "step_s": 60.0} for row, y in zip(rows, logistic, strict=True))
    )
    return path


def test_goals_ahead_have_a_step_hours_and_a_price(run: Path) -> None:
    table = goals_of(read_record(run), price=3.0)
    assert [row[0] for row in table.rows] == ["50 %", "60 %", "70 %", "80 %", "90 %"]
    accuracy, step, interval, hours, price = table.rows[3]
    assert float(step) == pytest.approx(28.9, abs=1.5)  # log-odds of 0.8 are 1.39
    low, high = map(float, interval.split(" to "))
    assert low <= 28.9 <= high
    assert float(hours.split(" to ")[1]) == pytest.approx((high - 15) / 60, rel=0.1)
    assert float(price.split(" to ")[1]) == pytest.approx(3 * (high - 15) / 60, abs=0.1)


def test_the_page_has_the_table_and_a_young_run_has_none(run: Path, tmp_path: Path) -> None:
    assert "When it will reach" in render(read_record(run))
    young = make_run(tmp_path / "young", steps=5)
    assert "When it will reach" not in render(read_record(young))


def test_the_command_says_when_and_for_how_much(cli_here, run: Path) -> None:
    code, out, _ = cli_here("report", str(run), "--goal", "0.8", "--price-per-hour", "3")
    assert code == 0
    path, sentence = out.splitlines()
    assert path.endswith("report.html")
    assert sentence.startswith("Accuracy 0.8 in training: at step ")
    assert "in money" in sentence
    assert " Its plan ends before that, at step 20." in sentence


def of_accuracies(path: Path, accuracies: list[float]) -> Path:
    """A run of 64 completions a step with these accuracies."""
    run = make_run(path, steps=len(accuracies), grpo__group_size=8, grpo__prompts_per_step=8)
    rows = [json.loads(line) for line in RunDir(run).metrics.read_text().splitlines()]
    write_rows(RunDir(run).metrics, (row | {"accuracy": y} for row, y in zip(rows, accuracies, strict=True)))
    return run


@pytest.mark.parametrize(
    ("accuracies", "goal", "says"),
    [
        ([0.9, 0.8, 0.9], 0.8, "reached; the mean of the last 3 steps is 0.867."),
        ([0.1] * 5 + [0.9] * 5, 0.8, "reached; the mean of the last 5 steps is 0.9."),
        ([0.2, 0.3, 0.4], 0.8, "too early to tell from 3 steps; a curve can tell from step 8 on."),
        ([0.5, 0.4] * 6, 0.8, "too early to tell; the last steps do not rise for certain."),
        ([0.1 + 0.02 * step for step in range(10)], 0.99, "too early to tell; it may come only after 3 times as many"),
    ],
)
def test_without_a_forecast_the_command_says_why(
    cli_here, tmp_path: Path, accuracies: list[float], goal: float, says: str
) -> None:
    out = cli_here("report", str(of_accuracies(tmp_path / "run", accuracies)), "--goal", str(goal))[1]
    assert out.splitlines()[1].startswith(f"Accuracy {goal} in training: {says}")


def test_a_run_without_accuracies_is_not_called_early(cli_here, run: Path) -> None:
    metrics = RunDir(run).metrics
    write_rows(metrics, [json.loads(line) | {"accuracy": None} for line in metrics.read_text().splitlines()])
    assert "not known; the metrics lack" in cli_here("report", str(run), "--goal", "0.5")[1]


@pytest.mark.parametrize("share", [2.0, -1.0])
def test_an_accuracy_that_is_no_share_has_no_forecast(run: Path, share: float) -> None:
    metrics = RunDir(run).metrics
    write_rows(metrics, [json.loads(line) | {"accuracy": share} for line in metrics.read_text().splitlines()])
    assert not goals_of(read_record(run)).rows


@pytest.mark.parametrize("size", [-64, 10**400])
def test_a_group_of_a_strange_size_has_no_forecast(run: Path, size: int) -> None:
    config = RunDir(run).config
    found = json.loads(config.read_text())
    found["config"]["grpo"]["group_size"] = size
    config.write_text(json.dumps(found))
    assert not goals_of(read_record(run)).rows
