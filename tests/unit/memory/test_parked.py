"""What whole layers that learn in turn need on the card and in host RAM."""

from typing import Any

import pytest

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.memory import parked, terms
from lowmem_rl.memory.activations import narrow_copies
from lowmem_rl.memory.estimate import MemoryEstimate, estimate
from lowmem_rl.memory.workload import Workload, workload_of
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape

SHAPE = load_shape("Qwen/Qwen2.5-7B-Instruct")  # 28 layers
LAYER = SHAPE.layer_params + SHAPE.layer_other_params


def workload(*, beta: float = 0.0, steps: int = 28, **trainable: Any) -> Workload:
    memory = {"micro_batch": 8, "rollout_rows": 8, "checkpointing": "none"}
    whole = {"method": "full", "schedule": "badam", "every": 1, **trainable}
    sections = {"trainable": whole, "grpo": {"steps": steps, "beta": beta}, "model": {"bits": 16}, "memory": memory}
    more = {"rollout": {"weights": "quantized"}, "eval": {"batch": 8}, "optimizer": {"name": "adamw_torch_fused"}}
    return workload_of(RunConfig.model_validate(sections | more), SHAPE)


def on_card(work: Workload) -> MemoryEstimate:
    return estimate(work, SHAPE, CARDS["a100-80"])


def layer_bytes(work: Workload) -> int:
    """The bytes of decoder layers while one of them learns."""
    held = narrow_copies(work) + sum(part(work).expected_bytes for part in (terms.whole_weights, parked.resting_copies))
    learning = sum(part(work, SHAPE).expected_bytes for part in (terms.gradients, terms.optimizer_states))
    return held + learning + parked.linear_weights_left(work, SHAPE).expected_bytes


def test_a_run_without_a_reference_needs_what_badam_does() -> None:
    whole, work = 28 * LAYER, workload()
    assert layer_bytes(work) == pytest.approx(2 * whole + 16 * whole / 28, rel=1e-3)


@pytest.mark.parametrize("learned", [1, 10, 28])
def test_a_reference_keeps_the_originals_of_layers_that_have_learned(learned: int) -> None:
    whole, work = 28 * LAYER, workload(beta=0.04, steps=learned)
    expected = 2 * whole + 2 * (learned - 1) * LAYER + 18 * LAYER
    assert layer_bytes(work) == pytest.approx(expected, rel=1e-3)


def test_what_has_left_the_card_is_in_host_ram() -> None:
    resting, never = 9 * LAYER, on_card(workload(steps=1, beta=0.04)).host_bytes
    assert on_card(workload(steps=10, beta=0.04)).host_bytes - never == pytest.approx(4 * resting, abs=9)
    kept = on_card(workload(steps=10, beta=0.04, state="keep")).host_bytes
    assert kept - never == pytest.approx((4 + 8) * resting, abs=9)
    parks_originals = on_card(workload(steps=10)).host_bytes
    assert parks_originals - never == pytest.approx(4 * resting + 2 * 10 * LAYER, abs=9)


def test_an_evaluation_fetches_the_originals_of_what_has_learned_for_its_kl() -> None:
    name, whole = "originals fetched for the KL", on_card(workload(schedule="fixed", every=20))
    assert whole.to_json_phases()["evaluation"][name] == pytest.approx(2 * 28 * LAYER, abs=1)
    assert name not in whole.to_json_phases()["rollout"]
    with_reference = on_card(workload(schedule="fixed", every=20, beta=0.04))  # there they never leave the card
    assert name not in with_reference.to_json_phases()["evaluation"]
    assert whole.phase_bytes("evaluation") == pytest.approx(with_reference.phase_bytes("evaluation"), rel=0.03)


def test_the_profile_names_what_layers_at_rest_need() -> None:
    phases = on_card(workload(steps=10)).to_json_phases()
    name = "16-bit copies of resting layers"
    assert {phase for phase, parts in phases.items() if name in parts} == phases.keys() - {"load"}
    assert phases["rollout"][name] == pytest.approx(2 * 9 * LAYER, abs=1)


def test_on_a_cpu_nothing_moves() -> None:
    found = estimate(workload(steps=10, state="keep"), SHAPE)
    parts = found.to_json_phases()["save"]
    assert "16-bit copies of resting layers" not in parts
    assert parts["whole weights"] == pytest.approx(4 * 10 * LAYER, abs=1)
    assert parts["optimizer states"] == pytest.approx(8 * 10 * LAYER, abs=1)
    assert parts["weights"] == terms.linear_weights(found.workload, SHAPE).expected_bytes
