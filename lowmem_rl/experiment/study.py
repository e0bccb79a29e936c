"""A study as its TOML file describes it: arms, tasks, seeds, what is tuned, and where it runs.

Everything that decides a comparison is in the file before anything runs: the baseline, the metric, the margin, the
seeds. Arms and tasks hold dotted keys of `RunConfig`, as `--set` would; `trial_configs` resolves and checks them.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from lowmem_rl.config.compose import flatten
from lowmem_rl.config.problems import shown, shown_key
from lowmem_rl.errors import ConfigError, near_names

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,59}")
_MOST_ARMS = 200
_MOST_SEEDS = 200
_MOST_CHOICES = 100
"""Settings that an arm's tuning tries."""
_DEFAULT_TASK = "task"
"""The one task of a study that names none: that of its preset."""

Settings = Mapping[str, object]
"""Values by dotted key of `RunConfig`."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _printable(name: str) -> str:
    if not name.isprintable():
        raise ValueError("a name holds no control characters")
    return name


def _distinct(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("a seed is in it twice")
    return seeds


Seed = Annotated[int, Field(strict=True, ge=0, lt=2**32)]
Seeds = Annotated[
    tuple[Seed, ...], BeforeValidator(_as_tuple), Field(min_length=1, max_length=_MOST_SEEDS), AfterValidator(_distinct)
]
Metric = Literal["pass_at_1", "strict_pass_at_1", "reward"]
Match = Literal["steps", "tokens", "minutes"]


class StudyTable(_Table):
    """`[study]`."""

    name: Annotated[str, Field(min_length=1, max_length=60), AfterValidator(_printable)]
    preset: str = "tiny-cpu"
    seeds: Seeds
    baseline: str
    metric: Metric = "pass_at_1"
    """What decides: held-out accuracy after training, greedy, in any or in the requested format; or the mean reward
    over all steps of the run."""
    margin: float = Field(0.02, gt=0.0, lt=1.0)
    """An arm is no worse than the baseline if it loses less than this."""
    match: Match = "steps"
    """What every arm gets equally much of. A run counts as far as the tokens or minutes of the cheapest arm go."""
    set: dict[str, Any] = {}


class SlurmTable(_Table):
    """`[run.slurm]`: what `sbatch` gets."""

    partition: str | None = None
    gpus_per_node: int = Field(1, ge=0)
    cpus_per_task: int = Field(4, ge=1)
    mem_gb: int | None = Field(None, ge=1)
    timeout_min: int = Field(600, ge=1)
    constraint: str | None = None
    account: str | None = None
    qos: str | None = None


class RunTable(_Table):
    """`[run]`."""

    on: Literal["local", "ray", "slurm"] = "local"
    jobs: int = Field(1, ge=1, le=1024)
    """Trials at once; each has a GPU of its own, or the whole CPU's threads are shared."""
    retries: int = Field(2, ge=0, le=100)
    """Times that a trial is started again after an error that another attempt may not meet."""
    slurm: SlurmTable = SlurmTable()


class _File(_Table):
    study: StudyTable
    tune: dict[str, Any] | None = None
    arms: dict[str, dict[str, Any]] = {}
    grid: dict[str, dict[str, Any]] = {}
    tasks: dict[str, dict[str, Any]] = {}
    run: RunTable = RunTable()


class _TuneTable(_Table):
    seeds: Seeds
    steps: int | None = Field(None, ge=1)


@dataclass(frozen=True, slots=True)
class Arm:
    """One method: its settings, and the settings among which its tuning chooses (none: it is not tuned)."""

    name: str
    settings: Settings
    choices: tuple[Settings, ...] = ()


@dataclass(frozen=True, slots=True)
class Tuning:
    """How each arm's setting is chosen, on seeds of its own; a run has `steps` steps, or the study's."""

    seeds: tuple[int, ...]
    steps: int | None


@dataclass(frozen=True, slots=True)
class Study:
    """A study, its names and its shape checked; whether its settings make runs is checked by `trial_configs`."""

    name: str
    preset: str
    seeds: tuple[int, ...]
    baseline: str
    metric: Metric
    margin: float
    match: Match
    common: Settings
    arms: tuple[Arm, ...]
    tasks: Mapping[str, Settings]
    tuning: Tuning | None
    run: RunTable
    text: str
    """The file, as it was read."""

    @property
    def num_comparisons(self) -> int:
        """Arms that are compared with the baseline, over all tasks: what p-values are adjusted for."""
        return (len(self.arms) - 1) * len(self.tasks)

    def arm(self, name: str) -> Arm:
        """Returns the arm of that name, which the study has."""
        return next(arm for arm in self.arms if arm.name == name)


