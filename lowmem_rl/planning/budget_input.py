"""What a plan is asked for in words: a card or a number of bytes, and how likely an answer is right.

Text and files of a user's are hostile until read here.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from errno import EFBIG, ENOENT
from pathlib import Path
from typing import Any

from lowmem_rl.errors import ConfigError
from lowmem_rl.models.hardware import CARDS, Card, Machine, find_card, free_ram_bytes
from lowmem_rl.signal.pass_rate import PassRate, given, measured, outcomes
from lowmem_rl.units import GB, GIB, MB, MIB

CPU = "cpu"
UNITS = {"gib": GIB, "gb": GB, "mib": MIB, "mb": MB}
UNNAMED = "vram"
"""Key of the card behind a bare number of bytes: from Ampere on, of unknown speed."""

LARGEST_PROBE_BYTES = 100_000_000
MOST_SAMPLES = 1_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """Where a run is planned for."""

    card: Card | None
    """None is a CPU."""
    budget_bytes: int
    name: str


def asked_place(card: str | None, vram: str | None) -> Budget | None:
    """Returns the place that `--card` or `--vram` names, None without either.

    Raises `ConfigError` for both at once and for a number that is none, `UnknownName` for the card.
    """
    if card is not None and vram is not None:
        raise ConfigError(
            f"--card {card!r} and --vram {vram!r} contradict each other: each is a budget.",
            hint="Give one: --card for what a card really offers, --vram for a number of your own.",
        )
    if card is not None:
        return place_of(card)
    return None if vram is None else _unnamed_place(read_bytes(vram))


def place_of(key: str) -> Budget:
    """Returns a card with all it offers, or for `cpu` this machine's free memory. Raises `UnknownName`."""
    if key.strip().lower() == CPU:
        return Budget(None, free_ram_bytes(), "this machine's CPU")
    card = find_card(key, besides=[CPU])
    return Budget(card, card.offered_bytes, card.name)


def place_here(machine: Machine) -> Budget:
    """Returns this machine: what is free on its card now, or in its RAM."""
    if machine.has_gpu:
        return Budget(machine.card, machine.free_bytes, f"this machine's {machine.name}")
    return Budget(None, machine.ram_bytes, "this machine's CPU")


def nearest_card(place: Budget) -> str | None:
    """Returns the key of the listed card a preset is chosen by: the place's own, else the largest that offers no more.

    None for a CPU. Cards of one size differ by up to a tenth in what they offer.
    """
    if place.card is None:
        return None
    if place.card.key in CARDS:
        return place.card.key
    by_size = sorted(CARDS.values(), key=lambda card: card.offered_bytes)
    fitting = [card for card in by_size if card.offered_bytes <= 1.1 * place.budget_bytes]
    return (fitting or by_size[:1])[-1].key


def read_bytes(text: str) -> int:
    """Returns "24GiB", "23.6 GiB", "24GB" or "16384MiB" in bytes. Raises `ConfigError`."""
    match = re.fullmatch(r"\s*([0-9]{1,7}(?:\.[0-9]{1,6})?)\s*([GM]i?B)\s*", text, re.IGNORECASE)
    size = int(float(match[1]) * UNITS[match[2].lower()]) if match else 0
    if size <= 0:
        raise ConfigError(
            f"--vram {text[:40]!r} is no amount of memory.", hint="Write a number and a unit: 24GiB, 24GB or 16384MiB."
        )
    return size


def read_pass_rate(text: str) -> PassRate:
    """Returns the pass rate that a number from 0 to 1 or the file of a `probe` states.

    Several numbers, as in 0.2,0.3,0.5, are the probabilities of a reward's values, the right answer's first.
    Raises `ConfigError`.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return measured(_read_counts(text))
    first, *others = [given(number) for number in numbers]
    return outcomes(numbers) if others else first


def _unnamed_place(size: int) -> Budget:
    name = f"a card with {size / GIB:.1f} GiB"
    return Budget(Card(UNNAMED, name, size, (8, 0), "--vram"), size, name)


def _read_counts(file: str) -> list[tuple[int, int]]:
    content = _read_json(file)
    examples = content.get("examples") if isinstance(content, dict) else None
    if not isinstance(examples, list) or not examples:
        raise ConfigError(f"{file} lists no examples.", hint="`lowmem-rl probe` writes such a file.")
    return list(_counts(examples, Path(file).name))


def _read_json(file: str) -> Any:
    try:
        text = _read_file(Path(file))
    except OSError as error:
        raise _no_probe(file, f"is neither a number nor a file: {error.strerror or error}") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _no_probe(file, f"cannot be read as JSON: {error}") from error


def _read_file(path: Path) -> bytes:
    """Returns a plain file's bytes; a device or a pipe might never end. Raises `OSError`."""
    if not path.is_file():
        raise FileNotFoundError(ENOENT, "no plain file of that name")
    with path.open("rb") as file:
        content = file.read(LARGEST_PROBE_BYTES + 1)
    if len(content) > LARGEST_PROBE_BYTES:
        raise OSError(EFBIG, "larger than any probe's file")
    return content


def _no_probe(file: str, why: str) -> ConfigError:
    hint = "Give a share such as 0.35, or the file `lowmem-rl probe` wrote."
    return ConfigError(f"--pass-rate {file[:80]!r} {why}.", hint=hint)


def _counts(examples: list[Any], name: str) -> Iterator[tuple[int, int]]:
    """Yields (passed, samples) of each example. Raises `ConfigError` naming the example's number, from 1."""
    for number, example in enumerate(examples, start=1):
        row = example if isinstance(example, dict) else {}
        where = f"{name}, example {number}"
        samples = _count(row, "samples", 1, MOST_SAMPLES, where)
        yield _count(row, "passed", 0, samples, where), samples


def _count(row: dict[str, Any], field: str, least: int, most: int, where: str) -> int:
    value = row.get(field)
    if type(value) is int and least <= value <= most:  # True is an int too
        return value
    raise ConfigError(
        f"{where}: {field} is {str(value)[:40]!r}, not an integer from {least} to {most}.",
        hint="`passed` counts the right ones of `samples` completions; probe again.",
    )
