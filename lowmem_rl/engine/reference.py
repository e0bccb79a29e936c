"""The KL reference of a run that starts from an adapter: a frozen copy of the weights that it starts with.

PEFT's `disable_adapter`, through which trainer, evaluation and rewards reach the base model, then computes with the
copy instead: the numbers are exchanged, not the modules, so all kernels and kinds of adapter compute as they do.
"""

import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.adapter import become_base, load_adapter
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.peft_model import ModelLike
from lowmem_rl.engine.policy import Policy, load_policy
from lowmem_rl.engine.row_length import SequenceUse
from lowmem_rl.engine.threads import ThreadChoice

if TYPE_CHECKING:
    import torch

_START = "lowmem_rl_start"
"""Attribute of a model: its weights that learn, each with the numbers that it started with."""
_LEARNED = ("lora_", "tinylora_v", "modules_to_save")

Copies = Sequence[tuple["torch.nn.Parameter", "torch.Tensor"]]


def load_policy_at_start(
    config: RunConfig, device: Device, uses: Sequence[SequenceUse] = (), threads: ThreadChoice | None = None
) -> Policy:
    """Returns the policy as training begins with it: with a fresh adapter, or with the one of `start_from`.

    Raises what `load_policy` and `load_adapter` raise.
    """
    policy = load_policy(config, device, uses, threads)
    if config.start_from is not None:
        load_adapter(policy.model, Path(config.start_from))
        keep_as_reference(policy.model)
    return policy


def keep_as_reference(model: ModelLike) -> None:
    """Makes the present weights the reference: `disable_adapter` computes with a copy of them from now on."""
    learned = [(weight, weight.detach().clone()) for name, weight in model.named_parameters() if _learns(name)]
    vars(model).update({_START: learned, "disable_adapter": partial(_at_start, learned)})


def become_start(model: ModelLike) -> None:
    """Makes it compute as at the start of its run: as the reference that it keeps, else as the base model."""
    import torch

    if _START not in vars(model):
        become_base(model)
        return
    with torch.no_grad():
        for weight, start in vars(model)[_START]:
            weight.copy_(start)


def _learns(name: str) -> bool:
    return any(part in name for part in _LEARNED)


@contextlib.contextmanager
def _at_start(copies: Copies) -> Iterator[None]:
    own = [weight.data for weight, _ in copies]
    _exchange((weight for weight, _ in copies), (start for _, start in copies))
    try:
        yield
    finally:
        _exchange((weight for weight, _ in copies), own)


def _exchange(weights: Any, numbers: Any) -> None:
    import torch

    with torch.inference_mode(False):
        for weight, data in zip(weights, numbers, strict=True):
            weight.data = data
