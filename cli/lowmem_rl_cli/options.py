"""Options that several commands share, and the request that they make together."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lowmem_rl_cli import console

if TYPE_CHECKING:
    from lowmem_rl.config.compose import ConfigLayer, ResolvedConfig
    from lowmem_rl.signal.pass_rate import PassRate


def option(
    name: str, about: str, metavar: str | None = None, *, min: float | None = None, max: float | None = None
) -> Any:
    """Returns Typer's declaration of an option, short enough for a signature."""
    return typer.Option(name, help=about, metavar=metavar, min=min, max=max)


PresetOption = Annotated[
    str | None, option("--preset", "Preset to start from; unset, the one for this machine's card.", "NAME")
]
ConfigOption = Annotated[
    list[Path] | None, option("--config", "TOML file over the preset; repeatable, the last one wins.", "FILE")
]
SetOption = Annotated[
    list[str] | None,
    option("--set", "One setting over the files, such as grpo.group_size=16; repeatable.", "KEY=VALUE"),
]
ModelOption = Annotated[str | None, option("--model", "Hub name or folder of the model; sets model.name.", "NAME")]
MovedModelOption = Annotated[
    str | None, option("--model", "Folder or hub name of the run's model, if it has moved.", "NAME")
]
FromOption = Annotated[
    str | None,
    option(
        "--from",
        "Start from what a run has learned, from an adapter, or from a merged folder; that start is the KL reference.",
        "RUN|ADAPTER|MERGED",
    ),
]
CardOption = Annotated[
    str | None, option("--card", "Card to plan for, such as a6000 or 4090; `cpu` is this machine's.", "KEY")
]
VramOption = Annotated[str | None, option("--vram", "Memory to plan for instead of a card, such as 24GiB.", "SIZE")]
PassRateOption = Annotated[
    str | None,
    option("--pass-rate", "Share of right answers from 0 to 1, or the file that `probe` wrote.", "SHARE|FILE"),
]
TaskOption = Annotated[str | None, option("--task", "Task to learn; sets task.name.", "NAME")]
RewardOption = Annotated[
    list[str] | None, option("--reward", "Reward and its weight; repeatable, replaces the preset's.", "NAME=WEIGHT")
]
OutOption = Annotated[Path | None, option("--out", "Run directory; runs/PRESET-TIME if unset.", "DIR")]
StepsOption = Annotated[int | None, option("--steps", "Optimizer steps; sets grpo.steps.")]
SeedOption = Annotated[int | None, option("--seed", "Seed of the whole run.")]
RunArgument = Annotated[Path, typer.Argument(help="Run directory, as `train` prints it.", metavar="RUN")]
AllowCodeOption = Annotated[bool, option("--allow-code", "Run code of FILE.py:NAME that a config file names.")]
JsonOption = Annotated[bool, option("--json", "Print JSON for a program.")]


def command_group(about: str) -> typer.Typer:
    """Returns an app of several commands that prints its help if none of them is named."""
    group = typer.Typer(help=about, rich_markup_mode=None)

    @group.callback(invoke_without_command=True)
    def show_help(context: typer.Context) -> None:
        if context.invoked_subcommand is None:
            console.show(context.get_help())

    return group


