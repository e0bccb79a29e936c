"""Trackers write where their run is, under one name, and leave the environment as it was."""

import os

import pytest

from lowmem_rl.evaluation.eval_result import EvalResult
from lowmem_rl.stats import Interval
from lowmem_rl.telemetry.trackers import IDENTITY, Trackers, evaluation_values, trackers_in

VARIABLE = "TENSORBOARD_LOGGING_DIR"


def trackers(*names: str) -> Trackers:
    return Trackers(names, print)


def test_each_run_of_a_process_has_its_own_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    for run in ("one", "other"):
        with trackers_in(tmp_path / run, trackers("tensorboard")):
            assert os.environ[VARIABLE] == str(tmp_path / run / "tensorboard")
            assert (tmp_path / run / "tensorboard").is_dir()
        assert VARIABLE not in os.environ


def test_what_the_user_has_set_stays(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "elsewhere")
    with trackers_in(tmp_path, trackers("tensorboard")):
        assert os.environ[VARIABLE] == "elsewhere"
    assert os.environ[VARIABLE] == "elsewhere"


@pytest.mark.parametrize("names", [("wandb",), ("trackio",), ("wandb", "trackio", "tensorboard")])
def test_a_resumed_run_is_the_same_run_of_its_trackers_also_if_it_is_renamed(names, tmp_path) -> None:
    seen = []
    for folder in (tmp_path / "run/trackers", tmp_path / "run/trackers", tmp_path / "renamed/trackers"):
        if folder.parent.name == "renamed":
            (tmp_path / "run").rename(tmp_path / "renamed")
        with trackers_in(folder, made := trackers(*names)):
            seen.append((made.run_name, os.environ.get("WANDB_RUN_ID"), os.environ.get("WANDB_RESUME")))
    assert len(set(seen)) == 1
    assert seen[0][0] == "run"
    assert (seen[0][2] == "allow") is ("wandb" in names)
    assert not any(name.startswith("WANDB") for name in os.environ)


def test_two_runs_of_one_name_are_two_runs(tmp_path) -> None:
    ids = set()
    for place in ("a", "b"):
        with trackers_in(tmp_path / place / "run/trackers", trackers("wandb")):
            ids.add(os.environ["WANDB_RUN_ID"])
    assert len(ids) == 2


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"id": 1}'])
def test_a_damaged_identity_is_made_again(tmp_path, content) -> None:
    (tmp_path / IDENTITY).write_text(content)
    with trackers_in(tmp_path, made := trackers("wandb")):
        assert made.run_name == tmp_path.parent.name


def test_without_trackers_nothing_is_written(tmp_path) -> None:
    with trackers_in(tmp_path / "trackers", made := trackers()):
        made.log(1, {"accuracy": 0.5})
    assert (made.waiting, list(tmp_path.iterdir())) == ([], [])


def result(**values: object) -> EvalResult:
    none = Interval(0.0, 1.0)
    figures = {"task": "mine.py:Sums", "split": "test", "step": 4, "num_examples": 8, "samples": 0}
    rates = {"pass_at_1": 0.5, "pass_at_1_interval": none, "strict_pass_at_1": 0.25, "strict_pass_at_1_interval": none}
    rest = {"scores": {"short": 1.5}, "completion_tokens": 9.0, "truncated_share": 0.0, "seconds": 1.0}
    return EvalResult(**{**figures, **rates, "pass_at_k": {}, "maj_at_k": {}, **rest, **values})


def test_an_evaluation_is_named_as_transformers_names_its_own() -> None:
    values = evaluation_values(result(in_domain=True, samples=8, pass_at_k={"8": 0.75}, maj_at_k={"8": 0.5}))
    assert (values["eval_pass_at_1"], values["eval_strict_pass_at_1"], values["eval_scores/short"]) == (0.5, 0.25, 1.5)
    assert (values["eval_pass@8"], values["eval_maj@8"]) == (0.75, 0.5)
    assert "eval_pass@1" not in evaluation_values(result(samples=1, pass_at_k={"1": 0.5}))
    assert evaluation_values(result(in_domain=False, task="gsm8k"))["eval_gsm8k/pass_at_1"] == 0.5


def scalars(folder) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"))
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


@pytest.mark.slow
def test_a_run_that_only_has_its_last_evaluation_to_do_logs_it(tmp_path) -> None:
    with trackers_in(tmp_path, made := trackers("tensorboard")):
        made.begin_without_trainer(tmp_path, 4)
        made.log(4, evaluation_values(result()))
    assert scalars(tmp_path)["eval/pass_at_1"] == [(4, 0.5)]
