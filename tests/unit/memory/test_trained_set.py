"""What of a shape learns, and what that takes in the worst period of a schedule."""

from dataclasses import replace
from typing import Any

import pytest

from lowmem_rl.config.layer_choice import text_of
from lowmem_rl.config.run_config import GrpoConfig, RunConfig
from lowmem_rl.errors import ConfigError
from lowmem_rl.memory import activations, terms
from lowmem_rl.memory.estimate import estimate
from lowmem_rl.memory.trained_set import TrainedSet, mean_backward_layers, trained_set
from lowmem_rl.memory.workload import workload_of
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.trainable.schedule import LayerSchedule

SHAPE = load_shape("Qwen/Qwen2.5-1.5B-Instruct")  # 28 layers


def config(**trainable: Any) -> RunConfig:
    memory = {"micro_batch": 8, "rollout_rows": 8, "checkpointing": "none"}
    rollout = {"weights": "merged"}
    sections = {"trainable": trainable, "grpo": {"steps": 100}, "model": {"bits": 16}}
    return RunConfig.model_validate(sections | {"memory": memory, "rollout": rollout, "eval": {"batch": 8}})


@pytest.mark.parametrize(
    ("trainable", "expected"),
    [
        ({}, TrainedSet(28, 28, 0)),
        ({"layers": "last:5"}, TrainedSet(5, 5, 0)),
        ({"schedule": "lisa", "active": 7}, TrainedSet(28, 28, 0, 0.25, 13 / 28)),
        ({"schedule": "badam", "layers": "last:8", "active": 2}, TrainedSet(8, 8, 0, 0.25, 0.75)),
        ({"schedule": "gradual_freezing", "every": 10}, TrainedSet(28, 28, 0)),
        ({"schedule": "freezeout"}, TrainedSet(28, 28, 0)),
        ({"schedule": "autofreeze", "layers": "last:8"}, TrainedSet(8, 8, 0)),
        ({"schedule": "slimfit", "freeze_rate": 0.75}, TrainedSet(28, 28, 0, 0.25, 0.75)),
        ({"schedule": "slimfit", "freeze_rate": 0.75, "every": 33}, TrainedSet(28, 28, 0, 0.25, 0.75)),
        ({"schedule": "slimfit", "freeze_rate": 0.875, "every": 33}, TrainedSet(28, 28, 0, 0.125, 0.375)),
        # 100 steps are 5 periods of 20: the last five layers, the lowest of them layer 23
        ({"schedule": "gradual_unfreezing"}, TrainedSet(28, 5, 0, 5 / 28)),
        ({"schedule": "gradual_unfreezing", "order": "ascending"}, TrainedSet(28, 28, 0, 5 / 28)),
        ({"schedule": "gradual_unfreezing", "every": 2}, TrainedSet(28, 28, 0)),
        # which two of the last five is not known: they may be the lowest
        ({"select": "snr", "select_top": 2, "layers": "last:5"}, TrainedSet(2, 5, 0)),
        ({"select": "grad_norm", "schedule": "gradual_freezing"}, TrainedSet(4, 28, 0)),
    ],
)
def test_the_worst_period_counts(trainable: dict[str, Any], expected: TrainedSet) -> None:
    assert trained_set(config(**trainable), SHAPE) == expected


@pytest.mark.parametrize(
    ("trainable", "step", "expected"),
    [
        ({"schedule": "gradual_unfreezing"}, 1, TrainedSet(28, 1, 0, 1 / 28)),
        ({"schedule": "gradual_unfreezing"}, 81, TrainedSet(28, 5, 0, 5 / 28)),
        ({"schedule": "badam", "order": "descending"}, 21, TrainedSet(28, 2, 0, 1 / 28)),  # nothing rests with a copy
        ({"schedule": "slimfit", "freeze_rate": 0.75}, 1, TrainedSet(28, 28, 0, 0.25)),
    ],
)
def test_a_single_step_counts_what_learns_in_it(trainable: dict[str, Any], step: int, expected: TrainedSet) -> None:
    assert trained_set(config(**trainable), SHAPE, step) == expected


