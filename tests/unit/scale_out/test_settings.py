"""What a run becomes in each target's own words."""

import re

import pytest

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.scale_out.cluster import cluster_of
from lowmem_rl.scale_out.trl_files import accelerate_settings, trl_settings
from lowmem_rl.scale_out.verl_files import verl_overrides

DEPTH = 28
ACTOR, MODEL, ROLLOUT = (f"actor_rollout_ref.{part}" for part in ("actor", "model", "rollout"))
RESOLVED = {"memory": {"micro_batch": 8, "checkpointing": "plain", "rollout_rows": 8}}


def run(**sections: dict) -> RunConfig:
    return RunConfig.model_validate(RESOLVED | sections)


def for_verl(config: RunConfig, gpus: int = 4, nodes: int = 1) -> dict:
    return verl_overrides(config, cluster_of("verl", gpus, nodes, "a run"), "org/model", DEPTH, 1000)


def for_trl(config: RunConfig, gpus: int, device: Device) -> dict:
    return trl_settings(config, device, cluster_of("trl", gpus, 1, "a run"), DEPTH, prefill="", adapter=None)


def test_adapted_layers_are_a_pattern_of_whole_names():
    found = for_verl(run(trainable={"layers": "last:5"}, adapter={"targets": ["q_proj", "down_proj"]}))
    pattern = found[f"{MODEL}.target_modules"]
    names = [f"model.layers.{layer}.{part}" for layer in range(DEPTH) for part in PARTS]
    chosen = [name for name in names if re.fullmatch(pattern, name)]
    assert chosen == [f"model.layers.{n}.{part}" for n in range(23, 28) for part in (PARTS[0], PARTS[2])]


PARTS = ("self_attn.q_proj", "self_attn.k_proj", "mlp.down_proj", "mlp.up_proj", "self_attn.q_proj.inner")


def test_all_layers_are_the_names_alone():
    assert for_verl(run(adapter={"targets": ["q_proj"]}))[f"{MODEL}.target_modules"] == ["q_proj"]


def test_whole_weights_are_rank_zero():
    found = for_verl(run(model={"bits": 16}, trainable={"method": "full"}))
    assert found[f"{MODEL}.lora_rank"] == 0
    assert f"{MODEL}.target_modules" not in found


def test_steps_become_rollouts():
    grpo = {"steps": 100, "steps_per_rollout": 2, "passes_per_rollout": 2, "prompts_per_step": 8}
    found = for_verl(run(grpo=grpo, optimizer={"warmup_steps": 10}, eval={"every": 20}))
    assert found["trainer.total_training_steps"] == 25
    assert found["data.train_batch_size"] == 16
    assert found[f"{ACTOR}.ppo_mini_batch_size"] == 8
    assert found[f"{ACTOR}.ppo_epochs"] == 2
    assert found[f"{ACTOR}.optim.lr_warmup_steps"] == 3
    assert found["trainer.test_freq"] == 5


@pytest.mark.parametrize(
    ("loss", "scale", "mode", "divides", "scaled"),
    [
        ("dapo", "group", "token-mean", None, True),
        ("grpo", "group", "seq-mean-token-mean", None, True),
        ("dr_grpo", "none", "seq-mean-token-sum-norm", 512, False),
    ],
)
def test_losses(loss, scale, mode, divides, scaled):
    found = for_verl(run(grpo={"loss": loss, "scale_rewards": scale, "beta": 0.04, "epsilon_high": 0.28}))
    assert found[f"{ACTOR}.loss_agg_mode"] == mode
    assert found.get(f"{ACTOR}.loss_scale_factor") == divides
    assert found["algorithm.norm_adv_by_std_in_grpo"] is scaled
    assert (found[f"{ACTOR}.clip_ratio_low"], found[f"{ACTOR}.clip_ratio_high"]) == (0.2, 0.28)
    assert (found[f"{ACTOR}.use_kl_loss"], found[f"{ACTOR}.kl_loss_coef"]) == (True, 0.04)


def test_what_verl_would_choose_otherwise_is_written_out():
    found = for_verl(run())
    assert found[f"{ACTOR}.optim.weight_decay"] == 0.0
    assert found[f"{ACTOR}.clip_ratio_c"] >= 1e9
    assert found[f"{ACTOR}.fsdp_config.model_dtype"] == "fp32"
    assert found[f"{ROLLOUT}.top_k"] == -1
    assert found[f"{ROLLOUT}.load_format"] == "safetensors"
    assert found["trainer.logger"] == ["console"]


@pytest.mark.parametrize("gpus", [1, 2, 4])
@pytest.mark.parametrize("steps_per_rollout", [1, 3])
def test_completions_of_a_step_and_of_a_rollout_stay(gpus: int, steps_per_rollout: int):
    config = run(grpo={"steps_per_rollout": steps_per_rollout})
    found = for_trl(config, gpus, Device("cuda", "bfloat16"))["grpo_config"]
    rows = found["per_device_train_batch_size"] * gpus
    assert rows * found["gradient_accumulation_steps"] == config.rows_per_step == 64
    assert rows * found["steps_per_generation"] == config.rows_per_rollout


def test_four_bits_and_layers_stay_with_trl():
    config = run(trainable={"layers": "0,4"}, adapter={"use_dora": True, "rank_pattern": {"q_proj": 4}})
    found = for_trl(config, 2, Device("cuda", "bfloat16"))
    assert found["quantization"]["bnb_4bit_compute_dtype"] == "bfloat16"
    assert found["lora"]["layers_to_transform"] == [0, 4]
    assert (found["lora"]["use_dora"], found["lora"]["rank_pattern"]) == (True, {"q_proj": 4})
    assert found["grpo_config"]["bf16"] is True
    assert for_trl(run(model={"bits": 16}), 2, Device("cuda", "bfloat16"))["quantization"] is None


@pytest.mark.parametrize(
    ("device", "cards", "kind", "precision"),
    [
        (Device("cuda", "bfloat16"), 4, "MULTI_GPU", "bf16"),
        (Device("cuda", "float16"), 1, "NO", "fp16"),
        (Device("cpu", "float32"), 2, "MULTI_GPU", "no"),
    ],
)
def test_a_process_a_card(device, cards, kind, precision):
    found = accelerate_settings(device, cards)
    assert (found["distributed_type"], found["mixed_precision"], found["num_processes"]) == (kind, precision, cards)
    assert found["use_cpu"] is not device.is_gpu
