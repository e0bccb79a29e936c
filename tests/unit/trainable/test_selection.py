"""What a selection chooses from, plans with and writes; a damaged record is refused."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.config.rules import broken_rules
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError
from lowmem_rl.trainable.selection import LayerSelection, candidates_of, probe_config, with_layers, worst_case


def config(**trainable: Any) -> RunConfig:
    return RunConfig.model_validate({"trainable": {"select": "grad_norm", "select_top": 2} | trainable})


@st.composite
def selections(draw: st.DrawFn) -> LayerSelection:
    scores = draw(st.dictionaries(st.integers(0, 99), st.floats(0, 1e9), min_size=1))
    layers = draw(st.sets(st.sampled_from(sorted(scores)), min_size=1))
    by = draw(st.sampled_from(["grad_norm", "fisher"]))
    kept = draw(st.sampled_from([None, "off", "host", "card"]))
    return LayerSelection(by, scores, tuple(sorted(layers)), draw(st.integers(1, 9)), kept)


@given(selections())
def test_a_row_gives_the_selection_back(found: LayerSelection) -> None:
    assert LayerSelection.from_row(json.loads(json.dumps(found.to_row()))) == found
    assert "rounds" not in LayerSelection("snr", found.scores, found.layers).to_row()


ROW = {"step": 0, "select": "grad_norm", "scores": {"0": 1.0, "1": 2.0}, "layers": [1], "rounds": 4}


@pytest.mark.parametrize(
    "damage",
    [
        {"layers": [2]},
        {"layers": []},
        {"layers": [1, 0]},
        {"layers": [1, 1]},
        {"layers": ["1"]},
        {"layers": [True]},
        {"layers": [[1]]},
        {"layers": "1"},
        {"layers": None},
        {"scores": {"0": 1.0, "1": "2"}},
        {"scores": {"a": 1.0, "1": 2.0}},
        {"scores": {"1": float("nan")}},
        {"scores": [1.0]},
        {"scores": {}},
        {"select": None},
        {"rounds": "4"},
        {"kept_states": "disk"},
        {"kept_states": ["host"]},
    ],
)
def test_what_is_no_selection_is_refused(damage: dict[str, Any]) -> None:
    assert LayerSelection.from_row(ROW).layers == (1,)
    with pytest.raises(ValueError, match=r"."):
        LayerSelection.from_row(ROW | damage)


def test_a_selection_fits_the_run_that_made_it() -> None:
    found = LayerSelection.from_row(ROW)
    assert found.fits(config(select_top=1).trainable, 2)
    for other in ({"select_top": 2}, {"select_top": 1, "select": "fisher"}, {"select_top": 1, "layers": "0"}):
        assert not found.fits(config(**other).trainable, 2)
    assert not found.fits(config(select_top=1).trainable, 3)


def test_it_prints_a_bar_for_each_score() -> None:
    lines = str(LayerSelection("fisher", {9: 1.0, 10: 0.5}, (9,), 1)).splitlines()
    assert lines[0] == "layers that learn, by fisher in 1 round: 9"
    assert [line.count("█") for line in lines[1:]] == [30, 15]
    assert [line.endswith("learns") for line in lines[1:]] == [True, False]
    assert "█" not in str(LayerSelection("snr", {0: 0.0, 1: 0.0}, (0,)))


def test_more_layers_than_there_are_to_choose_from_are_refused() -> None:
    assert candidates_of(config(layers="last:2"), 28) == (26, 27)
    with pytest.raises(
        ConfigError, match=r"select_top = 3, but trainable.layers = 'last:2' chooses from 2 layers"
    ) as e:
        candidates_of(config(layers="last:2", select_top=3), 28)
    assert e.value.hint == "Set it to at most 2."


def test_the_worst_case_is_the_lowest_layers() -> None:
    assert worst_case(config(layers="4-9"), 28) == with_layers(config(), "4-5")
    named = RunConfig.model_validate({"trainable": {"layers": "last:2"}})
    assert worst_case(named, 28) is named


def test_a_run_with_its_layers_named_breaks_no_rule() -> None:
    named = with_layers(config(select_rounds=2), "1,3")
    assert (named.trainable.layers, named.trainable.select) == ("1,3", "none")
    assert list(broken_rules(named)) == []


def test_the_rounds_are_those_of_the_run_with_an_adapter_in_all_candidates() -> None:
    run = RunConfig.model_validate(
        {
            "trainable": {"select": "fisher", "method": "full", "layers": "last:9", "modules": ["q_proj", "norm"]},
            "grpo": {"beta": 0.1, "steps_per_rollout": 2, "group_size": 16},
            "adapter": {"rank": 4, "dropout": 0.0},
        }
    )
    probe = probe_config(run)
    assert (probe.trainable.method, probe.trainable.layers, probe.adapter.targets) == ("lora", "last:9", ("q_proj",))
    assert (probe.adapter.rank, probe.grpo.steps, probe.grpo.steps_per_rollout) == (16, 4, 1)
    assert (probe.grpo.beta, probe.grpo.group_size, probe.rewards) == (0.0, 16, run.rewards)
    targets = RunConfig.model_validate({"adapter": {"targets": ["v_proj"]}, "trainable": {"select": "snr"}})
    assert probe_config(targets).adapter.targets == ("v_proj",)
