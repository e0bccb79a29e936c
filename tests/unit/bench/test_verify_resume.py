"""The settings of the tiny run that is killed: those given override its own."""

from pathlib import Path

import pytest

from lowmem_rl.errors import ConfigError, RunDirError
from lowmem_rl_bench.verify_resume import compose, verify_resume


def test_settings_given_override_those_of_the_tiny_run() -> None:
    assert compose((), 3).config.adapter.dropout == 0.1
    config = compose(("adapter.dropout=0.2", "optimizer.name=adamw_torch"), 3).config
    assert (config.adapter.dropout, config.optimizer.name) == (0.2, "adamw_torch")


def test_whole_weights_have_no_dropout_unless_it_is_asked_for() -> None:
    whole = ("trainable.method=full", "trainable.layers=first:1")
    assert compose(whole, 3).config.adapter.dropout == 0
    with pytest.raises(ConfigError, match="whole weights have no adapter to drop out"):
        compose((*whole, "adapter.dropout=0.1"), 3)


def test_a_selection_by_gradients_always_has_one() -> None:
    by_gradient = ("trainable.select=grad_norm", "trainable.select_top=1")
    assert "random" in compose(by_gradient, 3).config.rewards
    assert "random" not in compose(("trainable.select=snr", "trainable.select_top=1"), 3).config.rewards


def test_the_number_of_steps_follows_from_the_kills() -> None:
    assert compose((), 3).config.grpo.steps == 3
    with pytest.raises(ConfigError, match="follows from the kills"):
        compose(("grpo.steps=4",), 3)


def test_what_a_run_refuses_is_refused_before_one_begins(tmp_path: Path) -> None:
    with pytest.raises(RunDirError, match="is no adapter"):
        verify_resume(1, tmp_path / "runs", lambda text: None, settings=(f"start_from={tmp_path}",))
    assert not (tmp_path / "runs").exists()
