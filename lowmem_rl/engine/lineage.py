"""The stages that a model went through before a run, oldest first, as config.json, card and report show them."""

from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from lowmem_rl.config.places import without_folder
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.adapter import CONFIG, WEIGHTS
from lowmem_rl.errors import RunDirError
from lowmem_rl.models.lookup import local_directory
from lowmem_rl.storage.run_dir import Row, RunDir, read_json
from lowmem_rl.storage.run_reader import RunReader, part, rows_in

WARMUP = "warmup.json"
"""In the folder of a warm-up's adapter: what it was taught, for how long."""
PROOF = "proof.json"
"""In the folder of an export: how it was proven, and the stages before it."""


def stages_before(config: RunConfig) -> list[Row]:
    """Returns the stages before a run, empty if it starts at a model of others. Raises `RunDirError`."""
    if config.start_from is not None:
        return list(_stages_of_adapter(Path(config.start_from)))
    folder = local_directory(config.model.name)
    found = _table(folder / PROOF) if folder else {}
    return rows_in(found, "stages")


def stages_of_run(run: RunDir, adapter: Path | None = None) -> list[Row]:
    """Returns the stages before a run, and the run itself with its `adapter` as the last one."""
    reader = RunReader(run)
    config = reader.config
    after = reader.evaluations.after.get("step")
    if adapter is not None and adapter.name == "best":
        after = reader.evaluations.best.get("step", after)
    if adapter is not None and adapter.name.startswith("step-"):
        after = int(adapter.name.removeprefix("step-"))
    own = {
        "kind": "grpo",
        "path": str(run.path.resolve()),
        "model": part(config, "model").get("name"),
        "task": part(config, "task").get("name"),
        "rewards": part(config, "rewards"),
        "steps": after,
    }
    return [*rows_in(reader.config_file, "lineage"), own]


def without_folders(stage: Row) -> Row:
    """Returns a stage for others to read: names of files without the folders of this machine."""
    rewards = {without_folder(name): weight for name, weight in part(stage, "rewards").items()}
    plain = {key: _plain(value) if isinstance(value, str) else value for key, value in stage.items()}
    return plain | ({"rewards": rewards} if rewards else {})


def _plain(value: str) -> str:
    name = without_folder(value)
    return Path(name).name if Path(name).is_absolute() else name


def adapter_digest(path: Path) -> str:
    """Returns a digest of an adapter's weights and settings, whole."""
    digest = blake2b(digest_size=16)
    for name in (CONFIG, WEIGHTS):
        with (path / name).open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    return digest.hexdigest()


def _stages_of_adapter(path: Path) -> Iterator[Row]:
    run = next((RunDir(folder) for folder in path.parents[:2] if RunReader(RunDir(folder)).is_run), None)
    if run is not None:
        *before, last = stages_of_run(run, path)
        yield from before
    elif warmup := _table(path / WARMUP):
        yield from rows_in(warmup, "lineage")
        last = {key: warmup.get(key) for key in ("kind", "model", "task", "steps")} | {"path": str(path)}
    else:
        last = {"kind": "adapter", "path": str(path), "model": _table(path / CONFIG).get("base_model_name_or_path")}
    yield last | {"weights": adapter_digest(path)}


def _table(path: Path) -> Row:
    """Returns the object in a file, empty if there is none: lineage is given as far as it is known."""
    try:
        found: Any = read_json(path) if path.is_file() else {}
    except RunDirError:
        return {}
    return found if isinstance(found, dict) else {}
