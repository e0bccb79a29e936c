import math

from lowmem_rl.telemetry.metrics import diverged, metric_row

LOGS = {
    "loss": 0.5,
    "grad_norm": 0.1,
    "reward": 0.9,
    "rewards/boxed_answer/mean": 0.7,
    "rewards/boxed_answer/std": 0.4,
    "completions/mean_length": 41.5,
    "frac_reward_zero_std": 0.0,
}


def row(**changed) -> dict:
    return metric_row(LOGS | changed, 3)


def test_trls_entries_come_out_under_our_words() -> None:
    found = row()
    assert found["completion_tokens"] == 41.5
    assert found["scores/boxed_answer"] == 0.7
    assert found["step"] == 3
    assert "scores/boxed_answer/std" not in found
    assert not {"informative_share", "step_s", "peak_bytes"} & set(found)  # the hooks add those


def test_a_reward_that_was_skipped_everywhere_is_null() -> None:
    assert row(**{"rewards/boxed_answer/mean": None})["scores/boxed_answer"] is None


def test_nan_is_null_and_counts_as_diverged() -> None:
    assert row(loss=math.nan)["loss"] is None
    assert diverged(row(loss=math.nan))
    assert diverged(row(grad_norm=math.inf))
    assert not diverged(row())


def test_a_step_that_the_gradient_scaler_skipped_has_not_diverged() -> None:
    skipped = row(grad_norm=math.inf, optimizer_skipped=1.0, loss_scale=1024.0)
    assert (skipped["optimizer_skipped"], skipped["loss_scale"]) == (1.0, 1024.0)
    assert not diverged(skipped)
    assert diverged(row(loss=math.nan, optimizer_skipped=1.0, loss_scale=1024.0))
    assert diverged(row(grad_norm=math.inf, optimizer_skipped=1.0, loss_scale=0.5))
    assert diverged(row(grad_norm=math.inf, optimizer_skipped=0.0, loss_scale=1024.0))
