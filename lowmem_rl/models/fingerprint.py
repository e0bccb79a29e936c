"""A mark of a model's weights that costs milliseconds: a run whose model has moved must find the same weights."""

from hashlib import blake2b
from pathlib import Path

from lowmem_rl.models.hub import cached_snapshot
from lowmem_rl.models.lookup import local_directory
from lowmem_rl.models.weight_files import missing_weights, shards_of, weights_file

_PIECE_BYTES = 2**18


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
