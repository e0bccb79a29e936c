"""A model's folder at a real architecture's shape, its weights sparse zeros that take no room on the disk.

For rehearsals without data (`card.phantom`), in which shapes, dtypes and bytes count alone. The numbers are those of
`lowmem_rl.models.catalogue`; the tokenizer is the embedded model's.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from lowmem_rl.models.shape import ModelShape
from lowmem_rl_bench.prove.model_files import parts_of, write_files


def write_model(shape: ModelShape, folder: Path, layers: int | None = None) -> Path:
    """Writes a folder that loads like the model, with as many layers as are asked for, and returns it."""
    shape = replace(shape, num_layers=layers or shape.num_layers)
    write_files(shape, folder)
    tensors = {name: size for sizes in parts_of(shape) for name, size in sizes.items()}
    _write_zeros(folder / "model.safetensors", tensors)
    return folder


def _write_zeros(path: Path, tensors: dict[str, tuple[int, ...]]) -> None:
    """Writes a safetensors file in bfloat16 that ends in a hole."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, size in tensors.items():
        start, end = end, end + 2 * math.prod(size)
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
