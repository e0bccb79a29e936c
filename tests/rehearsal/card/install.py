"""Puts the simulated card in place, and loads the training stack on it."""

from __future__ import annotations

import os
import threading
from typing import Any

from lowmem_rl.models.hardware import find_card
from tests.rehearsal.card.state import STATE

ENVIRONMENT = {
    "TRITON_INTERPRET": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "UNSLOTH_COMPILE_DISABLE": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DEACTIVATE_ASYNC_LOAD": "1",  # loader threads have no dispatch mode of their own
    "UNSLOTH_RMSNORM_MULTIROW": "0",  # for rows narrower than any real model's
    "UNSLOTH_BNB_TRITON": "0",  # its NF4 kernels hold inline PTX: bitsandbytes computes instead
}


def install(key: str) -> None:
    """Shows a card of `lowmem_rl.models.hardware.CARDS` to torch; called before any user of torch is imported."""
    if STATE.is_installed:
        return
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import torch

    from tests.rehearsal.card import attention, autograd_engine, cuda_api, kernels, libraries, scratch, storages
    from tests.rehearsal.card.dispatch import SimulatedCuda
    from tests.rehearsal.card.random_numbers import manual_seed

    STATE.is_installed, STATE.card = True, find_card(key)
    torch._C._ensureCUDADeviceGuardSet()
    autograd_engine.patch()
    torch._C._set_only_lift_cpu_tensors(True)
    manual_seed(0)
    cuda_api.patch()
    storages.patch()
    attention.patch()
    scratch.patch()
    libraries.patch_compile()
    libraries.patch_nvml()
    kernels.patch()
    _patch_threads()
    SimulatedCuda().__enter__()


def load_stack() -> None:
    """Imports Unsloth and what it rebinds, with the kernels replaced that no interpreter can run."""
    from lowmem_rl.engine.policy import import_unsloth
    from tests.rehearsal.card import libraries

    if STATE.is_installed:
        libraries.patch_bitsandbytes()
    import_unsloth()
    if STATE.is_installed:
        libraries.patch_unsloth()


def _patch_threads() -> None:
    from tests.rehearsal.card.dispatch import SimulatedCuda

    plain = threading.Thread.run

    def run(self: Any) -> None:
        with SimulatedCuda():
            plain(self)

    threading.Thread.run = run  # type: ignore[method-assign]
