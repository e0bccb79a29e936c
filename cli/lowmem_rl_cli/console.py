"""How the commands speak: results on stdout, talk on stderr, plain text that a pipe can carry."""

import json
import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lowmem_rl.config.compose import ResolvedConfig

GAP = "  "


def show(text: str) -> None:
    """Prints a result."""
    print(text)


def show_json(value: object) -> None:
    """Prints a result for a program."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_rows(facts: Sequence[object], head: Sequence[str], rows: Iterable[Sequence[str]], *, as_json: bool) -> None:
    """Prints a list of things: all facts for a program, or one row each in a table."""
    if as_json:
        show_json(facts)
    else:
        show(table([head, *rows], width()))


def say(text: str) -> None:
    """Prints what is only for the person at the terminal."""
    print(text, file=sys.stderr)


def tell_error(message: str, hint: str) -> None:
    """Prints a user's mistake: what and where, then the cure. What it quotes from a file commands no terminal."""
    from lowmem_rl.reports.escape import shown

    say(f"error: {shown(message)}")
    if hint:
        say(f"hint: {shown(hint)}")


def width() -> int | None:
    """Returns the columns of the terminal, None where the output goes elsewhere and is never folded."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(rows: Sequence[Sequence[str]], columns: int | None) -> str:
    """Returns aligned columns, the first row as the head; columns of numbers stand to the right.

    Where `columns` are too few, the last cell of each row goes on an indented line of its own, without a head.
    """
    aligned = list(zip(*map(_aligned, zip(*rows, strict=True)), strict=True))
    lines = [GAP.join(cells).rstrip() for cells in aligned]
    if columns is None or max(map(len, lines)) <= columns:
        return "\n".join(lines)
    head, *body = [GAP.join(cells[:-1]).rstrip() for cells in aligned]
    return "\n".join([head, *(f"{line}\n{GAP}{row[-1]}" for line, row in zip(body, rows[1:], strict=True))])


def _aligned(column: Sequence[str]) -> list[str]:
    size = max(map(len, column))
    is_number = all(cell.isdigit() for cell in column[1:])
    return [cell.rjust(size) if is_number else cell.ljust(size) for cell in column]


def config_text(composed: "ResolvedConfig") -> str:
    """Returns the resolved configuration as TOML, the origin of each value beside it as a comment."""
    tables = composed.config.model_dump()
    lines = [
        _setting(name, value, composed.origins[name]) for name, value in tables.items() if not isinstance(value, dict)
    ]
    for section, values in tables.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]"]
            lines += [_setting(name, value, composed.origins[f"{section}.{name}"]) for name, value in values.items()]
    return "\n".join(lines)


def _setting(name: str, value: object, origin: str) -> str:
    # TOML has no null: an unset key is a comment.
    text = f"# {name} is unset" if value is None else f"{_toml_key(name)} = {toml_value(value)}"
    return f"{text:<38}  # {origin}"


def _toml_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def toml_value(value: object) -> str:
    """Returns a value in TOML, which writes text, numbers, truth values and lists as JSON does."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_toml_key(key)} = {toml_value(part)}" for key, part in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False)
