"""A run's own model: its base model with the adapter that it has learned."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lowmem_rl.config.compose import ConfigLayer
from lowmem_rl.config.places import MODEL, check_places
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.config.saved_config import saved_config
from lowmem_rl.engine.adapter import WEIGHTS, check_base, load_adapter, with_saved_layers
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy
from lowmem_rl.engine.row_length import SequenceUse
from lowmem_rl.engine.threads import recorded_threads
from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.storage.run_reader import RunReader


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """What a run has learned: its last adapter, or that of its best evaluation."""

    run: RunDir
    adapter: Path

    @property
    def is_best(self) -> bool:
        """True for the adapter of the best evaluation."""
        return self.adapter == self.run.best


def config_of(run: RunDir, places: Sequence[ConfigLayer] = ()) -> RunConfig:
    """Returns the resolved configuration of a run; `places` name files again that have moved.

    Raises `RunDirError` if the directory is not a run's, `ConfigError` or `TaskError` if a file is missing.
    """
    config = saved_config(RunReader(run, hint="Take the file that `train` has written."), places)
    check_places({MODEL: config.model.name})
    return config


def find_trained_adapter(path: Path) -> TrainedAdapter:
    """Returns what a run has learned; `path` is the run's directory, or `best` or `adapter` in it."""
    whole = path.resolve()
    names_one = whole.name in ("best", "adapter") and not (path / "config.json").exists()
    if names_one and (whole.parent / "config.json").is_file():
        return TrainedAdapter(RunDir(whole.parent), whole)
    return TrainedAdapter(RunDir(path), RunDir(path).adapter)


def check_adapter(learned: TrainedAdapter, config: RunConfig) -> None:
    """Raises `RunDirError` if the run has saved no adapter, or whole weights that belong to another model."""
    if not (learned.adapter / WEIGHTS).is_file():
        raise RunDirError(
            f"{learned.run.path} has no adapter in {learned.adapter.name}: the trained adapter is not saved there.",
            hint="`train` saves it when it ends or is stopped by Ctrl-C; use a run that got that far.",
        )
    check_base(learned.adapter, config.model)


def load_trained(
    learned: TrainedAdapter, config: RunConfig, device: Device, uses: Sequence[SequenceUse] = ()
) -> Policy:
    """Loads a run's model as training had it, on as many threads, with the learned adapter, for the rows of `uses`.

    Raises `RunDirError` if the adapter is damaged or another model's, and what `load_policy` raises.
    """
    saved = with_saved_layers(config, learned.adapter)
    policy = load_policy(saved, device, uses, recorded_threads(learned.run))
    load_adapter(policy.model, learned.adapter)
    return policy
