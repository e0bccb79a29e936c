"""A model's files on this disk, hostile until checked: JSON may be torn, weights may be truncated."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from lowmem_rl.errors import ConfigError

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"
_FORMS = (SAFETENSORS, SAFETENSORS + INDEX, PICKLE, PICKLE + INDEX)
"""Whole or in shards: the first that is there is loaded (transformers/modeling_utils.py)."""
_LARGEST_CONFIG_BYTES = 1_000_000
_LARGEST_INDEX_BYTES = 20_000_000
"""Of an index: a 70B in 4 bit names some 4000 tensors in half a megabyte."""
_MOST_BYTES = 2**50
"""Of a model: more is a mistake."""
_LARGEST_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format itself."""


def read_json(path: Path) -> Any:
    """Returns the content of a JSON file. Raises `ConfigError`."""
    most = {"config.json": _LARGEST_CONFIG_BYTES}.get(path.name)
    most = _LARGEST_INDEX_BYTES if path.name.endswith(INDEX) else most
    try:
        if most is not None and path.stat().st_size > most:
            raise ConfigError(f"{path} is larger than any {path.name}.", hint="Fetch the file again.")
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read as JSON: {error}.", hint="Fetch the file again.") from error


def weights_file(directory: Path) -> Path | None:
    """Returns the file from which a directory's weights are loaded, an index if they are in shards, or None."""
    return next((directory / name for name in _FORMS if (directory / name).is_file()), None)


def tensor_bytes(directory: Path) -> int | None:
    """Returns the bytes of all tensors in a directory's weights, None if neither an index nor a header has them.

    A torn file counts as none: planning can do without, and loading refuses it by name.
    """
    file = weights_file(directory)
    if file is None or not file.name.endswith(INDEX):
        layout = _layout(file) if file else None
        return layout and layout[1]
    try:
        content = read_json(file)
    except ConfigError:
        return None
    size = _as_object(_as_object(content).get("metadata")).get("total_size")
    if isinstance(size, bool) or not isinstance(size, int | float):
        return None
    return int(size) if 0 < size <= _MOST_BYTES else None


def missing_weights(directory: Path) -> Iterator[str]:
    """Yields why a directory's weights cannot be loaded. Raises `ConfigError` for a broken index."""
    file = weights_file(directory)
    if file is None:
        yield f"it has no weights ({', '.join(_FORMS[:-1])} or {_FORMS[-1]})"
        return
    for path in shards_of(file):
        if not path.is_file():
            yield f"{path.name} is missing, which {file.name} names"
        elif not _is_whole(path):
            yield f"{path.name} is cut short or broken"


def shards_of(file: Path) -> list[Path]:
    """Returns the files that an index of weights names, of another file itself. Raises `ConfigError`."""
    if not file.name.endswith(INDEX):
        return [file]
    shards = _as_object(read_json(file)).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(shard, str) for shard in shards.values()):
        raise ConfigError(f"{file} has no weight_map.", hint="Fetch the file again.")
    return [file.with_name(name) for name in sorted(set(shards.values()))]


def _is_whole(path: Path) -> bool:
    """Returns whether a file of weights has what its format ends with. A Git LFS pointer has not."""
    if path.suffix == ".safetensors":
        layout = _layout(path)
        return layout is not None and sum(layout) <= path.stat().st_size
    with path.open("rb") as file:
        begins_as_pickle = file.read(1) == b"\x80"  # torch's format before 1.6
    return begins_as_pickle or is_zipfile(path)


def _as_object(content: Any) -> dict[str, Any]:
    return content if isinstance(content, dict) else {}


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]] | None:
    """Returns the shape of each tensor of a safetensors file by name, None if the file is not whole or has none."""
    if not path.is_file() or not _is_whole(path):
        return None
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    shapes = {name: tensor.get("shape") for name, tensor in header.items() if name != "__metadata__"}
    are_valid = all(isinstance(one, list) and all(type(size) is int for size in one) for one in shapes.values())
    return {name: tuple(one) for name, one in shapes.items()} if are_valid else None


def _layout(path: Path) -> tuple[int, int] | None:
    """Returns the bytes before a safetensors file's tensors and those of the tensors, None without a valid header.

    The file begins with 8 bytes of length, then JSON with offsets. The first 8 bytes of a Git LFS pointer read as a
    huge length.
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
