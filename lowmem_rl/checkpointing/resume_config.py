"""The configuration that a run continues with: its own, with the few changes that keep it the same run."""

from collections.abc import Mapping, Sequence
from typing import Any

from lowmem_rl.config.compose import ConfigLayer, ResolvedConfig, SettingEntry, flatten, merge, validate
from lowmem_rl.config.problems import ConfigProblem, as_one_error
from lowmem_rl.config.saved_config import at_places, saved_resolved
from lowmem_rl.errors import ConfigError, RunDirError
from lowmem_rl.storage.run_dir import RunDir, write_json
from lowmem_rl.storage.run_reader import RunReader, part

RESUME_HINT = "Restore it, or start the run again in another directory."
_MAY_CHANGE = ("logging.", "health.", "eval.every", "eval.batch")
"""Keys, or beginnings of keys, that may change on resume: they change no weight and no result."""
_STEPS = "grpo.steps"
"""It may grow: a run of more steps begins with the same ones."""


def read_composed(run_dir: RunDir) -> ResolvedConfig:
    """Returns the configuration of a run from its directory. Raises `RunDirError`.

    Every value's origin is the file: the command that resumes the run has not named it.
    """
    if not run_dir.config.exists():
        raise RunDirError(
            f"There is no run in {run_dir.path}: it has no config.json.", hint="Leave --resume out to start one."
        )
    return saved_resolved(RunReader(run_dir, RESUME_HINT))


def with_changes(saved: ResolvedConfig, layers: Sequence[ConfigLayer]) -> ResolvedConfig:
    """Returns the configuration that a run resumes with. Raises `ConfigError` for a change to another run.

    A file that is named again may have another place (`places.after_move`).
    """
    before = at_places(ConfigLayer(saved.origins["seed"], flatten(saved.config.model_dump())), layers)
    old, merged = dict(before.values), merge([before, *layers])
    merged = {key: merged[key] for key in (*old, *merged) if key in merged}  # rewards are added up in this order
    # What the planner chose once stays chosen.
    chosen = {key: entry._replace(value=old[key]) for key, entry in merged.items() if entry.value == "auto"}
    config = validate(merged | chosen, [problem for layer in layers for problem in layer.problems])
    new = flatten(config.model_dump())
    changed = [key for key in old | new if old.get(key) != new.get(key) and not _grows(key, old, new)]
    refused = [_refusal(key, old, merged) for key in changed if not key.startswith(_MAY_CHANGE)]
    if refused:
        fix = f"Leave it out, or start another run. These may change: {', '.join(_MAY_CHANGE)}; {_STEPS} may grow"
        raise ConfigError(str(as_one_error(refused)), hint=fix)
    return ResolvedConfig(config, {key: merged[key].origin for key in new}, saved.preset, saved.card)


def _grows(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return key == _STEPS and new[key] > old[key]


def _refusal(key: str, old: Mapping[str, object], merged: Mapping[str, SettingEntry]) -> ConfigProblem:
    given = f"{merged[key].value!r} was given by {merged[key].origin}" if key in merged else "none was given"
    return ConfigProblem(f"{key} is {old.get(key)!r} in this run, and {given}", "This setting cannot change on resume.")


def save_config_changes(run_dir: RunDir, composed: ResolvedConfig) -> None:
    """Writes the settings that have changed into config.json, with their origins."""
    found, now = RunReader(run_dir, RESUME_HINT).config_file, composed.config.model_dump(mode="json")
    if found["config"] == now:
        return
    kept = {key: origin for key, origin in part(found, "origins").items() if key in composed.origins}
    path = str(run_dir.config)
    named = {key: origin for key, origin in composed.origins.items() if origin != path or key not in kept}
    write_json(run_dir.config, {**found, "config": now, "origins": kept | named})
