"""Layers that rest outside of the card: the same training to the bit as with all of them in memory."""

from pathlib import Path

import pytest
import torch

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.adapter import become_base, load_adapter
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.parking import Parking
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.example import Example
from lowmem_rl.grpo.train_dataset import to_dataset, tokens_of
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.trainable.schedule import LayerSchedule
from lowmem_rl.training.learning_layers import LearningLayers
from lowmem_rl.training.step import Hooks
from lowmem_rl.trl_adapter.trainer import TrainerSetup, make_trainer

DEVICE, STEPS = Device("cpu", "bfloat16"), 5
SETTINGS = (
    *("model.dtype=bfloat16", "memory.checkpointing=plain", "memory.micro_batch=8"),
    *("grpo.prompts_per_step=1", f"grpo.steps={STEPS}", "grpo.max_completion_tokens=12", "optimizer.warmup_steps=0"),
    *("trainable.method=full", "memory.rollout_rows=8", "rollout.weights=merged"),
)
EACH_STEP = ("model.bits=16", "trainable.every=1")
EXAMPLES = {f"{n}": Example(f"{n}", ({"role": "user", "content": f"{n} + 1"},), f"{n + 1}") for n in range(8)}


def vowels(completions: list[str], **_: object) -> list[float]:
    return [sum(map(text.count, "aeiou0123")) / 9 for text in completions]


def policy_of(config: RunConfig, parking: Parking) -> Policy:
    """A policy on the CPU that parks as one on a card does."""
    prepare_process(config, DEVICE)
    policy = load_policy(config, DEVICE)
    for module in policy.model.modules():
        if hasattr(type(module), "rest"):
            module.parking = parking
            if module.rests:
                module.settle()
    return policy


def trained(config: RunConfig, parking: Parking, folder: Path) -> Policy:
    policy = policy_of(config, parking)
    schedule = LayerSchedule.of(config, 3)
    hooks = Hooks((LearningLayers(RunDir.create(folder), schedule, policy.model, 0),))
    setup = TrainerSetup(
        config=config,
        sampler=Sampler(policy, config),
        dataset=to_dataset(list(EXAMPLES.values())),
        reward_functions=[vowels],
        prompt_tokens=tokens_of(policy, EXAMPLES),
        out=folder,
        hooks=hooks,
    )
    make_trainer(policy, setup).train()
    return policy


def masters(policy: Policy) -> dict[str, torch.Tensor]:
    named = policy.model.named_parameters()
    return {name: weight.detach().float() for name, weight in named if "modules_to_save" in name}


@pytest.mark.parametrize(
    "settings",
    [
        (*EACH_STEP, "trainable.schedule=badam", "optimizer.name=adamw_8bit", "trainable.state=keep", "grpo.beta=0.04"),
        (*EACH_STEP, "trainable.schedule=lisa", "optimizer.name=adamw_torch", 'trainable.extra=["norms"]'),
        (*EACH_STEP, "trainable.schedule=gradual_freezing", "optimizer.name=adamw_torch_fused", "trainable.state=keep"),
        ("model.bits=4", "trainable.every=4", "trainable.schedule=gradual_unfreezing"),
    ],
    ids=lambda settings: settings[2],
)
def test_a_run_that_parks_is_the_same_to_the_bit(tmp_path: Path, settings: tuple[str, ...]) -> None:
    config = resolve(preset="tiny-cpu", settings=[*SETTINGS, *settings]).config
    config = config.model_copy(update={"rewards": {"vowels": 1.0}})
    plain = trained(config, Parking(), tmp_path / "plain")
    parking = Parking(masters=True, originals=config.model.bits == 16)
    parked = trained(config, parking, tmp_path / "parked")
    wanted, found = masters(plain), masters(parked)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    modules = [module for module in parked.model.modules() if hasattr(type(module), "rest")]
    narrow = [module for module in modules if module.at_rest and not module.shares_memory]
    assert narrow  # layers that have learned rest, with a copy in 16 bit
    assert all(torch.equal(module.active_module.weight, module.learned.weight.bfloat16()) for module in narrow)

    parked.save_adapter(tmp_path / "saved")
    become_base(parked.model)
    assert not all(torch.equal(masters(parked)[name], wanted[name]) for name in wanted)
    load_adapter(parked.model, tmp_path / "saved")
    assert all(torch.equal(masters(parked)[name], wanted[name]) for name in wanted)
