"""The settings of the tiny run that is killed: those given override its own."""

import pytest

from lowmem_rl.errors import ConfigError
from lowmem_rl_bench.verify_resume import compose


def test_settings_given_override_those_of_the_tiny_run() -> None:
    assert compose(()).config.adapter.dropout == 0.1
    config = compose(("adapter.dropout=0.2", "optimizer.name=adamw_torch")).config
    assert (config.adapter.dropout, config.optimizer.name) == (0.2, "adamw_torch")


def test_whole_weights_have_no_dropout_unless_it_is_asked_for() -> None:
    whole = ("trainable.method=full", "trainable.layers=first:1")
    assert compose(whole).config.adapter.dropout == 0
    with pytest.raises(ConfigError, match="whole weights have no adapter to drop out"):
        compose((*whole, "adapter.dropout=0.1"))


def test_a_selection_by_gradients_always_has_one() -> None:
    by_gradient = ("trainable.select=grad_norm", "trainable.select_top=1")
    assert "random" in compose(by_gradient).config.rewards
    assert "random" not in compose(("trainable.select=snr", "trainable.select_top=1")).config.rewards
