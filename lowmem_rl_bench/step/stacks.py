"""Policy and trainer of each stack, as that stack makes them.

Importing Unsloth replaces TRL's classes, so the plain arm never does it: it loads with transformers, bitsandbytes and
PEFT. On a CPU, TRL 1.15 needs one patch to run at all: its log-prob kernel is Triton's, and `unsloth_zoo` has it in
PyTorch. That one file is loaded by its path, without the rest of Unsloth.
"""

import importlib.util
import runpy
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from lowmem_rl.config.layer_choice import layers_of
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy, template_of
from lowmem_rl.engine.row_length import reading_answers
from lowmem_rl.errors import SetupError
from lowmem_rl.example import Example
from lowmem_rl.grpo.train_dataset import to_dataset, tokens_of
from lowmem_rl.models.lookup import model_path
from lowmem_rl.trl_adapter.trainer import TrainerSetup, make_trainer, trainer_arguments
from lowmem_rl_bench.step.arms import Arm
from lowmem_rl_bench.step.batch_ablations import ablation_mixins

B_SPREAD = 0.02
"""Standard deviation of LoRA's B in replays: at its usual zero A has no gradient to compare."""


@dataclass(frozen=True, slots=True)
class TrainerSpec:
    """What a trainer is made of, together with its arm."""

    config: RunConfig
    examples: Mapping[str, Example]
    reward_functions: Sequence[Callable[..., list[float | None]]]
    callbacks: Sequence[Any]
    out: Path
    kinds: tuple[type, ...] = ()
    """Mixins that come before the trainer's own class."""


def load(arm: Arm, config: RunConfig, device: Device) -> Policy:
    """Returns the arm's policy. Raises `SetupError` if the installed TRL lacks what the arm is about."""
    if arm.stack == "trl":
        _check_arguments(arm)
        return _load_plain(config, device)
    return load_policy(config, device, [reading_answers(config, ())])  # the examples come later


def _check_arguments(arm: Arm) -> None:
    import trl

    if missing := sorted(set(arm.arguments) - set(trl.GRPOConfig.__dataclass_fields__)):
        what = f"TRL {trl.__version__} has no {missing[0]}, which this arm is about."
        raise SetupError(what, hint="Leave the arm out, or install another TRL.")


def _load_plain(config: RunConfig, device: Device) -> Policy:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    dtype = getattr(torch, device.dtype)
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    path = model_path(config.model.name)
    model = AutoModelForCausalLM.from_pretrained(
        path,
        revision=config.model.revision,
        dtype=dtype,
        quantization_config=four_bit if config.model.bits == 4 else None,
        device_map={"": 0} if device.is_gpu else "cpu",
    )
    tokenizer = AutoTokenizer.from_pretrained(path, revision=config.model.revision)
    lora = LoraConfig(
        r=config.adapter.rank,
        lora_alpha=config.adapter.alpha,
        target_modules=list(config.adapter.targets),
        layers_to_transform=list(layers_of(config.trainable.layers, model.config.num_hidden_layers)),
        task_type="CAUSAL_LM",
    )
    if not device.is_gpu:
        _patch_head()
        _keep_gradients(model)
    return Policy(get_peft_model(model, lora), tokenizer, device, template_of(tokenizer, config.model.name))


def _patch_head() -> None:
    zoo: Any = importlib.util.find_spec("unsloth_zoo")
    path = Path(zoo.origin).parent / "cpu" / "ops.py"
    if not runpy.run_path(str(path))["patch_trl_fused_lm_head"]():
        raise RuntimeError("TRL has no fused head that unsloth_zoo could patch")


def _keep_gradients(model: Any) -> None:
    """Keeps 4-bit layers from bitsandbytes' layout for AVX-512 CPUs, as unsloth_zoo does (cpu/loader.py).

    A forward in `eval` packs the weights for a bfloat16 kernel that passes no gradient on, and training keeps them so:
    with continuous batching the first gradient was off by 1.7 of its largest number (bitsandbytes 0.50, 2026-12-01).
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def build(arm: Arm, policy: Policy, sampler: Any, spec: TrainerSpec) -> Any:
    """Returns the arm's trainer; only ours uses `sampler`. Raises `RuntimeError` if plain TRL has loaded Unsloth."""
    if arm.stack == "ours":
        setup = TrainerSetup(
            config=spec.config,
            sampler=sampler,
            dataset=to_dataset(list(spec.examples.values())),
            reward_functions=spec.reward_functions,
            prompt_tokens=tokens_of(policy, spec.examples),
            out=spec.out,
            callbacks=spec.callbacks,
        )
        return make_trainer(policy, setup, (*spec.kinds, *ablation_mixins(arm.off)))
    if arm.stack == "trl" and "unsloth" in sys.modules:
        raise RuntimeError("Unsloth is loaded in an arm of plain TRL")
    return _build_theirs(policy, spec, arm.arguments)


def _build_theirs(policy: Policy, spec: TrainerSpec, arguments: Mapping[str, Any]) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    if "use_transformers_continuous_batching" in arguments and not policy.device.is_gpu:
        arguments = {**arguments, "transformers_continuous_batching_config": _cache_of_a_step(spec.config)}
    rows = [{"prompt": policy.template.fit(one.prompt), "example_id": one.id} for one in spec.examples.values()]
    kind = type(GRPOTrainer.__name__, (*spec.kinds, GRPOTrainer), {"__module__": GRPOTrainer.__module__})
    trainer = kind(
        model=policy.model,
        processing_class=policy.tokenizer,
        args=GRPOConfig(**(trainer_arguments(spec.config, policy.device, spec.out) | dict(arguments))),
        train_dataset=Dataset.from_list(rows),
        reward_funcs=list(spec.reward_functions),
        callbacks=list(spec.callbacks),
    )
    for parameter in policy.model.parameters():
        if parameter.requires_grad:  # TRL casts a quantised model's adapter to bfloat16: the same type as ours
            parameter.data = parameter.data.to(torch.promote_types(torch.float32, getattr(torch, policy.device.dtype)))
    return trainer


_BLOCK_TOKENS, _BATCH_TOKENS = 256, 512
"""Of transformers' cache by default; and the tokens of a forward, more than rows that decode."""


def _cache_of_a_step(config: RunConfig) -> dict[str, int]:
    """Returns a cache for all rows of a step.

    By default half of the host's RAM is filled in each rollout: 19 s (24 GB, two shared x86 cores, 2026-11-30).
    """
    rows = config.grpo.prompts_per_step * config.grpo.group_size
    longest = config.grpo.max_prompt_tokens + config.grpo.max_completion_tokens
    return {"num_blocks": rows * -(-longest // _BLOCK_TOKENS), "max_batch_tokens": _BATCH_TOKENS}


def fill_adapter(model: Any, seed: int, b_spread: float) -> None:
    """Gives the adapter weights that depend only on their names and the seed: A as PEFT draws it, B normal."""
    for name, parameter in adapter_of(model).items():
        digest = blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        drawn = torch.empty(parameter.shape)
        if "lora_A" in name:
            limit = drawn.shape[1] ** -0.5
            drawn.uniform_(-limit, limit, generator=generator)
        else:
            drawn.normal_(0.0, b_spread, generator=generator) if b_spread else drawn.zero_()
        parameter.data.copy_(drawn)


def adapter_of(model: Any) -> dict[str, Any]:
    """Returns the trainable weights by name, which is the same in all stacks."""
    return {name: parameter for name, parameter in sorted(model.named_parameters()) if parameter.requires_grad}
