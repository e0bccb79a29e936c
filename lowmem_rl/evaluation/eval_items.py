"""`Item`: one judged completion, and the file that holds those of an evaluation while and after it is made."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lowmem_rl.errors import RunDirError
from lowmem_rl.example import Example
from lowmem_rl.storage.run_dir import Row, append_row, drop_torn_row, read_rows, write_rows


@dataclass(frozen=True, slots=True)
class Item:
    """One example's completion and how it was scored; `correct` is lenient, `strict` wants the asked form."""

    example_id: str
    prompt: str
    answer: str
    completion: str
    tokens: int
    truncated: bool
    correct: bool
    strict: bool
    scores: Mapping[str, float | None]
    level: int | None = None
    sample: int = 0
    """0 is the greedy completion, 1 the first sampled one."""
    vote: str | None = None
    """What equal answers share; None where the completion gives none."""
    strict_vote: str | None = None
    by: str = ""
    """Names the weights and the settings that made it: what others have made is never taken over."""

    def answers(self, example: Example) -> bool:
        """Says whether it is an answer to this very example."""
        return (self.example_id, self.prompt, self.answer) == (example.id, example.question, example.answer)


Key = tuple[str, int]
"""An example's id, and the number of the sample."""


class ItemFile:
    """The rows of one file. What stands there already counts, if it was made by the same weights and settings."""

    def __init__(self, path: Path, by: str) -> None:
        drop_torn_row(path)
        self.path, found = path, read_items(path)
        self.items: dict[Key, Item] = {_key(item): item for item in found if item.by == by}
        if len(self.items) < len(found):
            self._write(self.items.values())
        self.rows = len(self.items)

    def add(self, item: Item) -> None:
        """Writes one more row."""
        append_row(self.path, asdict(item))
        self.rows += 1
        self.items[_key(item)] = item

    def finish(self, wanted: Sequence[Key]) -> list[Item]:
        """Returns the wanted items and puts the file's rows into their order; any others stay behind them."""
        ordered = {key: self.items[key] for key in wanted} | self.items
        if list(ordered) != list(self.items) or self.rows > len(ordered):
            self._write(ordered.values())
        return [self.items[key] for key in wanted]

    def _write(self, items: Iterable[Item]) -> None:
        write_rows(self.path, map(asdict, items))


def read_items(path: Path) -> list[Item]:
    """Returns the items of a file, none where it is missing. Raises `RunDirError` for rows that are none."""
    return [_item(row, number, path) for number, row in enumerate(read_rows(path), 1)]


def _item(row: Row, number: int, path: Path) -> Item:
    known = {field.name for field in fields(Item)}
    try:
        item = Item(**{name: value for name, value in row.items() if name in known})
        if not all(isinstance(getattr(item, name), kind) for name, kind in KINDS.items()):
            raise TypeError
    except (TypeError, AttributeError) as error:
        raise RunDirError(f"{path}, line {number}, is no item of an evaluation.", hint="Remove that line.") from error
    return item


KINDS: dict[str, Any] = {
    "example_id": str, "prompt": str, "answer": str, "completion": str, "tokens": int, "truncated": bool,
    "correct": bool, "strict": bool, "scores": dict, "level": int | None, "sample": int, "vote": str | None,
    "strict_vote": str | None, "by": str,
}  # fmt: skip


def _key(item: Item) -> Key:
    return item.example_id, item.sample
