"""What is evaluated: a run or one of its adapters, an adapter alone, or a model; found without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lowmem_rl.config.compose import ConfigLayer, SettingEntry, defaults, flatten, merge, read_assignments, validate
from lowmem_rl.config.places import TASK
from lowmem_rl.config.presets import load_preset
from lowmem_rl.config.run_config import RunConfig, TaskConfig
from lowmem_rl.config.saved_config import at_places, saved_layer
from lowmem_rl.engine.adapter import CONFIG, SavedAdapter, read_adapter
from lowmem_rl.engine.policy import TRAINABLE
from lowmem_rl.errors import ConfigError, LowMemError, RunDirError
from lowmem_rl.models.hub import cached_snapshot
from lowmem_rl.models.lookup import CATALOGUE, TINY, TINY_DIRECTORY, load_shape
from lowmem_rl.storage.run_dir import RunDir
from lowmem_rl.storage.run_reader import RunReader

_SETTINGS = "--set"


@dataclass(frozen=True, slots=True)
class EvalTarget:
    """A model to be evaluated: its configuration before "auto" is resolved, and the adapter on it."""

    name: str
    """As the user named it."""
    layers: tuple[ConfigLayer, ...]
    """The layers of its configuration; the settings of the command line are last."""
    adapter: SavedAdapter | None = None
    run_dir: RunDir | None = None
    """The run it belongs to."""
    step: int = 0

    @property
    def config(self) -> RunConfig:
        """Its configuration. Raises `ConfigError`."""
        return self._merged()[0]

    @property
    def task_origins(self) -> dict[str, str]:
        """Where the name of each task in its configuration comes from: it may refer to code."""
        config, merged = self._merged()
        further = dict.fromkeys(config.eval.tasks, merged["eval.tasks"].origin)
        return {config.task.name: merged["task.name"].origin} | further

    def asked(self, task: str) -> TaskConfig:
        """Returns the settings for a task; one that is not its own has its own data and levels."""
        return self._merged(ConfigLayer("--task", {"task.name": task}))[0].task

    def _merged(self, *above: ConfigLayer) -> tuple[RunConfig, dict[str, SettingEntry]]:
        merged = merge([*self.layers, *above])
        return validate(merged, self.layers[-1].problems), merged


def find_target(name: str, preset: str, settings: Sequence[str], tasks: Sequence[str] = ()) -> EvalTarget:
    """Returns what `name` is: a run's directory, one of its adapters, an adapter, or a model under `preset`.

    `tasks` are those to evaluate: one of a run's own may have moved. Raises `RunDirError` for a run or an adapter
    that cannot be used, `ConfigError` or `SetupError` for a model.
    """
    path = Path(name).expanduser()
    given = read_assignments(_SETTINGS, settings)
    if path.is_dir() and name != TINY:
        if _is_run(path):
            return _of_run(name, RunDir(path), _adapter_of(RunDir(path)), given, tasks)
        if (path / CONFIG).is_file():
            run = next((folder for folder in path.resolve().parents[:2] if _is_run(folder)), None)
            return _of_run(name, RunDir(run), path, given, tasks) if run else _of_adapter(name, path, preset, given)
        if (path / TRAINABLE).is_file():
            what = f"{path} holds whole weights alone, without the model that they belong to."
            raise ConfigError(what, hint="Name the run that has left them.")
        if not (path / "config.json").is_file():
            raise ConfigError(
                f"{path} is not a run, an adapter or a model: it has neither config.json nor {CONFIG}.",
                hint="Name a run directory, an adapter's folder, or a folder that save_pretrained has written.",
            )
    elif path.parent.is_dir() and path.parent != Path() and not (name in CATALOGUE or cached_snapshot(name)):
        raise RunDirError(f"There is no {path}.", hint="Name a run directory, an adapter, or a model's folder or name.")
    return EvalTarget(name, (*_over_preset(preset, {"model.name": name}), given))


def _is_run(path: Path) -> bool:
    return RunReader(RunDir(path)).is_run


def _adapter_of(run: RunDir) -> Path:
    if run.adapter.is_dir():
        return run.adapter
    others = [path for path in (run.best, *sorted(run.checkpoints.glob("*"))) if path.is_dir()]
    hint = f"It has {', '.join(map(str, others))}: name one of them." if others else "Train it again, to its end."
    raise RunDirError(f"Run {run.path} has no adapter.", hint=hint)


def _of_run(name: str, run: RunDir, adapter: Path, given: ConfigLayer, tasks: Sequence[str]) -> EvalTarget:
    saved, reader = read_adapter(adapter), RunReader(run)
    kind, _, number = adapter.resolve().name.partition("-")
    if kind == "step" and number.isdigit():
        step = int(number)
    else:
        found = reader.evaluations.best if kind == "best" else reader.evaluations.after
        step = found["step"] if isinstance(found.get("step"), int) else 0
    places = [given, *(ConfigLayer("--task", {TASK: task}) for task in tasks)]
    layers = (defaults(), at_places(saved_layer(reader), places), _shape(saved), given)
    return EvalTarget(name, layers, saved, run, step)


def _of_adapter(name: str, path: Path, preset: str, given: ConfigLayer) -> EvalTarget:
    saved = read_adapter(path)
    # The embedded model was saved under the path of the installation that trained.
    is_tiny = Path(saved.base).name == TINY_DIRECTORY.name and not Path(saved.base).is_dir()
    base = TINY if is_tiny else saved.base
    target = EvalTarget(name, (*_over_preset(preset, {"model.name": base}), _shape(saved), given), saved)
    model = target.config.model
    try:
        load_shape(model.name, model.revision)
    except LowMemError as error:
        raise RunDirError(
            f"Adapter {path} was trained on {model.name}, which is not here.",
            hint=f"Give its place: --set model.name=FOLDER. {error.hint}",
        ) from error
    return target


def _shape(saved: SavedAdapter) -> ConfigLayer:
    # Not when they learned; nor are they selected again.
    fields = {"method", "layers", "modules", "extra", "dtype", "select", "select_top", "select_rounds"}
    values = {f"trainable.{key}": value for key, value in saved.trainable.model_dump(include=fields).items()}
    if saved.trainable.method == "lora":
        values |= {f"adapter.{key}": value for key, value in saved.config.model_dump(exclude={"dropout"}).items()}
    return ConfigLayer(str(saved.path), values)


def _over_preset(preset: str, values: dict[str, object]) -> tuple[ConfigLayer, ...]:
    below = ConfigLayer(f"preset {preset}", flatten(load_preset(preset).values))
    return defaults(), below, ConfigLayer("the model", values)
