"""A mark of a model's weights that costs milliseconds: a run whose model has moved must find the same weights."""

from hashlib import blake2b
from pathlib import Path

from lowmem_rl.models.hub import cached_snapshot
from lowmem_rl.models.lookup import local_directory

_PIECE_BYTES = 2**18


def fingerprint(name: str, revision: str | None = None) -> str | None:
    """Returns a digest of size, beginning and middle of each weight file, None if there is none on this disk.

    Two trainings of one architecture differ in the middle of a file, two formats at its beginning.
    """
    directory = local_directory(name) or cached_snapshot(name, revision)
    files = [*directory.glob("*.safetensors"), *directory.glob("pytorch_model*.bin")] if directory else []
    if not files:
        return None
    digest = blake2b(digest_size=16)
    for file in sorted(files):
        digest.update(_pieces(file))
    return digest.hexdigest()


def _pieces(file: Path) -> bytes:
    size = file.stat().st_size
    with file.open("rb") as stream:
        beginning = stream.read(_PIECE_BYTES)
        stream.seek(size // 2)
        return f"{file.name} {size}".encode() + beginning + stream.read(_PIECE_BYTES)
