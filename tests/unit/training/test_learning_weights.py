"""Which weights learn, and how many of them a step leaves as they are."""

from types import SimpleNamespace
from typing import Any

import pytest

from lowmem_rl.training.learning_weights import LearningWeights


def row_of_a_step(dtype: str, rate: float, *, dead_rows: int = 0, **row: Any) -> dict[str, Any]:
    """Takes one step of AdamW on a matrix in layer 23 and one in layer 24; those in layer 22 are frozen."""
    import torch

    torch.manual_seed(0)
    weights = {layer: torch.nn.Parameter(torch.rand(64, 64, dtype=getattr(torch, dtype)) + 1) for layer in (22, 23, 24)}
    weights[22].requires_grad_(False)
    named = [(f"base_model.model.model.layers.{layer}.up_proj.weight", weight) for layer, weight in weights.items()]
    model: Any = SimpleNamespace(named_parameters=lambda **_: named, parameters=lambda: list(weights.values()))
    for layer in (23, 24):
        weights[layer].grad = torch.ones_like(weights[layer])
        weights[layer].grad[:dead_rows] = 0
    hook, trainer = LearningWeights(model), None
    hook.before_optimizer_step()
    torch.optim.AdamW([weights[23], weights[24]], lr=rate, weight_decay=0.0).step()
    hook.on_step(row, trainer)  # type: ignore[arg-type]  # not used
    return row


@pytest.mark.parametrize(
    ("dtype", "rate", "share"), [("float32", 5e-6, 0), ("bfloat16", 5e-6, 1), ("bfloat16", 0.1, 0)]
)
def test_updates_below_the_resolution_are_lost(dtype: str, rate: float, share: float) -> None:
    assert row_of_a_step(dtype, rate) == {
        "trainable_layers": "23-24",
        "trainable_numbers": 2 * 64 * 64,
        "lost_update_share": share,
    }


def test_numbers_without_a_gradient_have_no_update_to_lose() -> None:
    assert row_of_a_step("float32", 1e-3, dead_rows=32)["lost_update_share"] == 0
    assert "lost_update_share" not in row_of_a_step("float32", 1e-3, dead_rows=64)


def test_a_skipped_step_loses_nothing() -> None:
    assert "lost_update_share" not in row_of_a_step("bfloat16", 5e-6, optimizer_skipped=1.0)
