"""A model of a real shape with random weights, for a machine without network: only shapes matter for memory and speed.

    python -m lowmem_rl_bench.prove.random_model ORDER.json ANSWER.json   (order: {"model": NAME, "folder": FOLDER})

One layer is made at a time, so that host memory has only one. No zeros: NF4 of a block of zeros divides by zero, and
every logit would be NaN.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lowmem_rl.models.lookup import load_shape
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.models.weight_files import INDEX, SAFETENSORS
from lowmem_rl_bench.prove.model_files import SPREAD, parts_of, write_files
from lowmem_rl_bench.prove.processes import serve

BYTES = 2
"""Of a weight in bfloat16."""


def make(order: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the model's folder; returns its bytes."""
    shape, folder = load_shape(order["model"]), Path(order["folder"])
    write_files(shape, folder)
    return {"bytes": _write_weights(shape, folder)}


def _write_weights(shape: ModelShape, folder: Path) -> int:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    files: dict[str, str] = {}
    for number, sizes in enumerate(parts_of(shape)):
        file = f"model-{number:05d}.safetensors"
        save_file({name: _drawn(name, size) for name, size in sizes.items()}, folder / file, {"format": "pt"})
        files |= dict.fromkeys(sizes, file)
    total = BYTES * shape.num_params
    index = {"metadata": {"total_size": total}, "weight_map": files}
    (folder / f"{SAFETENSORS}{INDEX}").write_text(json.dumps(index, indent=1), encoding="utf-8")
    return total


def _drawn(name: str, size: tuple[int, ...]) -> torch.Tensor:
    """Returns a host tensor, drawn on the card, where 7 billion numbers take a second."""
    if "norm" in name:
        return torch.ones(size, dtype=torch.bfloat16)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.empty(size, dtype=torch.bfloat16, device=device).normal_(0.0, SPREAD).cpu()


if __name__ == "__main__":
    serve(make)
