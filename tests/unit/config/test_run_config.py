import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lowmem_rl.config.keys import find_key, fix_for_unknown, known_keys, near_keys, sections
from lowmem_rl.config.rules import broken_rules
from lowmem_rl.config.run_config import RunConfig


def rules_broken_by(**sections: dict) -> list[str]:
    return [rule.key for rule in broken_rules(RunConfig.model_validate(sections))]


def test_the_defaults_break_no_rule():
    assert rules_broken_by() == []


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"memory": {"micro_batch": 7}}, "memory.micro_batch"),
        ({"rewards": {"boxed_answer": 0}}, "rewards"),
        ({"rewards": {}}, "rewards"),
        ({"grpo": {"epsilon": 0.3, "epsilon_high": 0.2}}, "grpo.epsilon_high"),
        ({"optimizer": {"schedule": "multistep"}}, "optimizer.milestones"),
        ({"optimizer": {"milestones": [5]}}, "optimizer.milestones"),
        ({"optimizer": {"schedule": "multistep", "milestones": [9, 5]}}, "optimizer.milestones"),
        ({"optimizer": {"name": "sgd", "beta2": 0.95}}, "optimizer.beta2"),
        ({"grpo": {"group_size": 4, "baseline": "median"}}, "grpo.baseline"),
        ({"grpo": {"group_size": 9, "baseline": "median", "update_rows": 4}}, "grpo.baseline"),
        ({"curriculum": {"by": "level", "how": "window"}}, "curriculum.how"),
        ({"curriculum": {"how": "mixed"}}, "curriculum.how"),
        ({"curriculum": {"by": "level", "rates": "probe.json"}}, "curriculum.rates"),
        ({"curriculum": {"by": "pass_rate", "how": "mixed"}}, "curriculum.rates"),
    ],
)
def test_a_rule_names_the_key_to_change(sections, key):
    assert key in rules_broken_by(**sections)


LISA = {"schedule": "lisa"}


@pytest.mark.parametrize(
    ("sections", "key"),
    [
        ({"trainable": {"every": 5}}, "trainable.every"),
        ({"trainable": {"state": "keep"}}, "trainable.state"),
        ({"trainable": {"schedule": "gradual_freezing", "active": 2}}, "trainable.active"),
        ({"trainable": LISA | {"order": "random"}}, "trainable.order"),
        ({"trainable": LISA, "rollout": {"engine": "vllm"}}, "trainable.schedule"),
        ({"trainable": LISA | {"layers": "none", "method": "full", "extra": ["norm"]}}, "trainable.schedule"),
        ({"trainable": LISA | {"method": "full"}}, "trainable.schedule"),
        ({"trainable": LISA | {"every": 3}, "grpo": {"passes_per_rollout": 2}}, "trainable.every"),
        ({"trainable": LISA, "grpo": {"steps_per_rollout": 3, "passes_per_rollout": 2}}, "trainable.every"),
        ({"trainable": {"percentile": 60}}, "trainable.percentile"),
        ({"trainable": LISA | {"freeze_rate": 0.5}}, "trainable.freeze_rate"),
        ({"trainable": {"schedule": "freezeout", "every": 5}}, "trainable.every"),
        ({"trainable": {"schedule": "autofreeze", "state": "keep"}}, "trainable.state"),
        ({"trainable": {"schedule": "slimfit", "method": "full"}}, "trainable.schedule"),
        ({"trainable": {"schedule": "slimfit"}, "rollout": {"engine": "vllm"}}, "trainable.schedule"),
        ({"trainable": {"schedule": "autofreeze"}, "grpo": {"steps": 59}}, "trainable.every"),
        ({"trainable": {"schedule": "slimfit", "every": 2}, "grpo": {"steps": 5}}, "trainable.every"),
        ({"trainable": {"select_top": 2}}, "trainable.select_top"),
        ({"trainable": {"select_rounds": 2}}, "trainable.select_rounds"),
        ({"trainable": {"select": "snr", "select_rounds": 2}}, "trainable.select_rounds"),
        ({"trainable": LISA | {"select": "grad_norm"}}, "trainable.select"),
        (
            {"trainable": {"select": "fisher", "layers": "none", "method": "full", "extra": ["norm"]}},
            "trainable.select",
        ),
        ({"trainable": {"select": "snr"}, "rollout": {"engine": "vllm"}}, "trainable.select"),
        ({"trainable": {"select": "snr", "method": "full", "modules": ["input_layernorm"]}}, "trainable.select"),
    ],
)
def test_a_schedule_of_layers_fits_the_rest_of_the_run(sections, key):
    assert key in rules_broken_by(**sections)


