"""Norms and signal-to-noise ratios of frozen matrices, expanded one after the other where they are.

The singular values take minutes on a CPU: they are the square roots of the eigenvalues of W W^T in float64, a tenth of
the time of a decomposition. Ratios are kept in the user's cache, by a digest of the matrix's numbers.
"""

from collections.abc import Callable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lowmem_rl.engine.peft_model import ModelLike, layer_of
from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.cache import cache_dir
from lowmem_rl.storage.run_dir import read_json, write_json
from lowmem_rl.storage.run_reader import numbers
from lowmem_rl.trainable.scores import Matrix, signal_to_noise


def frozen_matrices(model: ModelLike) -> Iterator[tuple[Matrix, Tensor]]:
    """Yields the matrices (rows, columns) of decoder layers that have an adapter, expanded, layer by layer."""
    from peft.utils.integrations import dequantize_module_weight  # after Unsloth, which `policy` has imported

    for name, module in model.named_modules():
        layer = layer_of(f"{name}.")
        if layer is not None and hasattr(module, "lora_B"):
            yield (layer, name.rpartition(".")[2]), dequantize_module_weight(module.get_base_layer()).detach()


def squared_norms(model: ModelLike) -> dict[Matrix, float]:
    """Returns the squared Frobenius norm of each matrix."""
    return {key: float(weight.double().square().sum()) for key, weight in frozen_matrices(model)}


def signal_to_noise_ratios(model: ModelLike, report: Callable[[int], None]) -> dict[Matrix, float]:
    """Returns the ratio of each matrix; `report` gets each layer before it is computed."""
    known, found, at = _read_cache(), dict[Matrix, float](), -1
    for key, weight in frozen_matrices(model):
        if key[0] != at:
            _write_cache(known)
            at = key[0]
            report(at)
        mark = _digest(weight)
        if mark not in known:
            known[mark] = signal_to_noise(singular_values(weight), *weight.shape)
        found[key] = known[mark]
    _write_cache(known)
    return found


def singular_values(weight: Tensor) -> list[float]:
    """Returns the singular values of a matrix, ascending; those below 1e-8 of the largest are inexact."""
    wide = weight.double()
    wide = wide if wide.shape[0] <= wide.shape[1] else wide.T
    values: list[float] = torch.linalg.eigvalsh(wide @ wide.T).clamp_min(0).sqrt().tolist()
    return values


def _digest(weight: Tensor) -> str:
    return blake2b(weight.contiguous().view(torch.uint8).cpu().numpy(), digest_size=16).hexdigest()


def _cache_path() -> Path:
    return cache_dir() / "signal_to_noise.json"


def _read_cache() -> dict[str, float]:
    """A cache that cannot be read is an empty one."""
    try:
        return numbers(read_json(_cache_path()))
    except RunDirError:
        return {}


def _write_cache(known: dict[str, Any]) -> None:
    """A cache that cannot be written is computed again."""
    try:
        _cache_path().parent.mkdir(parents=True, exist_ok=True)
        write_json(_cache_path(), known)
    except OSError:
        return
