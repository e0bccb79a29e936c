"""The comparison of methods: every arm searches as many rates, and "learns" is what the rule says."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.trainable_methods import (
    ARMS,
    BEGIN,
    END,
    SEARCH_SEED,
    Record,
    Trial,
    best_rate,
    known_arms,
    summary,
    table,
    with_table,
)
from lowmem_rl.config.compose import resolve


def row(
    seed: int, rate: float, reward: float, after: float = 0.9, low: float = 0.8, high: float = 0.1
) -> dict[str, Any]:
    return {
        "key": f"{seed}/{rate}",
        "arm": "lora-all",
        "rate": rate,
        "seed": seed,
        "reward": reward,
        "numbers_at_once": [5, 5],
        "pass_at_1": {"before": 0.05, "after": after},
        "intervals": {"before": {"low": 0.0, "high": high}, "after": {"low": low, "high": 1.0}},
        "machine": {},
    }


def test_arms_differ_and_search_as_many_rates() -> None:
    assert len({arm.name for arm in ARMS}) == len({arm.settings for arm in ARMS}) == len(ARMS)
    assert {len(arm.rates) for arm in ARMS} == {4}


@pytest.mark.parametrize("arm", known_arms(ARMS), ids=lambda arm: arm.name)
def test_an_arm_is_a_valid_run_and_its_settings_take_effect(arm: Any) -> None:
    trial = Trial(arm.name, arm.settings, arm.rates[0], 3, 40)
    config = resolve(preset="tiny-cpu", settings=trial.overrides).config
    assert (config.seed, config.grpo.steps, config.optimizer.learning_rate) == (3, 40, arm.rates[0])
    plain = resolve(preset="tiny-cpu").config
    changed = (config.trainable, config.adapter) != (plain.trainable, plain.adapter)
    assert changed == (arm.name != "lora-all")


def test_the_lowest_of_equally_good_rates_is_taken() -> None:
    rows = [row(SEARCH_SEED, 1e-3, 0.5), row(SEARCH_SEED, 2e-3, 0.5), row(SEARCH_SEED, 5e-4, 0.4), row(0, 1.0, 0.9)]
    assert best_rate(rows) == 1e-3


@pytest.mark.parametrize(("low", "learns"), [(0.11, True), (0.1, False), (0.05, False)])
def test_it_learns_if_every_seed_is_above_the_base(low: float, learns: bool) -> None:
    rows = [row(SEARCH_SEED, 1e-3, 0.5), row(0, 1e-3, 0.6), row(1, 1e-3, 0.7, low=low), row(2, 5e-4, 0.7)]
    found = summary(rows)
    assert found is not None
    assert found["learns"] is learns
    assert found["seeds"] == [0, 1]
    assert found["reward"]["mean"] == pytest.approx(0.65)
    assert ("does not learn" in "".join(table([found]))) is not learns


def test_the_table_replaces_what_is_between_the_marks() -> None:
    found = summary([row(SEARCH_SEED, 1e-3, 0.5), row(0, 1e-3, 0.6)])
    assert found is not None
    text = with_table(f"above\n{BEGIN}\nold\n{END}\nbelow\n", [found])
    assert text.startswith(f"above\n{BEGIN}\n| arm |")
    assert text.endswith(f"|\n{END}\nbelow\n")
    assert "old" not in text
    assert with_table(text, [found]) == text
    with pytest.raises(ValueError, match="lacks"):
        with_table("no marks", [found])


def test_a_record_keeps_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record = Record(path)
    record.add(row(SEARCH_SEED, 1e-3, 0.5))
    record.add(row(0, 1e-3, 0.6))
    record.write(ARMS[:1])
    again = Record(path)
    assert again.rows == record.rows
    assert summary(again.of("lora-all")) == summary(record.of("lora-all"))
