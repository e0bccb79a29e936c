"""`lowmem-rl presets`: what is ready to run, and what each setting means."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lowmem_rl.config.toml_text import toml_value
from lowmem_rl_cli import console
from lowmem_rl_cli.options import JsonOption, command_group, option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lowmem_rl.config.keys import SettingKey
    from lowmem_rl.config.presets import Preset
    from lowmem_rl_bench.prove.replay import CheckedRecord

app = command_group("List, show, explain and copy presets.")

NameArgument = Annotated[str, typer.Argument(help="A name from `presets list`.", metavar="NAME")]
RecordsOption = Annotated[
    list[Path] | None,
    option("--records", "Record of `prove`, or a folder of them, to show as well; repeatable.", "FILE|DIR"),
]


@app.command("list")
def list_presets(records: RecordsOption = None, as_json: JsonOption = False) -> None:
    """List the presets, those for the smallest card first, and the cards on which each was measured."""
    from lowmem_rl.config.presets import load_presets
    from lowmem_rl_bench.prove.records import load_records

    presets, found = load_presets(), load_records(records or (), console.say)
    head = ("preset", "card", "model", "group", "tokens", "measured on", "summary")
    rows = (_row(preset, found) for preset in presets)
    console.show_rows([_facts(preset, found) for preset in presets], head, rows, as_json=as_json)


@app.command("show")
def show_preset(name: NameArgument, records: RecordsOption = None, as_json: JsonOption = False) -> None:
    """Show every setting of a preset, and where it comes from; what was measured of it, by card."""
    from lowmem_rl.config.compose import resolve
    from lowmem_rl.config.presets import load_preset
    from lowmem_rl_bench.prove.records import load_records
    from lowmem_rl_cli.records_view import measured_lines

    preset, composed, found = load_preset(name), resolve(preset=name), load_records(records or (), console.say)
    if as_json:
        config = composed.config.model_dump(mode="json")
        console.show_json({**_facts(preset, found), "config": config, "origins": dict(composed.origins)})
    else:
        about = f"card {preset.card}; from {preset.base} weights; {preset.checkpoint}"
        facts = (preset.summary, about, *measured_lines(found, name))
        console.show("\n".join([*(f"# {fact}" for fact in facts), console.config_text(composed)]))


@app.command("explain")
def explain_key(
    key: Annotated[str | None, typer.Argument(help="A key or section; all keys if left out.", metavar="KEY")] = None,
) -> None:
    """Explain a setting: meaning, range, default, presets."""
    from lowmem_rl.config.keys import find_key, fix_for_unknown, known_keys, sections
    from lowmem_rl.errors import ConfigError

    if key is None or key in sections():
        names = known_keys() if key is None else sections()[key]
        console.show("\n".join(f"{name:<31}  {known_keys()[name].takes}" for name in names))
    elif found := find_key(key):
        console.show(_in_full(found))
    else:
        raise ConfigError(f"There is no key named {key!r}.", hint=fix_for_unknown(key))


@app.command("copy")
def copy_preset(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(help="The file to write; must not exist.", metavar="FILE")],
) -> None:
    """Copy a preset to a file of your own, comments and all."""
    from lowmem_rl.config.presets import load_preset
    from lowmem_rl.errors import ConfigError

    text = load_preset(name).text
    try:
        with file.open("x", encoding="utf-8") as copy:
            copy.write(text)
    except FileExistsError as error:
        raise ConfigError(f"{file} exists already.", hint="Choose another name.") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot write {str(file)!r}: {error}.", hint="Choose a writable folder.") from error
    console.say(f"Wrote {file}. Run it with: lowmem-rl train --config {file}")


def _facts(preset: "Preset", records: "Sequence[CheckedRecord]") -> dict[str, object]:
    from lowmem_rl_bench.prove.records import facts_of, of_preset

    return {
        "name": preset.name,
        "summary": preset.summary,
        "card": preset.card,
        "model": preset.model,
        "base": preset.base,
        "checkpoint": preset.checkpoint,
        "group_size": preset.group_size,
        "max_completion_tokens": preset.max_completion_tokens,
        "measured": asdict(preset.measured) if preset.measured else None,
        "records": [facts_of(one) for one in of_preset(records, preset.name)],
    }


def _row(preset: "Preset", records: "Sequence[CheckedRecord]") -> tuple[str, ...]:
    from lowmem_rl_cli.records_view import cards_of

    # `show` has the owner; here the column would be too wide.
    model, group, tokens = preset.model.rpartition("/")[2], preset.group_size, preset.max_completion_tokens
    return (preset.name, preset.card, model, str(group), str(tokens), cards_of(records, preset.name), preset.summary)


def _in_full(key: "SettingKey") -> str:
    facts = [("takes", key.takes), ("default", "unset" if key.default is None else toml_value(key.default))]
    presets = [(name, toml_value(value)) for name, value in _stated(key.name)]
    blocks = ["\n".join(f"  {line}" for line in key.doc.splitlines()), _indented(facts)]
    return "\n".join([key.name, *blocks, *(["", "  set by presets", _indented(presets)] if presets else [])])


def _indented(pairs: list[tuple[str, str]]) -> str:
    size = max(len(name) for name, _ in pairs)
    return "\n".join(f"  {name:<{size}}  {value}" for name, value in pairs)


def _stated(key: str) -> list[tuple[str, object]]:
    """Returns the presets that state the key, with their values."""
    from lowmem_rl.config.compose import flatten
    from lowmem_rl.config.presets import load_presets

    values = {preset.name: {**flatten(preset.values), "rewards": preset.values["rewards"]} for preset in load_presets()}
    return [(name, found[key]) for name, found in values.items() if key in found]
