"""Marks of a model that cost milliseconds: a run whose model has moved must find the same one."""

import json
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

from lowmem_rl.models.hub import cached_snapshot
from lowmem_rl.models.lookup import local_directory
from lowmem_rl.models.weight_files import missing_weights, read_json, shards_of, weights_file

_PIECE_BYTES = 2**18
_OF_A_COPY = ("_name_or_path", "transformers_version", "use_cache")
"""Keys of config.json that are different in a copy of the same model, saved again."""
_OF_A_CALL = ("padding", "truncation", "version")
"""Likewise of tokenizer.json."""


def fingerprint(name: str, revision: str | None = None) -> str | None:
    """Returns a digest of size, beginning and middle of each file from which a model's weights are loaded.

    None if they are not whole on this disk, as before a download. Two trainings of one architecture differ in the
    middle of a file, two formats at its beginning.
    """
    directory = local_directory(name) or cached_snapshot(name, revision)
    file = weights_file(directory) if directory else None
    if directory is None or file is None or any(missing_weights(directory)):
        return None
    digest = blake2b(digest_size=16)
    for shard in shards_of(file):
        digest.update(_pieces(shard))
    return digest.hexdigest()


def _pieces(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as stream:
        beginning = stream.read(_PIECE_BYTES)
        stream.seek(size // 2)
        return f"{file.name} {size}".encode() + beginning + stream.read(_PIECE_BYTES)


def base_digests(name: str, revision: str | None = None) -> dict[str, str]:
    """Returns a digest of a model's `config`, of its `tokenizer` and of its `weights`: of what is on this disk.

    Whole weights that learned belong to one base; its copy in another folder, or saved again, has the same digests.
    Raises `ConfigError` for a damaged file.
    """
    directory = local_directory(name) or cached_snapshot(name, revision)
    if directory is None:
        return {}
    files = ("tokenizer.json",), ("tokenizer.model",), ("vocab.json", "merges.txt")
    tokenizer = next((there for names in files if (there := _present(directory, names))), [])
    found = {
        "config": _digest(_present(directory, ("config.json",)), _OF_A_COPY),
        "tokenizer": _digest(tokenizer, _OF_A_CALL),
        "weights": fingerprint(name, revision),
    }
    return {part: digest for part, digest in found.items() if digest}


def _present(directory: Path, names: Iterable[str]) -> list[Path]:
    return [directory / name for name in names if (directory / name).is_file()]


def _digest(files: Iterable[Path], without: Iterable[str]) -> str | None:
    """Returns a digest of the content of files, in JSON whatever its spaces and order; None of no files."""
    contents = [_content(file, without) for file in files]
    return blake2b(b"".join(contents), digest_size=16).hexdigest() if contents else None


def _content(file: Path, without: Iterable[str]) -> bytes:
    if file.suffix != ".json":
        return file.read_bytes()
    found = read_json(file)
    kept = {key: value for key, value in found.items() if key not in without} if isinstance(found, dict) else found
    return json.dumps(kept, sort_keys=True).encode()
