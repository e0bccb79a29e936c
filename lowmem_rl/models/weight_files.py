"""A model's files on this disk, hostile until checked: JSON may be torn, weights may be truncated."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lowmem_rl.errors import ConfigError

INDEX = "model.safetensors.index.json"
_WHOLE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_LARGEST_CONFIG_BYTES = 1_000_000
_LARGEST_INDEX_BYTES = 20_000_000
"""Of an index: a 70B in 4 bit names some 4000 tensors in half a megabyte."""
_MOST_BYTES = 2**50
"""Of a model: more is a mistake."""
_LARGEST_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format itself."""


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file. Raises `ConfigError`."""
    most = {"config.json": _LARGEST_CONFIG_BYTES, INDEX: _LARGEST_INDEX_BYTES}.get(path.name)
    try:
        if most is not None and path.stat().st_size > most:
            raise ConfigError(f"{path} is larger than any {path.name}.", hint="Fetch the file again.")
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}.", hint="Fetch the file again.") from error


def tensor_bytes(directory: Path) -> int | None:
    """Returns the bytes of all tensors in a directory's safetensors files, None if neither index nor header has them.

    A torn file counts as none: planning can do without, and loading refuses it by name.
    """
    if not (directory / INDEX).is_file():
        whole = directory / _WHOLE_WEIGHTS[0]
        layout = _layout(whole) if whole.is_file() else None
        return layout and layout[1]
    try:
        content = read_json(directory / INDEX)
    except ConfigError:
        return None
    size = _as_object(_as_object(content).get("metadata")).get("total_size")
    if isinstance(size, bool) or not isinstance(size, int | float):
        return None
    return int(size) if 0 < size <= _MOST_BYTES else None


def missing_weights(directory: Path) -> Iterator[str]:
    """Yields why a directory's weights cannot be loaded. Raises `ConfigError` for a broken index."""
    if (directory / INDEX).is_file():
        shards = _as_object(read_json(directory / INDEX)).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
            raise ConfigError(f"{directory / INDEX} has no weight_map.", hint="Fetch the file again.")
        files = sorted(set(shards.values()))
    else:
        files = [name for name in _WHOLE_WEIGHTS if (directory / name).is_file()][:1]
    if not files:
        yield f"it has no weights ({' or '.join([_WHOLE_WEIGHTS[0], INDEX])})"
    for name in files:
        if not (directory / name).is_file():
            yield f"{name} is missing, which {INDEX} names"
        elif name.endswith(".safetensors"):
            layout = _layout(directory / name)
            if layout is None or sum(layout) > (directory / name).stat().st_size:
                yield f"{name} is cut short or broken"


def _as_object(content: Any) -> dict[str, Any]:
    return content if isinstance(content, dict) else {}


def _layout(path: Path) -> tuple[int, int] | None:
    """Returns the bytes before a safetensors file's tensors and those of the tensors, None without a valid header.

    The file begins with 8 bytes of length, then JSON with offsets. A Git LFS pointer fails like a truncated download:
    its first 8 bytes read as a huge length.
    """
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if length > min(path.stat().st_size - 8, _LARGEST_HEADER_BYTES):
                return None
            header = json.loads(file.read(length))
        ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
    except (OSError, ValueError, AttributeError, LookupError, TypeError, RecursionError):
        return None
    return (8 + length, max(ends)) if ends and all(type(end) is int for end in ends) else None
