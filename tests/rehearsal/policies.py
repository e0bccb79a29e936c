"""The embedded model on a card, for rehearsals of what is read and sampled with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowmem_rl.config.run_config import RunConfig
    from lowmem_rl.engine.policy import Policy
    from lowmem_rl.engine.row_length import SequenceUse

CHOSEN = {"memory.checkpointing": "none", "rollout.engine": "lowmem", "rollout.weights": "merged"}


def load(settings: Mapping[str, object] | None = None, uses: Sequence[SequenceUse] = ()) -> tuple[RunConfig, Policy]:
    """Returns config and policy of the tiny preset; the policy has a trained adapter."""
    from lowmem_rl.config.compose import resolve
    from lowmem_rl.engine.device import device_on
    from lowmem_rl.engine.policy import load_policy, prepare_process
    from lowmem_rl.models.hardware import this_machine

    chosen = [f"{key}={value}" for key, value in (CHOSEN | dict(settings or {})).items()]
    config = resolve(preset="tiny-cpu", settings=chosen).config
    device = device_on(this_machine(), config)
    prepare_process(config, device)
    policy = load_policy(config, device, uses)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data.fill_(0.02)
    return config, policy
