"""MAPPING.md: every setting of the run and what it has become."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from lowmem_rl.reports.escape import shown
from lowmem_rl.scale_out.counterparts import MappedKey, Status

_ORDER: tuple[Status, ...] = ("changed", "no counterpart", "equal")
_HEADS: dict[Status, str] = {
    "changed": "Changed: gradient or result differ",
    "no counterpart": "Without counterpart",
    "equal": "Equal",
}


def mapping_page(title: str, facts: Sequence[str], rows: Sequence[MappedKey]) -> str:
    """Returns the page: `facts` are its first paragraphs, in Markdown. What is not equal comes first."""
    counts = Counter(row.counterpart.status for row in rows)
    summary = ", ".join(f"{counts[status]} {status}" for status in _ORDER if counts[status])
    lines = [
        f"# {title}",
        "",
        *(line for fact in facts for line in (fact, "")),
        f"Of {len(rows)} settings: {summary}.",
        "",
    ]
    for status in _ORDER:
        if chosen := [row for row in rows if row.counterpart.status == status]:
            lines += [f"## {_HEADS[status]}", "", *_table(chosen), ""]
    return "\n".join(lines)


def _table(rows: Iterable[MappedKey]) -> Iterator[str]:
    yield "| setting | value | becomes | how |"
    yield "| --- | --- | --- | --- |"
    for row in rows:
        found = row.counterpart
        note = f"accepted: {found.note}" if row.is_accepted else found.note
        yield f"| `{row.key}` | {code(_text(row.value))} | {code(found.name) if found.name else ''} | {note} |"


def _text(value: Any) -> str:
    return "unset" if value is None else json.dumps(value, ensure_ascii=False)


def code(text: str) -> str:
    """Returns a text as code in a cell of a table, whatever is in it: on one line, control characters spelled out."""
    line = shown(" ".join(text.split())).replace("|", "\\|")
    if "`" not in line:
        return f"`{line}`"
    fence = "`" * (max(map(len, "".join(c if c == "`" else " " for c in line).split())) + 1)
    return f"{fence} {line} {fence}"
