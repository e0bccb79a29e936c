from collections.abc import Iterator

import pytest
from pydantic import BaseModel

from lowmem_rl.config.keys import known_keys
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError, UnknownName
from lowmem_rl.scale_out import trl_keys, verl_keys
from lowmem_rl.scale_out.counterparts import KeyMap, map_keys, value_of

TARGETS = {"trl": trl_keys, "verl": verl_keys}


def mapped(target: str, *accepted: str, **sections: dict) -> KeyMap:
    found = TARGETS[target]
    config = RunConfig.model_validate(sections)
    return map_keys(config, target, found.TABLE, found.DEVIATIONS, frozenset(accepted))


def row_of(keys: KeyMap, key: str):
    return next(row for row in keys.rows if row.key == key)


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Walks the model itself, apart from what `known_keys` makes of it."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from fields_of(field.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize("target", TARGETS)
def test_every_field_of_a_run_has_a_row_and_no_row_is_of_anything_else(target):
    assert sorted(TARGETS[target].TABLE) == sorted(fields_of(RunConfig))
    assert [row.key for row in mapped(target).rows] == [*known_keys()]


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_not_equal_says_why(target):
    found = TARGETS[target]
    counterparts = [*found.TABLE.values(), *(one.counterpart for one in found.DEVIATIONS)]
    assert [one for one in counterparts if one.status != "equal" and not one.note] == []
    assert {one.key for one in found.DEVIATIONS} <= set(fields_of(RunConfig))


@pytest.mark.parametrize("target", TARGETS)
def test_each_deviation_applies_to_some_run_and_not_to_another(target):
    runs = [RunConfig(), *map(RunConfig.model_validate, OTHERS)]
    for one in TARGETS[target].DEVIATIONS:
        assert len({one.applies(run) for run in runs}) == 2, one