@dataclass(frozen=True, slots=True)
class RunRequest:
    """The request of a command line, not yet validated."""

    preset: str | None = None
    config_files: tuple[Path, ...] = ()
    settings: tuple[str, ...] = ()
    task: str | None = None
    rewards: tuple[str, ...] = ()
    out: Path | None = None
    steps: int | None = None
    seed: int | None = None
    allow_code: bool = False
    model: str | None = None
    pass_rate: str | None = None
    start: str | None = None
    goal: float | None = None

    def read_pass_rate(self) -> "PassRate | None":
        """Returns the value of --pass-rate, None if it is not given. Raises `ConfigError` if it is not valid."""
        from lowmem_rl.planning.budget_input import read_pass_rate

        return None if self.pass_rate is None else read_pass_rate(self.pass_rate)

    def resolve(self, fallback: str | None = None) -> "ResolvedConfig":
        """Returns the configuration; without a preset it starts from `fallback`, else from this machine's preset.

        Raises `ConfigError` if it is not valid, and for code that a file names without --allow-code.
        """
        from lowmem_rl.config.compose import resolve
        from lowmem_rl.config.user_code import check_allowed

        if self.start is not None:
            return self._resolve_from(self.start)
        resolved = resolve(
            preset=self.preset,
            fallback=fallback or self._preset_of_machine(),
            config_files=self.config_files,
            settings=self.settings,
            flags=self.flag_layers(),
        )
        check_allowed(resolved.named_origins, allow_code=self.allow_code)
        return resolved

    def _resolve_from(self, name: str) -> "ResolvedConfig":
        """Returns the configuration of a run that starts from `name`; without a preset, with the preset of that run."""
        from lowmem_rl.config.compose import named_layers, resolve
        from lowmem_rl.config.user_code import check_allowed
        from lowmem_rl.engine.start import check_agreement, find_start

        start, files = find_start(name), self.config_files
        resolved = resolve(
            preset=self.preset,
            fallback=start.preset or self._preset_of_machine(),
            config_files=files,
            settings=self.settings,
            flags=self.flag_layers(),
            start=start.layer,
        )
        presets = [layer for layer in named_layers(preset=self.preset, config_files=files) if layer.preset]
        model = presets[0].values.get("model.name") if presets else None
        check_agreement(start, resolved, str(model) if model else None)
        check_allowed(resolved.named_origins, allow_code=self.allow_code)
        return resolved

    def _preset_of_machine(self) -> str:
        from lowmem_rl.config.presets import default_preset
        from lowmem_rl.models.hardware import this_machine

        card = this_machine().card if self.preset is None else None
        return default_preset(card.key if card else None)

    def resolve_resumed(self, out: Path) -> "ResolvedConfig":
        """Returns the configuration of the run in `out`, with the changes of this request.

        Raises `RunDirError` if there is no run, `ConfigError` for a change that would make it another run.
        """
        from lowmem_rl.checkpointing.resume_config import read_composed, with_changes
        from lowmem_rl.config.user_code import check_allowed
        from lowmem_rl.storage.run_dir import RunDir

        resolved = with_changes(read_composed(RunDir(out)), [*self.named_layers(), *self._moved_start()])
        check_allowed(resolved.named_origins, allow_code=self.allow_code)
        return resolved

    def _moved_start(self) -> "list[ConfigLayer]":
        """Returns the layer with the new place of the adapter that a run began with, if --from names one."""
        from lowmem_rl.config.compose import ConfigLayer
        from lowmem_rl.config.places import START
        from lowmem_rl.engine.start import find_start

        found = find_start(self.start).layer.values.get(START) if self.start is not None else None
        return [ConfigLayer("--from", {START: found})] if found else []

    def named_layers(self) -> "list[ConfigLayer]":
        """Returns the layers of this request alone: the changes to an existing run's configuration."""
        from lowmem_rl.config.compose import named_layers

        return named_layers(
            preset=self.preset, config_files=self.config_files, settings=self.settings, flags=self.flag_layers()
        )

    def flag_layers(self) -> "list[ConfigLayer]":
        """Returns one layer for each named flag that was given."""
        from lowmem_rl.config.compose import ConfigLayer, read_assignments

        named = {
            "--model": ("model.name", self.model),
            "--task": ("task.name", self.task),
            "--steps": ("grpo.steps", self.steps),
            "--seed": ("seed", self.seed),
        }
        layers = [ConfigLayer(flag, {key: value}) for flag, (key, value) in named.items() if value is not None]
        if self.rewards:
            layers.append(read_assignments("--reward", self.rewards, prefix="rewards.", replaces_rewards=True))
        return layers
