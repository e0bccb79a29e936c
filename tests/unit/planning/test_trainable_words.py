"""What `profile` says about a choice of weights."""

import re

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.explain import explain
from lowmem_rl.planning.plan import Plan, plan
from lowmem_rl.units import GIB

PRESETS = {"qwen1.5b-24gb": "3090", "qwen7b-24gb": "3090", "qwen7b-a6000": "a6000", "qwen7b-t4": "t4"}


def plan_of(preset: str, *settings: str) -> Plan:
    config = resolve(preset=preset, settings=settings).config
    return plan(config, load_shape(config.model.name), CARDS[PRESETS[preset]])


def words_of(preset: str, *settings: str) -> list[str]:
    found: list[str] = plan_of(preset, *settings).to_json()["trainable"]
    return found


@pytest.mark.parametrize("preset", ["qwen1.5b-24gb", "qwen7b-24gb", "qwen7b-a6000"])
def test_fewer_adapters_buy_time_and_no_peak_because_the_rollout_is_the_peak(preset: str) -> None:
    words, kept = words_of(preset, "trainable.layers=last:5")
    mine, others = re.findall(r"([\d.]+) GiB \(rollout\)", words)
    assert float(others) - float(mine) <= 0.25
    time = float(re.findall(r"([\d.]+)x the time", words)[0])
    assert 0.4 < time < 0.75
    share = float(re.findall(r"in host RAM: the update begins there, ([\d.]+)x the step time", kept)[0])
    assert 0.6 < time / share < 0.9
    assert "buy time, or a larger micro-batch" in words


def test_on_a_small_card_the_backward_pass_is_the_peak_and_fewer_adapters_lower_it() -> None:
    words, _ = words_of("qwen7b-t4", "trainable.layers=last:5")
    assert re.search(r"peak is 9\.\d GiB \(\w+\) instead of 12\.\d GiB \(backward\)", words)
    assert "fewer layers buy memory, because the backward pass is the peak, and time" in words


def test_first_layers_save_no_activation() -> None:
    _, words = words_of("qwen7b-24gb", "trainable.layers=first:5")
    assert "goes through all 28 layers" in words
    assert "last:5 keeps none" in words
    few, every = (plan_of("qwen7b-24gb", *chosen).estimate for chosen in (("trainable.layers=first:5",), ()))
    assert few.phase_bytes("backward") >= every.phase_bytes("backward")


def test_it_says_what_whole_layers_take() -> None:
    words, _ = words_of("qwen7b-24gb", "trainable.method=full", "trainable.layers=last:1")
    assert words.startswith("233,057,792 numbers learn whole: 1.3 GiB of weights and optimizer states in every phase")
    assert "2.2 GiB a layer" in words
    assert words_of("qwen7b-24gb", "trainable.method=full", "trainable.layers=none", "trainable.extra=norms")


def test_of_blocks_in_turn_it_says_what_is_on_the_card_not_what_waits_in_host_ram() -> None:
    chosen = ("trainable.method=full", "trainable.schedule=badam", "model.bits=16")
    estimate = plan_of("qwen1.5b-24gb", *chosen).estimate
    (words,) = words_of("qwen1.5b-24gb", *chosen)
    held = float(re.findall(r"([\d.]+) GiB of weights and optimizer states in every phase", words)[0]) * GIB
    of_all = 4 * estimate.workload.whole_params
    assert held < of_all / 4 < estimate.host_bytes


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("memory.kept_states=card",), "what enters layer 23 is kept while sampling, 476.0 MiB on the card"),
        (("trainable.layers=last:27",), "enters layer 1 is not kept while sampling: it would save"),
        (("memory.kept_states=off",), ""),
    ],
)
def test_it_says_where_states_are_kept_or_why_none_are(settings: tuple[str, ...], said: str) -> None:
    last = [] if any("layers" in text for text in settings) else ["trainable.layers=last:5"]
    words = [text for text in words_of("qwen7b-24gb", *last, *settings) if "while sampling" in text]
    assert len(words) == bool(said)
    assert all(said in text for text in words)


def test_nothing_is_said_of_adapters_everywhere() -> None:
    assert words_of("qwen7b-24gb") == []


def test_the_alternatives_of_whole_weights_are_whole_weights() -> None:
    explained = explain(plan_of("qwen7b-24gb", "trainable.method=full", "trainable.layers=last:1"))
    assert [way.name for way in explained.alternatives] == ["whole weights, 4 bit", "whole weights, 16 bit"]
