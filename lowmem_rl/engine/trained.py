"""A run's own model: what it was trained from, with the adapter that it has learnt."""

from pathlib import Path

from pydantic import ValidationError

from lowmem_rl.config import RunConfig
from lowmem_rl.engine.adapter import WEIGHTS, load_adapter
from lowmem_rl.engine.device import Device
from lowmem_rl.engine.policy import Policy, load_policy
from lowmem_rl.errors import RunDirError
from lowmem_rl.runs import RunDir, read_json


def config_of(run: RunDir) -> RunConfig:
    """Returns the configuration that a run resolved to. Raises `RunDirError` for a directory that is no run."""
    if not run.config.is_file():
        raise RunDirError(
            f"{run.path} is no run directory: it has no config.json.", hint="`train` prints where a run is."
        )
    content = read_json(run.config)
    try:
        return RunConfig.model_validate(content["config"])
    except (ValidationError, LookupError, TypeError) as error:
        raise RunDirError(
            f"{run.config} is no run's configuration.", hint="Take the file that `train` has written."
        ) from error


def check_adapter(run: RunDir) -> Path:
    """Returns where a run's adapter lies. Raises `RunDirError` where it has none."""
    if not (run.adapter / WEIGHTS).is_file():
        raise RunDirError(
            f"{run.path} has no adapter: nothing that was learnt is saved there.",
            hint="`train` saves it when it ends or is stopped by Ctrl-C; take a run that got so far.",
        )
    return run.adapter


def load_trained(run: RunDir, config: RunConfig, device: Device) -> Policy:
    """Loads a run's model as training had it, its adapter filled with what was learnt.

    Raises `RunDirError` for an adapter that is damaged or another model's, and what `load_policy` raises.
    """
    adapter = check_adapter(run)
    policy = load_policy(config, device)
    load_adapter(policy.model, adapter)
    return policy
