"""A rate for each layer: groups in a fixed order, each with FreezeOut's factor of the run's own schedule."""

from typing import Any

import pytest

from lowmem_rl.config.run_config import GrpoConfig, RunConfig, TrainableConfig
from lowmem_rl.trainable.freezeout import rate
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.trl_adapter.layer_rates import LAYER, follow_freezeout, split_by_layer

STEPS, DEPTH = 8, 3


def optimizer_and_scheduler() -> tuple[Any, Any]:
    """Returns AdamW over three layers and a norm, in transformers' two groups, with a rate that halves each step."""
    import torch

    named = [(f"model.layers.{layer}.{name}", torch.nn.Parameter(torch.ones(1)))
             for layer in range(DEPTH) for name in ("weight", "bias")]  # fmt: skip
    named.append(("model.norm.weight", torch.nn.Parameter(torch.ones(1))))
    decays = {name for name, _ in named if name.endswith("weight")}
    optimizer = torch.optim.AdamW(
        [
            {"params": [weight for name, weight in named if name in decays], "weight_decay": 0.1},
            {"params": [weight for name, weight in named if name not in decays], "weight_decay": 0.0},
        ],
        lr=0.5,
    )
    split_by_layer(optimizer, named)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda done: 0.5**done)
    config = RunConfig(grpo=GrpoConfig(steps=STEPS), trainable=TrainableConfig(schedule="freezeout"))
    follow_freezeout(scheduler, LayerSchedule.of(config, DEPTH))
    return optimizer, scheduler


def test_groups_are_split_with_their_settings_and_what_learns_longest_comes_first() -> None:
    optimizer, _ = optimizer_and_scheduler()
    found = [(group[LAYER], group["weight_decay"], len(group["params"])) for group in optimizer.param_groups]
    by_layer = [(layer, decay, 1) for layer in (2, 1, 0) for decay in (0.1, 0.0)]
    assert found == [(None, 0.1, 1), *by_layer]


def test_each_layer_falls_to_nothing_at_its_stop_and_what_is_in_none_follows_the_run() -> None:
    optimizer, scheduler = optimizer_and_scheduler()
    stops = {None: None, 0: 4, 1: 6, 2: 8}
    for done in range(1, STEPS):
        optimizer.step()
        scheduler.step()
        for group in optimizer.param_groups:
            stop = stops[group[LAYER]]
            share = 1.0 if stop is None else rate(done, stop)
            assert group["lr"] == pytest.approx(0.5 * 0.5**done * share)


def test_a_restored_schedule_continues_at_the_same_rates() -> None:
    optimizer, scheduler = optimizer_and_scheduler()
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    other, resumed = optimizer_and_scheduler()
    other.load_state_dict(optimizer.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    for one, two in ((optimizer, scheduler), (other, resumed)):
        one.step()
        two.step()
    assert [group["lr"] for group in other.param_groups] == [group["lr"] for group in optimizer.param_groups]
