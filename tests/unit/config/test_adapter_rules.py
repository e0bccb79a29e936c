"""Kinds of adapters, and which settings go together."""

import pytest

from lowmem_rl.config.compose import read_config_file, resolve
from lowmem_rl.config.keys import known_keys
from lowmem_rl.config.notices import notices
from lowmem_rl.config.rank_pattern import module_name, patterns_of
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError

TINY, SELECT = "adapter.peft_type=tinylora", "trainable.select=snr"
MODULES = tuple(module_name(layer, target) for layer in (0, 1, 11) for target in ("q_proj", "down_proj"))


def config_of(*settings: str) -> RunConfig:
    return resolve(preset="tiny-cpu", settings=settings).config


@pytest.mark.parametrize(
    ("settings", "key", "fix"),
    [
        (["adapter.u=4"], "adapter.u", "peft_type=tinylora"),
        (["adapter.weight_tying=0.5"], "adapter.weight_tying", "peft_type=tinylora"),
        ([TINY, "adapter.use_dora=true"], "adapter.use_dora", "peft_type=lora"),
        ([TINY, "adapter.use_rslora=true"], "adapter.use_rslora", "peft_type=lora"),
        ([TINY, "adapter.rank_pattern={q_proj=8}"], "adapter.rank_pattern", "peft_type=lora"),
        ([TINY, "trainable.schedule=lisa"], "trainable.schedule", "leave it fixed"),
        ([TINY, "rollout.engine=vllm"], "adapter.peft_type", "rollout.engine"),
        (["adapter.use_dora=true", "rollout.engine=vllm"], "adapter.use_dora", "rollout.engine"),
        (["adapter.rank_pattern={q_proj=8}", "rollout.engine=vllm"], "adapter.rank_pattern", "rollout.engine"),
        (["adapter.use_dora=true", "trainable.method=full"], "adapter.use_dora", 'method="lora"'),
        ([TINY, "trainable.method=full"], "adapter.peft_type", 'method="lora"'),
        ([SELECT, 'adapter.rank_pattern={"layers.1.mlp.up_proj"=8}'], "adapter.rank_pattern", "as down_proj"),
        ([SELECT, 'adapter.alpha_pattern={"(1|2).mlp.up_proj"=8}'], "adapter.alpha_pattern", "as down_proj"),
    ],
)
def test_what_does_not_go_together_is_refused_with_a_fix(settings, key, fix) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(*settings)
    assert str(caught.value).startswith(key)
    assert fix in caught.value.hint.replace("Leave", "leave")


@pytest.mark.parametrize(
    "settings",
    [
        ["adapter.use_rslora=true", "adapter.use_dora=true", "adapter.rank_pattern={q_proj=8}", "adapter.dropout=0.1"],
        [TINY, "adapter.u=4", "adapter.weight_tying=0", "adapter.dropout=0.1", "trainable.layers=last:1"],
        ["adapter.use_dora=true", "trainable.schedule=lisa"],
        ["adapter.use_rslora=true", "rollout.engine=vllm"],
        [SELECT, "adapter.rank_pattern={up_proj=8}", "memory.kept_states=host"],
    ],
)
def test_what_goes_together_is_taken(settings) -> None:
    config_of(*settings)


@pytest.mark.parametrize(
    ("table", "shown"),
    [
        ('{"(a+)+"=8}', "a pattern of another form"),
        ('{".*"=8}', "a pattern of another form"),
        ('{"(q_proj|v_proj)(|x)"=8}', "a pattern of another form"),
        ('{""=8}', "a pattern of another form"),
        (f'{{"{"q" * 201}"=8}}', "a pattern of another form"),
        ("{" + ",".join(f"a{i}=1" for i in range(257)) + "}", "257 patterns"),
        ("{q_proj=1025}", "less than or equal to 1024"),
        ("{q_proj=0}", "greater than or equal to 1"),
        ('{"q\\u0007"=8}', "control characters"),
        ("7", "valid dictionary"),
    ],
)
def test_a_hostile_table_of_ranks_is_refused_in_two_lines(table, shown) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(f"adapter.rank_pattern={table}")
    assert shown in str(caught.value)
    assert "\n" not in f"{caught.value}{caught.value.hint}"


def test_a_table_of_ranks_is_the_same_on_the_command_line_and_in_a_file(tmp_path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[adapter.rank_pattern]\nq_proj = 4\n"layers.(0|1).mlp.down_proj" = 8\n')
    typed = config_of('adapter.rank_pattern={q_proj=4, "layers.(0|1).mlp.down_proj"=8}').adapter.rank_pattern
    assert resolve(preset="tiny-cpu", config_files=[file]).config.adapter.rank_pattern == typed
    assert (
        read_config_file(file).values["adapter.rank_pattern"]
        == typed
        == {
            "q_proj": 4,
            "layers.(0|1).mlp.down_proj": 8,
        }
    )


@pytest.mark.slow  # loads PEFT
@pytest.mark.parametrize(
    "patterns",
    [
        ("q_proj", "mlp.down_proj"),
        ("layers.1.mlp.down_proj", "down_proj", "q_proj"),
        (r"layers\.(0|11).self_attn.q_proj", "^model.layers.1.self_attn.q_proj", "down_proj"),
        ("layers.1.self_attn.q_proj", r"\.down_proj"),
    ],
)
def test_a_pattern_names_the_modules_that_peft_gives_its_rank(patterns) -> None:
    from peft.utils.other import get_pattern_key

    named = {name: key for name in MODULES if (key := get_pattern_key(patterns, name)) != name}
    if set(named.values()) == set(patterns):
        assert patterns_of("ranks", patterns, MODULES) == named
    else:
        with pytest.raises(ConfigError, match="names no module"):
            patterns_of("ranks", patterns, MODULES)


@pytest.mark.parametrize(
    "patterns", [("q_porj",), ("q_proj", "layers.0.self_attn.q_proj"), ("layers.2.mlp.down_proj",)]
)
def test_a_pattern_that_names_nothing_new_is_refused(patterns) -> None:
    with pytest.raises(ConfigError, match=f"{patterns[-1]!r} names no module".replace(".", r"\.")):
        patterns_of("ranks", patterns, MODULES)


@pytest.mark.parametrize("name", ["init_lora_weights", "adapter.init_lora_weights", "adapter.loftq_config"])
def test_another_start_than_the_base_model_is_refused_with_the_reason(name) -> None:
    with pytest.raises(ConfigError) as caught:
        config_of(f"{name}=pissa")
    assert "KL reference" in caught.value.hint
    assert "2511.08567" in caught.value.hint


def test_a_key_that_takes_a_table_of_ranks_says_so() -> None:
    assert known_keys()["adapter.rank_pattern"].takes == "a table of NAME = an integer, at least 1, at most 1024"
    assert known_keys()["rewards"].takes == "a table of NAME = WEIGHT"


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ([TINY], "40 steps of Adam at the learning rate 0.0005 move each by about 0.02 at most"),
        (["adapter.use_dora=true", "rollout.weights=quantized"], "finds the norm of every adapted weight again"),
        (["adapter.use_dora=true", "rollout.engine=generate"], "finds the norm of every adapted weight again"),
    ],
)
def test_what_an_adapter_asks_for_is_noted(settings, shown) -> None:
    (found,) = notices(config_of(*settings))
    assert shown in found


@pytest.mark.parametrize("settings", [["adapter.use_dora=true"], [TINY, "optimizer.learning_rate=0.02"], []])
def test_nothing_is_noted_of_an_adapter_that_gets_it(settings) -> None:
    assert not [*notices(config_of(*settings))]
