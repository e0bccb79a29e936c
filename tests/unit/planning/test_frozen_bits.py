"""`model.bits = "auto"`: 4 or 16 bits, whichever fits and is fastest, and why."""

from typing import Any

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.models.hardware import find_card
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.explain import advice_of
from lowmem_rl.planning.overrides import planner_origins
from lowmem_rl.planning.plan import Plan, plan
from lowmem_rl.units import GIB


def planned(preset: str, *settings: str, budget: float | None = None) -> Plan:
    config = resolve(preset=preset, settings=settings).config
    card = find_card(resolve(preset=preset).card)
    return plan(config, load_shape(config.model.name), card, budget and int(budget * GIB))


def test_16_bits_are_chosen_where_the_copy_to_sample_from_takes_more() -> None:
    auto, lora, qlora = (planned("qwen7b-a6000", f"model.bits={bits}") for bits in ("auto", 16, 4))
    assert auto.config == lora.config
    assert auto.estimate.upper_bytes < qlora.estimate.upper_bytes
    assert planner_origins(auto.written)["model.bits"] == "planner (auto)"
    why = auto.why_these_bits or ""
    assert why.startswith("model.bits=auto is 16: LoRA takes")
    assert f"{qlora.estimate.upper_bytes / GIB:.1f}" in why
    assert lora.why_these_bits is None
    assert auto.to_json()["plan"]["bits"] == 16


def test_4_bits_are_chosen_where_16_do_not_fit() -> None:
    auto = planned("qwen7b-t4", "model.bits=auto")
    assert auto.config.model.bits == 4
    assert "does not fit" in (auto.why_these_bits or "")


def test_without_room_for_either_the_smaller_one_is_chosen() -> None:
    auto = planned("qwen7b-t4", "model.bits=auto", budget=3)
    assert auto.memory_verdict != "fits"
    assert auto.config.model.bits == 4


@pytest.mark.parametrize(
    ("settings", "bits"),
    [(("schedule=lisa", "method=full"), 16), (("schedule=slimfit", "method=full"), 16), ((), 4)],
)
def test_only_widths_that_can_be_trained_are_chosen(settings: tuple[str, ...], bits: int) -> None:
    trainable = [f"trainable.{setting}" for setting in settings]
    name = "model.name=unsloth/Qwen2.5-1.5B-Instruct-bnb-4bit"
    more: list[Any] = ["model.bits=auto", *trainable, *([] if settings else [name])]
    auto = planned("qwen1.5b-a6000", *more)
    assert auto.config.model.bits == bits
    assert "the other width cannot be trained here" in (auto.why_these_bits or "")


def test_advice_names_16_bits_if_they_take_less_at_the_same_speed() -> None:
    advice = advice_of(planned("qwen7b-a6000"))
    (lora,) = [item for item in advice if item.settings.get("model.bits") == 16]
    assert lora.saves_bytes > 3 * GIB
    assert lora.costs.startswith("about the same step time")
    assert not any("model.bits" in item.settings for item in advice_of(planned("qwen7b-t4")))
