"""A model's files on this disk, hostile until checked: JSON that may be torn, weights that may be cut short."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lowmem_rl.errors import ConfigError

INDEX = "model.safetensors.index.json"
WHOLE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
LARGEST_CONFIG_BYTES = 1_000_000
LARGEST_INDEX_BYTES = 20_000_000
"""Of an index: a 70B in 4 bit names some 4000 tensors in half a megabyte."""
MOST_BYTES = 2**50
"""Of a model: more is a mistake."""
LARGEST_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format itself."""


def read_json(path: Path) -> Any:
    """Returns what a JSON file holds. Raises `ConfigError`."""
    most = {"config.json": LARGEST_CONFIG_BYTES, INDEX: LARGEST_INDEX_BYTES}.get(path.name)
    try:
        if most is not None and path.stat().st_size > most:
            raise ConfigError(f"{path} is larger than any {path.name}.", hint="Fetch the file again.")
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}.", hint="Fetch the file again.") from error


def tensor_bytes(directory: Path) -> int | None:
    """Returns the bytes of all tensors in a directory's safetensors files, None where neither index nor header tells.

    A torn file tells nothing: planning needs none of them, and loading refuses them by name.
    """
    if (directory / INDEX).is_file():
        return _total_size(directory / INDEX)
    whole = directory / WHOLE_WEIGHTS[0]
    layout = _layout(whole) if whole.is_file() else None
    return layout and layout[1]


def _total_size(index: Path) -> int | None:
    try:
        content = read_json(index)
    except ConfigError:
        return None
    metadata = content.get("metadata") if isinstance(content, dict) else None
    size = metadata.get("total_size") if isinstance(metadata, dict) else None
    if isinstance(size, bool) or not isinstance(size, int | float):
        return None
    return int(size) if 0 < size <= MOST_BYTES else None


def missing_weights(directory: Path) -> Iterator[str]:
    """Yields what keeps a directory's weights from being loaded. Raises `ConfigError` for a broken index."""
    if (directory / INDEX).is_file():
        files = sorted(set(_shards(directory / INDEX)))
    else:
        files = [name for name in WHOLE_WEIGHTS if (directory / name).is_file()][:1]
    if not files:
        yield f"it has no weights ({' or '.join([WHOLE_WEIGHTS[0], INDEX])})"
    for name in files:
        if not (directory / name).is_file():
            yield f"{name} is missing, which {INDEX} names"
        elif name.endswith(".safetensors") and not _is_whole(directory / name):
            yield f"{name} is cut short or broken"


def _shards(index: Path) -> list[str]:
    content = read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ConfigError(f"{index} has no weight_map.", hint="Fetch the file again.")
    return list(shards.values())


def _is_whole(path: Path) -> bool:
    layout = _layout(path)
    return layout is not None and sum(layout) <= path.stat().st_size


def _layout(path: Path) -> tuple[int, int] | None:
    """Returns the bytes before a safetensors file's tensors and those of the tensors, None without a sound header.

    The file begins with 8 bytes of length, then JSON with offsets. A Git LFS pointer fails as a cut download
    does: its first 8 bytes read as a huge length.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(path.stat().st_size - 8, LARGEST_HEADER_BYTES):
                return None
            header = json.loads(file.read(length))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except (OSError, ValueError, AttributeError, LookupError, TypeError, RecursionError):
        return None
    return (8 + length, max(ends)) if ends and all(type(end) is int for end in ends) else None
