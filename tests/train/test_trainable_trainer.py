"""What a trainer does to the weights: gradients are those of a plain run, and nothing outside the chosen set moves."""

from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
import torch

from lowmem_rl.config.compose import resolve
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy, prepare_process
from lowmem_rl.engine.sampler import Sampler
from lowmem_rl.example import Example
from lowmem_rl_bench.step import stacks
from lowmem_rl_bench.step.arms import OURS

CPU = Device("cpu", "float32")
SMALL = (
    *("grpo.prompts_per_step=2", "grpo.steps=2", "memory.micro_batch=8", "memory.checkpointing=none"),
    *("optimizer.warmup_steps=0", "rollout.weights=merged", "memory.rollout_rows=16"),
)
EXAMPLES = {
    str(n): Example(str(n), ({"role": "user", "content": f"What is {n} * 7?"},), str(7 * n)) for n in (113, 256)
}
WHOLE = ("trainable.method=full", "trainable.layers=last:1")
KL = "grpo.beta=0.04"
SETS = {
    "whole, 4 bit": (*WHOLE, KL),
    "whole, 16 bit, and embeddings": (*WHOLE, "model.bits=16", "trainable.extra=embed_tokens"),
    "adapters": ("trainable.layers=first:1", KL),
    "adapters by a schedule": (
        "trainable.schedule=gradual_unfreezing",
        "trainable.every=1",
        "trainable.layers=last:2",
        KL,
    ),
}


def policy_of(*settings: str) -> tuple[Policy, RunConfig]:
    config = resolve(preset="tiny-cpu", settings=[*SMALL, *settings]).config
    prepare_process(config, CPU)
    return load_policy(config, CPU), config


def trainer_of(policy: Policy, config: RunConfig, out: Path) -> Any:
    """A trainer that is paid for the length of a completion: groups differ."""
    config = config.model_copy(update={"rewards": {"recorded": 1.0}})
    sampler = Sampler(policy, config)
    return stacks.build(OURS, policy, sampler, stacks.TrainerSpec(config, EXAMPLES, [by_length], [], out))


def by_length(completion_ids: list[list[int]], **_: object) -> list[float]:
    return [float(len(ids) + ids[-2] / 1000) for ids in completion_ids]


def digests(model: Any, *, learning: bool) -> dict[str, str]:
    """A hash of each weight that is to learn, or of each other one and of each buffer."""
    named = [(n, w) for n, w in model.named_parameters(remove_duplicate=False) if w.requires_grad == learning]
    named += [] if learning else list(model.named_buffers())
    return {n: blake2b(w.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest() for n, w in named}


def answers(model: Any) -> list[list[int]]:
    ids = torch.tensor([[5, 9, 17, 3, 11, 40, 2, 8]])
    found: list[list[int]] = model.generate(input_ids=ids, max_new_tokens=24, do_sample=False).tolist()
    return found


@pytest.mark.parametrize("settings", SETS.values(), ids=SETS)
def test_nothing_outside_the_set_moves_and_the_base_model_stays(settings: tuple[str, ...], tmp_path: Path) -> None:
    policy, config = policy_of(*settings, "optimizer.learning_rate=0.01")
    base, _ = policy_of(f"model.bits={config.model.bits}")  # a fresh adapter changes nothing
    wanted = answers(base.model)
    frozen, learning = digests(policy.model, learning=False), digests(policy.model, learning=True)
    trainer_of(policy, config, tmp_path).train()
    found = {
        name: digest
        for digest_of in (True, False)
        for name, digest in digests(policy.model, learning=digest_of).items()
    }
    assert {name: found[name] for name in frozen} == frozen
    moved = {name for name in learning if found[name] != learning[name]}
    assert moved == set(learning)
    with policy.inference() as model, model.disable_adapter():
        assert answers(model) == wanted


def test_gradients_of_adapters_are_those_of_a_run_with_adapters_everywhere() -> None:
    """Those elsewhere are switched off by a zero outer matrix."""
    found = []
    for layers in ("all", "last:1"):
        policy, _ = policy_of("model.bits=16", f"trainable.layers={layers}")
        stacks.fill_adapter(policy.model, 0, stacks.B_SPREAD)
        with torch.no_grad():
            for name, weight in policy.model.named_parameters():
                if "lora_B" in name and ".layers.2." not in name:
                    weight.zero_()
        ids = torch.tensor([[5, 9, 17, 3, 11, 40, 2, 8]])
        (policy.model(input_ids=ids).logits.float() ** 2).mean().backward()
        found.append(
            {n: w.grad for n, w in policy.model.named_parameters() if ".layers.2." in n and w.grad is not None}
        )
    everywhere, last = found
    assert len(last) == len(everywhere) == 14
    assert all(torch.allclose(last[name], everywhere[name], rtol=0, atol=1e-6) for name in last)
    assert all(weight.abs().max() > 1e-3 for weight in last.values())


def test_weight_decay_leaves_embeddings_alone(tmp_path: Path) -> None:
    """A row whose token is in no batch has no gradient: decay alone would erase it."""
    policy, config = policy_of(*SETS["whole, 16 bit, and embeddings"], "optimizer.weight_decay=0.1")
    trainer = trainer_of(policy, config, tmp_path)
    trainer.create_optimizer()
    names = {id(weight): name for name, weight in policy.model.named_parameters()}
    decays = {
        names[id(weight)]: group["weight_decay"]
        for group in trainer.optimizer.param_groups
        for weight in group["params"]
    }
    assert [decay for name, decay in decays.items() if "embed_tokens" in name] == [0.0]
    assert {decay for name, decay in decays.items() if name.endswith("_proj.modules_to_save.default.weight")} == {0.1}