OTHERS = [
    {
        "model": {"bits": 16},
        "adapter": {"peft_type": "tinylora"},
        "trainable": {"method": "full", "modules": ["q_proj"]},
    },
    {"model": {"bits": 16}, "trainable": {"method": "full"}, "optimizer": {"weight_decay": 0.1}},
    {"model": {"checkpoint": "dynamic"}, "rollout": {"engine": "vllm", "stop_loops": True, "min_p": 0.1}},
    {"adapter": {"use_dora": True, "use_rslora": True, "rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 4}}},
    {"adapter": {"dropout": 0.1}, "grpo": {"loss": "bnpo", "beta": 0.1, "mask_truncated": True}},
    {"adapter": {"peft_type": "tinylora"}, "grpo": {"update_rows": 4, "resample_rounds": 2}},
    {"trainable": {"select": "snr"}, "rollout": {"engine": "generate", "repetition_penalty": 1.1}},
    {"trainable": {"schedule": "lisa"}, "optimizer": {"schedule": "multistep", "milestones": [3]}},
    {"grpo": {"steps": 7, "steps_per_rollout": 2, "scale_rewards": "batch"}, "optimizer": {"schedule": "cosine"}},
    {"grpo": {"steps_per_rollout": 2, "scale_rewards": "none"}, "optimizer": {"warmup_steps": 3}},
    {"optimizer": {"name": "paged_adamw_8bit"}, "curriculum": {"by": "pass_rate", "how": "window"}},
    {"grpo": {"group_size": 9, "baseline": "median"}, "optimizer": {"name": "sgd"}},
    {"start_from": "runs/sft/adapter"},
    {"eval": {"every": 0}, "logging": {"checkpoint_every": 10}},
]


@pytest.mark.parametrize(
    ("target", "sections", "key", "value"),
    [
        ("verl", {"optimizer": {"schedule": "linear"}}, "optimizer.schedule", "constant"),
        ("verl", {"grpo": {"mask_truncated": True}}, "grpo.mask_truncated", False),
        ("verl", {"grpo": {"scale_rewards": "batch"}}, "grpo.scale_rewards", "group"),
        ("verl", {"rollout": {"min_p": 0.1}}, "rollout.min_p", None),
        ("verl", {"adapter": {"use_dora": True}}, "adapter.use_dora", False),
        ("trl", {"start_from": "runs/sft/adapter"}, "start_from", None),
        ("verl", {"start_from": "runs/sft/adapter"}, "start_from", None),
        ("trl", {"grpo": {"resample_rounds": 2}}, "grpo.resample_rounds", 0),
        ("trl", {"grpo": {"update_rows": 4}}, "grpo.update_rows", None),
        ("trl", {"trainable": {"schedule": "lisa", "every": 5}}, "trainable.schedule", "fixed"),
        ("trl", {"optimizer": {"schedule": "multistep", "milestones": [3]}}, "optimizer.schedule", "constant"),
    ],
)
def test_an_objective_without_counterpart_is_refused_until_it_is_accepted(target, sections, key, value):
    with pytest.raises(ConfigError, match=key) as refused:
        mapped(target, **sections)
    assert f"--accept {key}" in refused.value.hint
    keys = mapped(target, key, **sections)
    row = row_of(keys, key)
    assert (row.counterpart.status, row.is_accepted) == ("no counterpart", True)
    assert value_of(keys.config, key) == value


def test_all_refusals_are_reported_at_once():
    with pytest.raises(
        ConfigError, match="grpo.mask_truncated = True .*; nor optimizer.schedule = 'linear'"
    ) as refused:
        mapped("verl", grpo={"mask_truncated": True}, optimizer={"schedule": "linear"})
    assert "--accept grpo.mask_truncated --accept optimizer.schedule" in refused.value.hint
    assert refused.value.exit_code == 2


def test_whole_weights_in_single_layers_cannot_be_accepted():
    sections = {"model": {"bits": 16}, "trainable": {"method": "full", "layers": "last:1"}}
    for target in TARGETS:
        with pytest.raises(ConfigError, match="trainable.method") as refused:
            mapped(target, "trainable.method", **sections)
        assert 'trainable.method="lora"' in refused.value.hint


def test_an_unknown_key_is_not_accepted():
    with pytest.raises(UnknownName, match="optimizer.shedule"):
        mapped("verl", "optimizer.shedule")


def test_what_is_not_refused_cannot_be_accepted():
    with pytest.raises(
        ConfigError, match="verl does not refuse health.action = 'warn' or optimizer.schedule = 'cosine'"
    ):
        mapped("verl", "optimizer.schedule", "health.action", optimizer={"schedule": "cosine"})


def test_a_row_that_was_accepted_names_what_runs_instead():
    row = row_of(mapped("verl", "optimizer.schedule", optimizer={"schedule": "linear"}), "optimizer.schedule")
    assert row.counterpart.note.endswith('it runs with optimizer.schedule="constant" instead')
    assert row.value == "linear"


def test_what_has_an_effect_only_once_another_key_is_accepted_is_mapped():
    tiny = {"peft_type": "tinylora", "dropout": 0.0}
    keys = mapped("verl", "adapter.peft_type", adapter=tiny)
    assert row_of(keys, "adapter.rank").counterpart.name == "actor_rollout_ref.model.lora_rank"
    with pytest.raises(ConfigError, match="adapter.use_rslora = True"):
        mapped("verl", "adapter.peft_type", adapter=tiny | {"use_rslora": True})
    both = mapped("verl", "adapter.peft_type", "adapter.use_rslora", adapter=tiny | {"use_rslora": True})
    assert [row.key for row in both.rows if row.is_accepted] == ["adapter.peft_type", "adapter.use_rslora"]


@pytest.mark.parametrize("target", TARGETS)
def test_all_that_can_be_accepted_makes_a_run_that_the_target_can_do(target):
    found = TARGETS[target]
    for run in map(RunConfig.model_validate, OTHERS):
        accepted = {one.key for one in found.DEVIATIONS if one.applies(run) and one.instead}
        if any(one.applies(run) and one.fix for one in found.DEVIATIONS):
            continue
        made = map_keys(run, target, found.TABLE, found.DEVIATIONS, accepted).config
        assert map_keys(made, target, found.TABLE, found.DEVIATIONS).config == made


def test_a_key_without_effect_needs_no_counterpart():
    keys = mapped("verl", trainable={"select": "none"})
    assert row_of(keys, "trainable.select_top").counterpart.note == "it has no effect in this run"
