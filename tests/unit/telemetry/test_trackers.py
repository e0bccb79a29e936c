"""Trackers write where their run is, and leave the environment as it was."""

import os

from lowmem_rl.telemetry.trackers import trackers_in

VARIABLE = "TENSORBOARD_LOGGING_DIR"


def test_each_run_of_a_process_has_its_own_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    for run in ("one", "other"):
        with trackers_in(tmp_path / run, ("tensorboard",)):
            assert os.environ[VARIABLE] == str(tmp_path / run / "tensorboard")
            assert (tmp_path / run / "tensorboard").is_dir()
        assert VARIABLE not in os.environ


def test_what_the_user_has_set_stays(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, "elsewhere")
    with trackers_in(tmp_path, ("tensorboard",)):
        assert os.environ[VARIABLE] == "elsewhere"
    assert os.environ[VARIABLE] == "elsewhere"