@pytest.mark.parametrize(
    ("trainable", "what"),
    [
        ({"method": "full", "modules": ["w_proj"]}, "no layer has a module 'w_proj'"),
        ({"method": "full", "extra": ["lm_head"]}, "no lm_head of its own"),
        ({"layers": "last:29"}, "the model has 28 layers"),
    ],
)
def test_what_the_model_lacks_is_refused_before_anything_is_loaded(trainable: dict[str, Any], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        trained_set(config(**trainable), SHAPE)


@pytest.mark.parametrize(("state", "share"), [("reset", 7 / 28), ("keep", 20 / 28)])
def test_only_layers_that_learn_at_once_have_gradients_and_perhaps_states(state: str, share: float) -> None:
    whole = {"method": "full", "schedule": "lisa", "active": 7, "state": state}
    every = workload_of(config(method="full"), SHAPE)
    some = estimate(workload_of(config(**whole), SHAPE), SHAPE).workload  # on a CPU nothing is parked
    weights = terms.whole_weights(every).expected_bytes
    assert terms.whole_weights(some).expected_bytes == pytest.approx(weights * 20 / 28, abs=1)  # 13 have learned
    gradients = terms.gradients(every, SHAPE).expected_bytes
    assert terms.gradients(some, SHAPE).expected_bytes == gradients // 4
    states = terms.optimizer_states(every, SHAPE).expected_bytes
    assert terms.optimizer_states(some, SHAPE).expected_bytes == pytest.approx(states * share, abs=1)


def test_slimfit_of_whole_weights_rests_what_is_in_layers_alone() -> None:
    part = {"schedule": "slimfit", "freeze_rate": 0.75, "method": "full"}
    found = trained_set(config(**part, extra=("embed_tokens",)), SHAPE)
    embeddings = SHAPE.vocab_size * SHAPE.hidden_size
    assert found.share_at_once * found.whole_params == pytest.approx(embeddings + (found.whole_params - embeddings) / 4)


def test_slimfit_of_whole_weights_holds_the_wide_copies_of_all_layers() -> None:
    """A layer of which one matrix learns is wide as a whole, and the first set is chosen after loading."""
    slimfit = estimate(workload_of(config(schedule="slimfit", method="full"), SHAPE), SHAPE, CARDS["a6000"])
    fixed = estimate(workload_of(config(method="full"), SHAPE), SHAPE, CARDS["a6000"])
    for phase in ("load", "rollout", "backward"):
        name = "whole weights"
        assert slimfit.to_json_phases()[phase][name] == fixed.to_json_phases()[phase][name] > 5e9


def measured_terms(**trainable: Any) -> tuple[dict[str, int], int]:
    """Returns what a schedule adds: terms of the optimizer phase, and host memory over that of the fixed run."""
    found, fixed = (estimate(workload_of(config(**kind), SHAPE), SHAPE, CARDS["a6000"])
                    for kind in (trainable, {"method": trainable.get("method", "lora")}))  # fmt: skip
    added = {"gradient sums", "copy to compare"} & found.to_json_phases()["optimizer"].keys()
    return {name: found.to_json_phases()["optimizer"][name] for name in added}, found.host_bytes - fixed.host_bytes


def test_autofreeze_holds_sums_of_gradients_on_the_card_or_for_whole_weights_in_host_ram() -> None:
    adapter = terms.trained_params(workload_of(config(), SHAPE), SHAPE)
    assert measured_terms(schedule="autofreeze") == ({"gradient sums": 4 * adapter}, 0)
    whole = trained_set(config(method="full"), SHAPE).whole_params
    assert measured_terms(schedule="autofreeze", method="full") == ({}, 2 * whole)


def test_slimfit_copies_what_learns_for_a_step() -> None:
    adapter = terms.trained_params(workload_of(config(), SHAPE), SHAPE)
    assert measured_terms(schedule="slimfit", freeze_rate=0.75) == ({"copy to compare": adapter}, 0)
    whole = workload_of(config(schedule="slimfit", freeze_rate=0.75, method="full"), SHAPE)
    assert terms.compared_host_bytes(whole) == whole.whole_params  # 4 bytes each, of a quarter


@pytest.mark.parametrize(
    ("trainable", "mean"),
    [
        ({"layers": "last:5"}, 5),
        ({"schedule": "gradual_unfreezing"}, 3),  # 1 to 5 layers
        ({"schedule": "gradual_freezing"}, 26),  # 28 to 24
        ({"schedule": "freezeout", "layers": "last:2"}, 1.5),
        ({"schedule": "gradual_unfreezing", "select": "snr", "select_top": 2, "layers": "last:5"}, 4.8),  # 24, then 23
        ({"schedule": "autofreeze"}, 28),
        ({"schedule": "slimfit"}, 28),
        ({"schedule": "gradual_unfreezing", "method": "full", "extra": ["embed_tokens"]}, 28),
    ],
)
def test_time_counts_the_mean_depth_of_the_backward_pass(trainable: dict[str, Any], mean: float) -> None:
    assert mean_backward_layers(config(**trainable), SHAPE) == pytest.approx(mean)


def test_blocks_in_turn_go_half_as_deep_on_average() -> None:
    every_layer_once = config(schedule="badam", every=1, order="ascending").model_copy(
        update={"grpo": GrpoConfig(steps=28)}
    )
    assert mean_backward_layers(every_layer_once, SHAPE) == pytest.approx(29 / 2)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("schedule", ["gradual_unfreezing", "gradual_freezing"])
def test_the_backward_pass_of_a_schedule_is_that_of_its_worst_period(schedule: str, method: str) -> None:
    """Adapters and whole weights of all layers stay from the start: they are counted in every period."""
    settings = {"method": method, "schedule": schedule, "every": 10}
    plan = LayerSchedule.of(config(**settings), SHAPE.num_layers)
    periods = {plan.at(step) for step in range(1, 101)}
    fixed = [config(method=method, layers=text_of(layers)) for layers in periods]
    worst = max(activations_of(one) for one in fixed)
    assert activations_of(config(**settings)) == pytest.approx(worst, rel=0.05)


def activations_of(run: RunConfig) -> int:
    """Bytes of what the forward pass keeps; not of weights in the compute type, which follow how many learn."""
    work = replace(workload_of(run, SHAPE), whole_params=0)
    return activations.kept_activations(work, SHAPE).expected_bytes