def shipped_studies() -> dict[str, Traversable]:
    """Returns the studies that come with the package, by name."""
    packaged = files("lowmem_rl") / "_studies"  # in a wheel; a checkout has them next to the package
    folder = packaged if packaged.is_dir() else Path(__file__).parents[2] / "studies"
    return {file.name.removesuffix(".toml"): file for file in folder.iterdir() if file.name.endswith(".toml")}


def read_study(path: Path) -> Study:
    """Reads a study from a file, or the shipped one of that name.

    Raises `ConfigError` with file, key and fix for whatever is wrong with it.
    """
    try:
        if not path.is_file() and (shipped := shipped_studies().get(str(path))):
            return parse_study(shipped.read_text("utf-8"), shipped.name)
        return parse_study(path.read_bytes().decode("utf-8-sig"), shown_key(str(path)))
    except FileNotFoundError as error:
        hint = f"Write a file, or name a shipped one: {', '.join(sorted(shipped_studies()))}."
        raise ConfigError(f"There is no study {shown_key(str(path))}.", hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(
            f"Cannot read the study {shown_key(str(path))}: {reason}.", hint="It is a TOML file; see studies/."
        ) from error


def parse_study(text: str, name: str) -> Study:
    """Returns the study in a file's text. Raises `ConfigError`."""
    try:
        tables = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        is_syntax = isinstance(error, tomllib.TOMLDecodeError)
        reason = error if is_syntax else "it nests too deeply, or a number has thousands of digits"
        hint = 'A line of TOML is `key = value`; a dotted key is in quotes: "grpo.steps" = 200.'
        raise ConfigError(f"{name}: {reason}.", hint=hint) from error
    found = _checked(_File, tables, name)
    for kind in ("arms", "grid", "tasks"):
        _check_names(list(getattr(found, kind)), f"{name}: [{kind}]")
    table = found.study
    tuning, choices = _tuning(found.tune, name)
    arms = tuple(_arms(found, choices, name))
    tasks = {key: flatten(settings) for key, settings in found.tasks.items()} or {_DEFAULT_TASK: {}}
    _check_names([arm.name for arm in arms], f"{name}: [arms] and [grid]")
    _check_arms(arms, table.baseline, name)
    _check_tuning(arms, table.seeds, tuning, name)
    return Study(
        name=table.name,
        preset=table.preset,
        seeds=table.seeds,
        baseline=table.baseline,
        metric=table.metric,
        margin=table.margin,
        match=table.match,
        common=flatten(table.set),
        arms=arms,
        tasks=tasks,
        tuning=tuning,
        run=found.run,
        text=text,
    )


_Model = TypeVar("_Model", bound=BaseModel)


def _checked(kind: type[_Model], tables: object, name: str) -> _Model:
    try:
        return kind.model_validate(tables)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        first = next((one for one in found if one["type"] == "extra_forbidden"), found[0])  # a typo, not what it lacks
        key = shown_key(".".join(map(str, first["loc"])))
        what = first["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            known = kind.model_fields if len(first["loc"]) == 1 else _fields_at(kind, first["loc"])
            raise ConfigError(
                f"{name}: there is no key {key}.", hint=near_names(str(first["loc"][-1]), known)
            ) from None
        missing = first["type"] == "missing"
        given = "" if missing else f" = {shown(first['input'])}"
        hint = f"Add {key}; studies/ has examples." if missing else "studies/ has examples of every key."
        raise ConfigError(f"{name}: {key}{given}: {what}.", hint=hint) from None


def _fields_at(kind: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Returns the keys of the table that holds an unknown key."""
    table: Any = kind
    for part in place[:-1]:
        table = table.model_fields[part].annotation
    return list(table.model_fields)


def _tuning(table: dict[str, Any] | None, name: str) -> tuple[Tuning | None, tuple[Settings, ...]]:
    """Returns how to tune, and the settings that all arms without their own try."""
    if table is None:
        return None, ()
    own = {key: value for key, value in table.items() if key in _TuneTable.model_fields}
    found = _checked(_TuneTable, own, f"{name}: [tune]")
    lists = flatten({key: value for key, value in table.items() if key not in own})
    return Tuning(found.seeds, found.steps), _all_of(lists, f"{name}: [tune]")


def _all_of(lists: Settings, place: str, most: int = _MOST_CHOICES) -> tuple[Settings, ...]:
    """Returns every combination of the values in the lists, at most so many; none for no list."""
    for key, values in lists.items():
        if not isinstance(values, list) or not values:
            what = f"{place}: {shown_key(key)} = {shown(values)} is not a list of values."
            raise ConfigError(what, hint=f'Write "{shown_key(key)}" = [..., ...].')
    tables = [values for values in lists.values() if isinstance(values, list)]
    if prod(map(len, tables)) > most:
        hint = "Shorten its lists: each value is combined with each of the others."
        raise ConfigError(f"{place}: it makes {prod(map(len, tables))} settings, more than {most}.", hint=hint)
    combined = product(*tables)
    return tuple(dict(zip(lists, values, strict=True)) for values in combined) if lists else ()


def _arms(found: _File, choices: tuple[Settings, ...], name: str) -> list[Arm]:
    arms = []
    for arm, table in found.arms.items():
        own = table.get("tune")
        if own is not None and not isinstance(own, dict):
            what = f"{name}: arms.{arm}.tune = {shown(own)} is not a table."
            raise ConfigError(what, hint=f'Write [arms.{arm}.tune], then "KEY" = [..., ...].')
        if own is not None and found.tune is None:
            raise ConfigError(f"{name}: [arms.{arm}.tune] has no [tune].", hint="Add [tune] with its seeds.")
        tried = choices if own is None else _all_of(flatten(own), f"{name}: [arms.{arm}.tune]")
        arms.append(Arm(arm, flatten({key: value for key, value in table.items() if key != "tune"}), tried))
    for grid, table in found.grid.items():
        base = next((arm for arm in arms if arm.name == table.get("base")), Arm("", {}, choices))
        if "base" in table and not base.name:
            what = f"{name}: [grid.{grid}] has the base {shown(table['base'])}, which is no arm."
            raise ConfigError(what, hint=near_names(str(table["base"]), [arm.name for arm in arms]))
        lists = flatten({key: value for key, value in table.items() if key != "base"})
        arms += [
            Arm(f"{grid}-{_slug(values)}", {**base.settings, **values}, base.choices)
            for values in _all_of(lists, f"{name}: [grid.{grid}]", _MOST_ARMS)
        ]
    return arms


def _slug(values: Settings) -> str:
    """Returns the values of one point of a grid as a part of a name: `16-0.001`."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", "-".join(str(value) for value in values.values())).strip("-.")[:40]


def _check_names(names: list[str], place: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            hint = "A name is a folder, too: letters, digits, - _ and dots, at most 60."
            raise ConfigError(f"{place}: {shown(name)} is not a name.", hint=hint)
        if sum(name.lower() == other.lower() for other in names) > 1:
            hint = "Rename one, or take out a value of the grid: names are folders, where capitals may not count."
            raise ConfigError(f"{place}: {name} is there twice.", hint=hint)


def _check_arms(arms: tuple[Arm, ...], baseline: str, name: str) -> None:
    names = [arm.name for arm in arms]
    if baseline not in names:
        raise ConfigError(f"{name}: the baseline {shown(baseline)} is no arm.", hint=near_names(baseline, names))
    if not 2 <= len(arms) <= _MOST_ARMS:
        what = f"{name}: it has {len(arms)} arms; a comparison has 2 to {_MOST_ARMS}."
        raise ConfigError(what, hint="Add [arms.NAME] with the keys that differ from the baseline.")
    counts = {arm.name: len(arm.choices) for arm in arms}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{arm} {count}" for arm, count in counts.items())
        what = f"{name}: arms are tuned over unequal numbers of settings: {found[:200]}."
        raise ConfigError(what, hint="The arm that tries more wins more often by chance: give each as many.")


def _check_tuning(arms: tuple[Arm, ...], seeds: tuple[int, ...], tuning: Tuning | None, name: str) -> None:
    """Raises `ConfigError` for a tuning that chooses nothing, on the compared seeds, or against what an arm sets."""
    if tuning is None:
        return
    if not arms[0].choices:
        hint = 'Add a list of values: "optimizer.learning_rate" = [1e-5, 1e-4].'
        raise ConfigError(f"{name}: [tune] names nothing to choose from.", hint=hint)
    if common := sorted(set(seeds) & set(tuning.seeds)):
        what = f"{name}: seed {common[0]} is in [study] seeds and in [tune] seeds."
        raise ConfigError(what, hint="Tune on seeds of its own: a choice looks better on the seeds it was made on.")
    for arm in arms:
        if both := sorted({key for choice in arm.choices for key in choice} & arm.settings.keys()):
            what = f"{name}: arm {arm.name} sets {shown_key(both[0])}, which its tuning would replace."
            raise ConfigError(what, hint="Take it out of the arm, or out of what is tuned.")
