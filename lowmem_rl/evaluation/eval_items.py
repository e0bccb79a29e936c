"""`Item`: one graded completion, and the file that holds the items of an evaluation while it runs and afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lowmem_rl.errors import RunDirError
from lowmem_rl.example import Example
from lowmem_rl.storage.run_dir import Row, append_row, drop_torn_row, read_rows, write_rows


@dataclass(frozen=True, slots=True)
class Item:
    """One example's completion and its grades: `correct` is lenient, `strict` requires the requested format."""

    example_id: str
    prompt: str
    answer: str
    completion: str
    tokens: int
    truncated: bool
    correct: bool
    strict: bool
    scores: Mapping[str, float | None]
    level: float | None = None
    sample: int = 0
    """0 is the greedy completion, 1 the first sampled one."""
    vote: str | None = None
    """Key that equal answers share; None if the completion gives no answer."""
    strict_vote: str | None = None
    late_verdicts: int = 0
    """Comparisons with the gold answer that took too long and counted as unequal."""
    by: str = ""
    """Digest of the weights and settings that produced it: items of other weights are never reused."""

    @property
    def key(self) -> "Key":
        return self.example_id, self.sample

    def answers(self, example: Example) -> bool:
        """Returns whether it is an answer to exactly this example."""
        return (self.example_id, self.prompt, self.answer) == (example.id, example.question, example.answer)


Key = tuple[str, int]
"""An example's id, and the number of the sample."""


class ItemFile:
    """The rows of one file. Rows that the same weights and settings produced earlier count; all others are dropped."""

    def __init__(self, path: Path, by: str) -> None:
        drop_torn_row(path)
        self.path, found = path, read_items(path)
        self.items: dict[Key, Item] = {item.key: item for item in found if item.by == by}
        if len(self.items) < len(found):
            write_rows(path, map(asdict, self.items.values()))
        self.rows = len(self.items)

    def add(self, item: Item) -> None:
        """Appends one row."""
        append_row(self.path, asdict(item))
        self.rows += 1
        self.items[item.key] = item

    def finish(self, wanted: Sequence[Key]) -> list[Item]:
        """Returns the wanted items and sorts the file's rows into their order; any others stay after them."""
        ordered = {key: self.items[key] for key in wanted} | self.items
        if list(ordered) != list(self.items) or self.rows > len(ordered):
            write_rows(self.path, map(asdict, ordered.values()))
        return [self.items[key] for key in wanted]


def read_items(path: Path) -> list[Item]:
    """Returns the items of a file, none if it is missing. Raises `RunDirError` for a row that is not an item."""
    return [_item(row, number, path) for number, row in enumerate(read_rows(path), 1)]


def _item(row: Row, number: int, path: Path) -> Item:
    known = {field.name for field in fields(Item)}
    try:
        item = Item(**{name: value for name, value in row.items() if name in known})
        if not all(isinstance(getattr(item, name), kind) for name, kind in _KINDS.items()):
            raise TypeError
    except (TypeError, AttributeError) as error:
        raise RunDirError(
            f"{path}, line {number}, is not an item of an evaluation.", hint="Remove that line."
        ) from error
    return item


_KINDS: dict[str, Any] = {
    "example_id": str, "prompt": str, "answer": str, "completion": str, "tokens": int, "truncated": bool,
    "correct": bool, "strict": bool, "scores": dict, "level": int | float | None, "sample": int, "vote": str | None,
    "strict_vote": str | None, "late_verdicts": int, "by": str,
}  # fmt: skip
