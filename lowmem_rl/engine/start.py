"""What `train --from` starts from: an adapter, what a run has learned, or a merged model; found without torch.

An adapter decides what learns: base model, shape and layers of the run are its own. A merged folder is an ordinary
model: it becomes the base, under a fresh adapter, and is its own KL reference.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lowmem_rl.config.compose import ConfigLayer, ResolvedConfig, flatten
from lowmem_rl.config.layer_choice import layers_of
from lowmem_rl.config.places import MODEL, START
from lowmem_rl.config.presets import load_presets
from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.engine.adapter import CONFIG, WEIGHTS, SavedAdapter, read_adapter
from lowmem_rl.engine.lineage import WARMUP
from lowmem_rl.engine.peft_model import layer_of
from lowmem_rl.errors import ConfigError, LowMemError, RunDirError
from lowmem_rl.models.fingerprint import fingerprint
from lowmem_rl.models.lookup import GGUF_FIX, TINY, TINY_DIRECTORY, local_directory
from lowmem_rl.models.shape import ModelShape
from lowmem_rl.models.weight_files import tensor_shapes
from lowmem_rl.storage.run_dir import Row, RunDir, read_json
from lowmem_rl.storage.run_reader import RunReader, part

ORIGIN = "--from"
_OF_THE_RUN = ("model.revision", "model.bits", "model.checkpoint")
"""How a run loaded its base: under other frozen weights its adapter computes something else."""
_UPLOADS = ("-unsloth-bnb-4bit", "-bnb-4bit")
"""Endings of Unsloth's 4-bit copies of a model; PEFT records them as the base."""
_WHOLE_TRAINABLE = {"method", "layers", "modules", "extra", "dtype"}


@dataclass(frozen=True, slots=True)
class Start:
    """What a run starts from, and the settings that follow from it."""

    layer: ConfigLayer
    adapter: SavedAdapter | None = None
    """None for a merged model."""
    record: Row = field(default_factory=dict)
    """What the run or the warm-up that made the adapter has recorded of itself: `preset`, `config`, `weights`."""

    @property
    def preset(self) -> str | None:
        """The preset of that run, if it is one of ours: what is not named again is as it was there."""
        named = self.record.get("preset")
        return named if named in {preset.name for preset in load_presets()} else None


def find_start(name: str) -> Start:
    """Returns what `name` is: a run's directory, one of its adapters, another adapter, or a folder with a merged model.

    Raises `RunDirError` for a folder that is none of these, or whose adapter is damaged.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        is_gguf = path.suffix.lower() == ".gguf"
        raise RunDirError(f"{path} is no folder.", hint=GGUF_FIX if is_gguf else _TAKES)
    if (path / CONFIG).is_file():
        return _of_adapter(path.resolve())
    if _is_run(path):
        return _of_adapter(_adapter_of(RunDir(path.resolve())))
    if (path / "config.json").is_file():
        return Start(ConfigLayer(ORIGIN, {MODEL: name}))
    hint = GGUF_FIX if any(path.glob("*.gguf")) else _TAKES
    raise RunDirError(f"{path} is no run, no adapter and no model: it has neither config.json nor {CONFIG}.", hint=hint)


_TAKES = f"{ORIGIN} takes a run directory, an adapter's folder (RUN/best), or a merged model's folder."


def _is_run(path: Path) -> bool:
    return RunReader(RunDir(path)).is_run


def _adapter_of(run: RunDir) -> Path:
    if (run.adapter / WEIGHTS).is_file():
        return run.adapter
    others = [path for path in (run.best, *sorted(run.checkpoints.glob("step-*"))) if (path / WEIGHTS).is_file()]
    hint = f"It has {', '.join(map(str, others))}: name one of them." if others else "Train it to its end first."
    raise RunDirError(f"Run {run.path} has no adapter of its end to start from.", hint=hint)


def _of_adapter(path: Path) -> Start:
    saved = read_adapter(path)
    record = _record_of(path)
    values: dict[str, Any] = {START: str(path), MODEL: _base_name(saved.base)}
    values |= flatten({"trainable": saved.trainable.model_dump(include=_WHOLE_TRAINABLE)})
    if saved.trainable.method == "lora":
        values |= flatten({"adapter": saved.config.model_dump(exclude={"dropout"})})
    if config := flatten(part(record, "config")):
        values |= {key: config[key] for key in (MODEL, *_OF_THE_RUN) if key in config}
    elif saved.base.lower().endswith(_UPLOADS):
        values["model.bits"] = 4
    return Start(ConfigLayer(ORIGIN, values), saved, record)


def _record_of(path: Path) -> Row:
    run = next((RunReader(RunDir(folder)) for folder in path.parents[:2] if _is_run(folder)), None)
    if run is not None:
        return {"preset": run.preset, "config": run.config, "weights": run.machine.get("weights")}
    found = read_json(path / WARMUP) if (path / WARMUP).is_file() else {}
    return found if isinstance(found, dict) else {}


def _base_name(base: str) -> str:
    """Returns a base's name; the embedded model was saved under the path of the installation that trained."""
    is_tiny = Path(base).name == TINY_DIRECTORY.name and (base == str(TINY_DIRECTORY) or not Path(base).is_dir())
    return TINY if is_tiny else base


