"""Controls: short runs under other rewards, and what they show about a run's gain."""

import json

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.entrypoints.controls import compare_controls, control_steps, rewards_of_controls, run_controls
from lowmem_rl.errors import Interrupted
from lowmem_rl.reports.compare import compare_runs
from lowmem_rl.storage.run_dir import RunDir, read_json, write_json
from lowmem_rl.telemetry.events import PhaseStarted
from tests.run_maker import make_run

SMALL = ("--preset=tiny-cpu", "--set=grpo.prompts_per_step=2", "--set=memory.micro_batch=16", "--set=eval.examples=8")


@pytest.fixture(scope="module")
def controlled(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    from lowmem_rl_cli.app import main

    out = tmp_path_factory.mktemp("controls") / "run"
    assert main(["train", *SMALL, "--steps=1", "--controls", f"--out={out}"]) == 0
    return RunDir(out)


def test_controls_are_runs_of_the_same_configuration_under_other_rewards(controlled) -> None:
    found = read_json(controlled.controls)
    assert [(control["name"], control["steps"]) for control in found["controls"]] == [("random", 1), ("format", 1)]
    paths = [controlled.path, *(controlled.path / control["path"] for control in found["controls"])]
    differences = compare_runs(paths).differences
    assert {key for key in differences if not key.startswith("rewards.")} <= {"eval.every"}
    assert differences["rewards.random"] == ("unset", 1.0, "unset")
    assert differences["rewards.boxed_answer"] == (1.0, "unset", "unset")
    assert all((path / "report.html").is_file() for path in paths)


def test_controls_use_the_same_prompts_in_the_same_order(controlled) -> None:
    asked = [
        [row["example_id"] for row in rows(RunDir(path).samples)] for path in (controlled.path, *parts(controlled))
    ]
    assert asked[0] == asked[1] == asked[2]


def parts(run: RunDir):
    return [run.control(name) for name in ("random", "format")]


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_sentences_name_the_gain_that_needs_no_correct_answers(tmp_path) -> None:
    main = make_run(tmp_path / "run", right=(2, 18))
    for name, right in (("random", (2, 3)), ("format", (2, 10))):
        make_run(RunDir(main).control(name), steps=5, right=right)
    controls = compare_controls(main, {"random": {"random": 1.0}, "format": {"think_format": 0.2}}, {})
    text = " ".join(controls.words)
    assert "The run gained +80.0 points" in text
    assert "a random reward made no measurable difference (+5.0 points" in text
    assert "+40.0 points" in text
    assert "came also with the format alone" in text
    assert "Beyond the format alone the run has +40.0 points" in text
    assert json.loads(json.dumps(controls.to_json()))["controls"][1]["beyond"]["won"] == 8


def test_a_useless_control_is_left_out_with_the_reason() -> None:
    def of(**rewards: float):
        return rewards_of_controls(RunConfig(rewards=rewards))

    assert list(of(boxed_answer=1.0, think_format=0.2)[0]) == ["random", "format"]
    assert of(boxed_answer=1.0)[1] == {"format": "the run is not paid for a format"}
    assert of(think_format=1.0)[1] == {"format": "the run is paid for nothing else"}
    assert set(of(random=1.0)[1]) == {"random", "format"}


@pytest.mark.parametrize(("steps", "expected"), [(4, 4), (40, 20), (400, 100)])
def test_a_control_takes_a_quarter_of_the_steps_and_at_least_twenty(steps, expected) -> None:
    assert control_steps(RunConfig.model_validate({"grpo": {"steps": steps}})) == expected


def test_controls_that_were_stopped_are_resumed(controlled, tmp_path) -> None:
    import shutil

    run = RunDir(tmp_path / "run")
    shutil.copytree(controlled.path, run.path)
    run.controls.unlink()
    stopped = RunDir(run.control("random"))
    write_json(stopped.evaluations, read_json(stopped.evaluations) | {"after": None, "comparison": None})
    composed = resolve(preset="tiny-cpu", settings=[option.removeprefix("--set=") for option in SMALL[1:]])
    assert run_controls(composed, run.path).to_json()["left_out"] == {}
    assert read_json(run.controls) == read_json(controlled.controls)


def test_stopping_a_control_leaves_the_run_as_it_was(controlled, tmp_path) -> None:
    import shutil

    shutil.copytree(controlled.path, tmp_path / "run", ignore=shutil.ignore_patterns("controls*"))
    before = sorted(path.name for path in (tmp_path / "run").iterdir())

    def stop(event: object) -> None:
        if isinstance(event, PhaseStarted) and event.name.startswith("loading"):
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="the run itself was finished"):
        run_controls(resolve(preset="tiny-cpu"), tmp_path / "run", stop)
    assert sorted(path.name for path in (tmp_path / "run").iterdir() if path.name != "controls") == before