def test_a_schedule_of_layers_that_fits_breaks_no_rule():
    assert rules_broken_by(trainable=LISA | {"every": 4, "active": 2}, grpo={"steps_per_rollout": 2}) == []
    assert rules_broken_by(trainable=LISA | {"method": "full"}, model={"bits": 16}) == []
    assert rules_broken_by(trainable={"schedule": "gradual_unfreezing", "method": "full", "order": "ascending"}) == []
    assert rules_broken_by(trainable={"schedule": "autofreeze", "percentile": 60}, grpo={"steps": 60}) == []
    assert rules_broken_by(trainable={"schedule": "slimfit", "every": 1, "state": "keep"}) == []
    assert rules_broken_by(trainable={"schedule": "freezeout"}, grpo={"steps_per_rollout": 3}) == []


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 99))
def test_the_fix_for_a_period_is_one(steps, passes, every):
    def config(every: int) -> RunConfig:
        grpo = {"steps_per_rollout": steps, "passes_per_rollout": passes}
        return RunConfig.model_validate({"grpo": grpo, "trainable": LISA | {"every": every}})

    for rule in broken_rules(config(every)):
        assert not list(broken_rules(config(int(rule.fix.split()[-1]))))


@given(st.integers(1, 4), st.integers(1, 25), st.integers(1, 60))
def test_the_fix_for_too_few_periods_is_one(rollout_steps, rollouts, periods):
    def config(every: int, steps: int) -> RunConfig:
        grpo = {"steps_per_rollout": rollout_steps, "steps": steps}
        return RunConfig.model_validate({"grpo": grpo, "trainable": {"schedule": "autofreeze", "every": every}})

    every, steps = rollout_steps * rollouts, rollout_steps * periods
    for rule in broken_rules(config(every, steps)):
        *_, more = numbers = [int(number) for number in re.findall(r"\d+", rule.fix)]
        assert not list(broken_rules(config(every, more)))
        assert len(numbers) == 1 or not list(broken_rules(config(numbers[0], steps)))


@given(st.integers(2, 64), st.integers(1, 64), st.integers(1, 4096))
def test_the_fix_for_a_micro_batch_is_one(group_size, prompts, micro_batch):
    def config(rows: int) -> RunConfig:
        grpo = {"group_size": group_size, "prompts_per_step": prompts}
        return RunConfig.model_validate({"grpo": grpo, "memory": {"micro_batch": rows}})

    for rule in broken_rules(config(micro_batch)):
        assert not list(broken_rules(config(int(rule.fix.split()[-1]))))


@pytest.mark.parametrize(
    "wrong", [{"grpo": {"group_size": 1}}, {"grpo": {"groups": 8}}, {"seed": -1}, {"rewards": {"a": float("nan")}}]
)
def test_what_no_run_can_have_is_refused(wrong):
    with pytest.raises(ValidationError):
        RunConfig.model_validate(wrong)


def test_every_key_is_documented():
    assert [name for name, key in known_keys().items() if not key.doc] == []


def test_a_key_is_explained_with_its_range():
    key = find_key("grpo.group_size")
    assert key is not None
    assert (key.takes, key.default) == ("an integer, at least 2, at most 4096", 8)


@pytest.mark.parametrize("name", [name for name in known_keys() if "." in name])
def test_a_key_in_the_wrong_section_is_found(name):
    last = name.rpartition(".")[2]
    namesakes = [key for key in known_keys() if key.rpartition(".")[2] == last]
    assert near_keys(f"elsewhere.{last}") == namesakes[:3]


def test_a_section_without_a_near_key_shows_what_it_has():
    assert fix_for_unknown("memory.zzz") == f"It has {', '.join(sections()['memory'])}."