def check_agreement(start: Start, composed: ResolvedConfig, preset_model: str | None = None) -> None:
    """Raises `ConfigError` if a setting that the user named contradicts what the run starts from.

    `preset_model` is the model of the preset that was named, if one was.
    """
    config, origins = flatten(composed.config.model_dump()), composed.origins
    if start.adapter is None:
        if origins[MODEL] != ORIGIN:
            what = f"{ORIGIN} names the model {start.layer.values[MODEL]}, and {origins[MODEL]} another."
            raise ConfigError(what, hint="Leave one of them out: a merged folder is a model like any other.")
        return
    named = preset_model if preset_model and origins[MODEL] == ORIGIN else composed.config.model.name
    if not _is_base(named, start):
        what = f"{named} was named, and {start.layer.values.get(START, 'the start')} "
        raise ConfigError(
            f"{what}belongs to {start.layer.values[MODEL]}: an adapter computes with its own base only.",
            hint="Leave the model out, or name a preset of that model; a moved base is --model FOLDER.",
        )
    for key, value in start.layer.values.items():
        if key not in (MODEL, START) and not _equal(config[key], value):
            raise ConfigError(
                f"{key} = {config[key]!r} (from {origins[key]}), and what the run starts from has {value!r}.",
                hint="Leave it out: an adapter keeps its shape and the weights under it. A merged folder "
                "(export --to merged) takes a fresh adapter of any shape.",
            )


def _equal(one: Any, other: Any) -> bool:
    """Returns whether two values of a setting are the same; names of modules have no order."""
    listed = isinstance(one, list | tuple) and isinstance(other, list | tuple)
    return sorted(map(str, one)) == sorted(map(str, other)) if listed else bool(one == other)


def _is_base(named: str, start: Start) -> bool:
    """Returns whether `named` is the start's base: the same name or folder, or a copy with the same weights."""
    base = str(start.layer.values[MODEL])
    has_moved = local_directory(base) is None and Path(named).name.lower() == _plain(base)
    if has_moved or _plain(named) == _plain(base):
        return True
    here = fingerprint(named)
    return here is not None and here in (start.record.get("weights"), _fingerprint(base))


def _fingerprint(name: str) -> str | None:
    try:
        return fingerprint(name)
    except LowMemError:
        return None


def _plain(name: str) -> str:
    """Returns the name without the organisation and the endings of copies that are quantised, folders resolved."""
    if folder := local_directory(name):
        return str(folder.resolve())
    last = name.rstrip("/").rpartition("/")[2].lower()
    return next((last.removesuffix(ending) for ending in _UPLOADS if last.endswith(ending)), last)


def check_start(config: RunConfig, shape: ModelShape) -> None:
    """Checks the adapter that a run starts from against its model, from the headers alone.

    Raises `RunDirError` for tensors that are not whole or do not fit, `ConfigError` for another shape of adapter.
    """
    if config.start_from is None:
        return
    path = Path(config.start_from)
    if not path.is_dir():
        raise RunDirError(f"{path} is missing, which this run starts from.", hint=_TAKES)
    if not (path / CONFIG).is_file():
        raise RunDirError(f"{path} is no adapter: it has no {CONFIG}.", hint="Name RUN/adapter, or give RUN to --from.")
    saved, found = read_adapter(path), tensor_shapes(path / WEIGHTS)
    if found is None:
        raise RunDirError(f"{path / WEIGHTS} is cut short or broken.", hint="Bring the adapter's own file back.")
    _check_shape(config, saved)
    for name, (wanted, what) in _wanted(found, shape):
        if found[name] != wanted:
            raise RunDirError(
                f"{path / WEIGHTS}: {what} is {found[name]}, and {shape.key} takes {wanted}: it is another model's.",
                hint="Start from an adapter of this base, or name its own: --model BASE.",
            )
    layers = {layer for name in found if (layer := layer_of(name)) is not None}
    expected = set(layers_of(config.trainable.layers, shape.num_layers))
    if config.trainable.method == "lora" and config.adapter.peft_type == "lora" and layers != expected:
        what = f"{path / WEIGHTS} has weights of {len(layers)} layers, and {len(expected)} of {shape.key} are to learn."
        raise RunDirError(what, hint="Start from an adapter of this base, or name its own: --model BASE.")


def _check_shape(config: RunConfig, saved: SavedAdapter) -> None:
    pairs = {key: (getattr(config.trainable, key), getattr(saved.trainable, key)) for key in ("method", "layers")}
    if saved.trainable.method == "lora":
        names = saved.config.model_dump(exclude={"dropout"})
        pairs |= {key: (getattr(config.adapter, key), getattr(saved.config, key)) for key in names}
    for key, (asked, has) in pairs.items():
        if not _equal(asked, has):
            section = "trainable" if key in ("method", "layers") else "adapter"
            raise ConfigError(
                f"{section}.{key} is {asked!r}, and the adapter in {saved.path} has {has!r}.",
                hint=f"Set {START} by `train {ORIGIN} {saved.path}`, which takes the adapter's own shape.",
            )


def _wanted(
    found: Mapping[str, tuple[int, ...]], shape: ModelShape
) -> Iterator[tuple[str, tuple[tuple[int, ...], str]]]:
    """Yields the shape that each matrix next to a linear layer must have, and what it is."""
    for name, sizes in found.items():
        module, _, matrix = name.removesuffix(".weight").rpartition(".")
        linear = shape.linear_sizes.get(module.rpartition(".")[2])
        if linear and matrix == "lora_A":
            yield name, ((sizes[0], linear[0]), f"the inner matrix of {module}")
        elif linear and matrix == "lora_B":
            yield name, ((linear[1], sizes[-1]), f"the outer matrix of {module}")
        elif (whole := shape.linear_sizes.get(matrix)) and name.endswith(".weight"):
            yield name, ((whole[1], whole[0]), f"the weight of {matrix}")
