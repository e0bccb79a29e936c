"""Where a run computes and in which number format: decided without torch, so that a dry run can say it."""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError, SetupError
from lowmem_rl.models.hardware import Card, Machine

DType = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True, slots=True)
class Device:
    """`cuda` or `cpu`, and the compute type of the adapter and the activations."""

    kind: Literal["cuda", "cpu"]
    dtype: DType

    @property
    def is_gpu(self) -> bool:
        return self.kind == "cuda"


def device_on(machine: Machine, config: RunConfig) -> Device:
    """Returns the device of a run on this machine.

    Raises `ConfigError` for a number format the card lacks, `SetupError` for vLLM without a card or the package.
    """
    if machine.card is None:
        if config.rollout.engine == "vllm":
            raise SetupError(
                "rollout.engine = 'vllm' needs a GPU, and this machine shows none.",
                hint="Set rollout.engine=generate, or run `lowmem-rl doctor`.",
            )
        return Device("cpu", _cpu_dtype(config.model.dtype))
    if config.rollout.engine == "vllm" and find_spec("vllm") is None:
        raise SetupError(
            "rollout.engine = 'vllm', but vLLM is not installed.",
            hint="Install it (TRL 1.15 takes 0.21 to 0.31), or set rollout.engine=generate.",
        )
    return device_of(machine.card, config)


def device_of(card: Card, config: RunConfig) -> Device:
    """Returns the device of a run on a card that need not be here. Raises `ConfigError` as above."""
    return Device("cuda", _gpu_dtype(config.model.dtype, card))


def _cpu_dtype(wanted: str) -> DType:
    # float16 has no fast CPU kernels; float32 repeats digit for digit on every machine.
    return "bfloat16" if wanted == "bfloat16" else "float32"


def _gpu_dtype(wanted: str, card: Card) -> DType:
    if wanted == "auto":
        return "bfloat16" if card.has_bf16 else "float16"
    if wanted == "bfloat16" and not card.has_bf16:
        raise ConfigError(f"model.dtype = 'bfloat16': {card.name} has no bfloat16.", hint="Set model.dtype=float16.")
    return wanted  # type: ignore[return-value]  # the rest of the setting's literals are DTypes
