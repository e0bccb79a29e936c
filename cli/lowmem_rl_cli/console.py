"""What the commands print: results on stdout, everything else on stderr, in plain text."""

import contextlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lowmem_rl.config.toml_text import toml_key, toml_value

if TYPE_CHECKING:
    from lowmem_rl.config.compose import ResolvedConfig


def show(text: str) -> None:
    """Prints a result."""
    print(text)


def show_json(value: object) -> None:
    """Prints a result for a program."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def show_rows(facts: Sequence[object], head: Sequence[str], rows: Iterable[Sequence[str]], *, as_json: bool) -> None:
    """Prints a list: all facts for a program, or one row each in a table."""
    if as_json:
        show_json(facts)
    else:
        show_table(head, rows)


def show_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table: on a terminal as wide as that, in a pipe one line a row."""
    from lowmem_rl_cli.text_page import list_page

    show("\n".join(list_page().listing(head, list(rows))))


def say(text: str) -> None:
    """Prints a message for the person at the terminal; one that cannot be written is not worth a run."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)


def open_page(page: Path) -> None:
    """Opens a page in the user's browser (BROWSER, else the system's); without one the page is there all the same."""
    import webbrowser

    if not webbrowser.open(page.resolve().as_uri()):
        say(f"warning: no browser could be opened; open {page} in one")


def tell_error(message: str, hint: str) -> None:
    """Prints a user's mistake: what and where, then the fix. Control characters from a file are spelled out."""
    from lowmem_rl.reports.escape import shown

    say(f"error: {shown(message)}")
    if hint:
        say(f"hint: {shown(hint)}")


def config_text(composed: "ResolvedConfig") -> str:
    """Returns the resolved configuration as TOML, the origin of each value in a comment after it."""

    def setting(name: str, value: object, key: str) -> str:
        # TOML has no null: an unset key is a comment.
        text = f"# {name} is unset" if value is None else f"{toml_key(name)} = {toml_value(value)}"
        return f"{text:<38}  # {composed.origins[key]}"

    tables = composed.config.model_dump()
    lines = [setting(name, value, name) for name, value in tables.items() if not isinstance(value, dict)]
    for section, values in tables.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]"]
            lines += [setting(name, value, f"{section}.{name}") for name, value in values.items()]
    return "\n".join(lines)
