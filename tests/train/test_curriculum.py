"""Real runs in an order of their own: what they ask, what they record, and that the record gives the rest."""

import json
from pathlib import Path

import pytest

from lowmem_rl.config.compose import ResolvedConfig, resolve
from lowmem_rl.entrypoints.preflight import other_model_notes, prepare
from lowmem_rl.grpo.prompt_order import AdaptiveOrder
from lowmem_rl.storage.run_dir import RunDir, read_rows
from lowmem_rl.tasks.curriculum import RolloutOutcome, read_order

SETTINGS = {
    "eval.examples": 8,
    "eval.every": 0,
    "grpo.prompts_per_step": 2,
    "memory.micro_batch": 8,
    "logging.samples_every": 1,
}
SMALL = ("--preset=tiny-cpu", *(f"--set={key}={value}" for key, value in SETTINGS.items()))
WINDOW = ("--set=curriculum.by=pass_rate", "--set=curriculum.how=window")


def recorded(run: Path) -> list[RolloutOutcome]:
    return read_order(RunDir(run).order)


def composed(*options: str) -> ResolvedConfig:
    return resolve(preset="tiny-cpu", settings=[option.removeprefix("--set=") for option in (*SMALL[1:], *options)])


def write_rates(file: Path, rates: dict[str, tuple[int, int]], task: str = "arithmetic") -> str:
    rows = [{"example_id": key, "passed": right, "samples": sampled} for key, (right, sampled) in rates.items()]
    file.write_text(json.dumps({"task": task, "examples": rows}))
    return f"--set=curriculum.rates={json.dumps(str(file))}"


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps in a moving window."""
    from lowmem_rl_cli.app import main

    out = tmp_path_factory.mktemp("moved") / "run"
    assert main(("train", *SMALL, *WINDOW, "--steps=6", f"--out={out}")) == 0
    return out


def test_the_record_says_what_was_asked_and_how_much_of_it_was_right(moved) -> None:
    steps, samples = recorded(moved), list(read_rows(RunDir(moved).samples))
    assert [drawn.step for drawn in steps] == [1, 2, 3, 4, 5, 6]
    for drawn, metrics in zip(steps, read_rows(RunDir(moved).metrics), strict=True):
        asked = [row for row in samples if row["step"] == drawn.step]
        assert [row["example_id"] for row in asked] == [key for key in drawn.examples for _ in range(drawn.sampled)]
        assert metrics["accuracy"] == sum(drawn.right) / len(asked)


def test_each_step_is_drawn_from_what_came_out_up_to_the_one_before(moved) -> None:
    """Also what a run that resumes from the record must do: replay it, and draw the same."""
    inputs = prepare(composed(*WINDOW, "--set=grpo.steps=6"))
    config, steps = inputs.plan.config, recorded(moved)
    for number, drawn in enumerate(steps):
        order = AdaptiveOrder(inputs.train, config, {}, steps[:number])
        rows = order.choose_prompts([{}] * config.rows_per_rollout, drawn.step)
        assert [row["example_id"] for row in rows] == [key for key in drawn.examples for _ in range(drawn.sampled)]
    asked = [key for drawn in steps for key in drawn.examples]
    assert len(set(asked)) < len(asked)  # it has come back to some


def test_a_window_begins_with_what_a_probe_has_found(cli_here, tmp_path) -> None:
    train = [example.id for example in prepare(composed(*WINDOW, "--set=grpo.steps=4")).train]
    rates = dict.fromkeys(train, (0, 64)) | dict.fromkeys(train[:2], (32, 64))
    option = write_rates(tmp_path / "probe.json", rates)
    outcome = cli_here("train", *SMALL, *WINDOW, option, "--steps=1", f"--out={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.stderr
    (drawn,) = recorded(tmp_path / "run")
    assert set(drawn.examples) == set(train[:2])


def test_two_steps_of_one_round_of_sampling_are_one_record(cli_here, tmp_path) -> None:
    options = (*WINDOW, "--set=grpo.steps_per_rollout=2", "--steps=4")
    assert cli_here("train", *SMALL, *options, f"--out={tmp_path / 'run'}").code == 0
    steps = recorded(tmp_path / "run")
    assert [(drawn.step, len(set(drawn.examples))) for drawn in steps] == [(1, 4), (3, 4)]


def test_from_easy_to_hard_over_the_whole_run(cli_here, tmp_path) -> None:
    # Two passes over each round of sampling: the run asks half as many prompts as it has steps.
    options = ("--set=curriculum.by=level", "--set=task.levels=[1,3]", "--set=grpo.passes_per_rollout=2", "--steps=8")
    outcome = cli_here("train", *SMALL, *options, f"--out={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.stderr
    level = {example.id: example.level for example in prepare(composed(*options[:-1], "--set=grpo.steps=8")).train}
    steps = recorded(tmp_path / "run")
    levels = [level[key] for drawn in steps for key in drawn.examples]
    assert [drawn.step for drawn in steps] == [1, 3, 5, 7]
    assert levels == sorted(levels)
    assert {levels[0], levels[-1]} == {1, 3}


def test_by_pass_rate_from_a_real_probe(cli_here, tmp_path) -> None:
    probe = tmp_path / "probe.json"
    assert cli_here("probe", "--preset=tiny-cpu", "--examples=6", "--samples=8", f"--out={probe}").code == 0
    passed = {row["example_id"]: row["passed"] for row in json.loads(probe.read_text())["examples"]}
    options = ("--set=curriculum.by=pass_rate", f"--set=curriculum.rates={json.dumps(str(probe))}", "--steps=3")
    outcome = cli_here("train", *SMALL, *options, f"--out={tmp_path / 'run'}")
    assert outcome.code == 0, outcome.stderr
    assert "6 of 12 examples have no pass rate" in outcome.stderr
    rates = [passed[key] for drawn in recorded(tmp_path / "run") for key in drawn.examples]
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "holds no pass rates"),
        (json.dumps({"task": "gsm8k", "examples": []}), "of task 'gsm8k', and this run learns 'arithmetic'"),
        (
            json.dumps({"task": "arithmetic", "examples": [{"example_id": "x", "passed": 1, "samples": 8}]}),
            "none of this run's is among them",
        ),
    ],
)
def test_a_file_without_this_runs_pass_rates_is_refused_before_anything_is_loaded(
    content, expected, cli_here, tmp_path
) -> None:
    file = tmp_path / "probe.json"
    file.write_text(content)
    rates = f"--set=curriculum.rates={json.dumps(str(file))}"
    outcome = cli_here("train", *SMALL, *WINDOW, rates, f"--out={tmp_path / 'run'}")
    assert outcome.code == 6
    assert expected in outcome.stderr
    assert outcome.stderr.count("\n") == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("model", "notes"), [({}, 0), ({"model": "tiny"}, 0), ({"model": "some/other"}, 1)])
def test_pass_rates_of_another_model_are_noted(tmp_path, model, notes) -> None:
    option = write_rates(tmp_path / "rates.json", {"a": (1, 4)})
    file = tmp_path / "rates.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | model))
    found = other_model_notes(composed("--set=curriculum.by=pass_rate", option).config)
    assert len(found) == notes
    assert all("some/other" in note for note in found)
