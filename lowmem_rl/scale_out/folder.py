"""The files of a run in its folder for another trainer. What varies is data: programs are the same for every run."""

import json
import shutil
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.adapter import CONFIG, WEIGHTS
from lowmem_rl.errors import ConfigError, SetupError
from lowmem_rl.models.hub import cached_snapshot
from lowmem_rl.models.lookup import model_path
from lowmem_rl.scale_out.hydra_text import overrides
from lowmem_rl.scale_out.place import why_not_found
from lowmem_rl.scale_out.prepare import PreparedScaleOut
from lowmem_rl.scale_out.rows import write_rows
from lowmem_rl.scale_out.trl_files import accelerate_settings, trl_settings
from lowmem_rl.scale_out.verl_files import verl_overrides


def write_files(folder: Path, ready: PreparedScaleOut) -> None:
    """Writes data, settings, programs and the adapter. Raises `TaskError`, `SetupError`, `OSError`."""
    (folder / "data").mkdir()
    write_rows(folder / "data" / "train.parquet", ready.train)
    write_rows(folder / "data" / "test.parquet", ready.test)
    if ready.adapter:
        (folder / "adapter").mkdir()
        for name in (CONFIG, WEIGHTS):
            shutil.copyfile(ready.adapter / name, folder / "adapter" / name)
    writers: dict[str, Callable[[Path, PreparedScaleOut], None]] = {"trl": _write_trl, "verl": _write_verl}
    writers[ready.cluster.to](folder, ready)


def _write_trl(folder: Path, ready: PreparedScaleOut) -> None:
    adapter = "adapter" if ready.adapter else None
    settings = trl_settings(
        ready.config,
        ready.device,
        ready.cluster,
        ready.shape.num_layers,
        prefill=ready.template.prefill,
        adapter=adapter,
    )
    write_json(folder / "trl.json", settings)
    _write_yaml(folder / "accelerate.yaml", accelerate_settings(ready.device, ready.cluster.cards))
    _copy("train.py", folder / "train.py")
    _copy("trl_run.sh", folder / "run.sh")


def _write_verl(folder: Path, ready: PreparedScaleOut) -> None:
    config = ready.config
    found = verl_overrides(config, ready.cluster, _path_of_model(config), ready.shape.num_layers, len(ready.train))
    _write_yaml(folder / "overrides.yaml", overrides(found))
    rewards = {name: weight for name, weight in config.rewards.items() if weight != 0}
    write_json(folder / "reward.json", {"rewards": rewards, "task": config.task.model_dump(mode="json")})
    _copy("reward.py", folder / "reward.py")
    _copy("verl_run.sh", folder / "run.sh")


def _path_of_model(config: RunConfig) -> str:
    """Returns what verl loads. It knows no revisions: of one it is the folder.

    Raises `SetupError` if that is not on this disk, `ConfigError` for a path that verl reads as something else.
    """
    name, revision = config.model.name, config.model.revision
    found = cached_snapshot(name, revision) if revision else model_path(name)
    if found is None:
        what = f"verl loads no revision of a model, and {name} at {revision} is not on this disk."
        raise SetupError(what, hint=f"Fetch it with: hf download {name} --revision {revision}")
    if reason := why_not_found(str(found), "verl"):
        raise ConfigError(f"model.name = {name!r} cannot be used: {reason}.", hint="Rename the folder.")
    return str(found)


def _copy(name: str, path: Path) -> None:
    """Writes a file that is the same for every run."""
    path.write_bytes((files("lowmem_rl.scale_out") / "files" / name).read_bytes())
    path.chmod(0o755 if path.suffix == ".sh" else 0o644)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as JSON."""
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _write_yaml(path: Path, value: Any) -> None:
    import yaml

    path.write_text(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000), "utf-8")
