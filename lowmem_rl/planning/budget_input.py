"""A plan's inputs as text: a card or a number of bytes, and how likely an answer is right. Hostile until read here."""

import json
import re
from dataclasses import dataclass
from errno import EFBIG, ENOENT
from pathlib import Path
from typing import Any

from lowmem_rl.errors import ConfigError
from lowmem_rl.models.hardware import CARDS, Card, Machine, find_card, free_ram_bytes
from lowmem_rl.signal.pass_rate import PassRate, given, measured, outcomes
from lowmem_rl.units import GB, GIB, MB, MIB

CPU = "cpu"
_UNITS = {"gib": GIB, "gb": GB, "mib": MIB, "mb": MB}
UNNAMED = "vram"
"""Key of the card that a bare number of bytes means: Ampere or later, of unknown speed."""
LARGEST_PROBE_BYTES = 100_000_000
_MOST_SAMPLES = 1_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """The place a run is planned for."""

    card: Card | None
    """None is a CPU."""
    budget_bytes: int
    name: str


def asked_place(card: str | None, vram: str | None) -> Budget | None:
    """Returns the place that `--card` or `--vram` names, None without either.

    Raises `ConfigError` for both at once and for text that is no amount of memory, `UnknownName` for the card.
    """
    if card is not None and vram is not None:
        raise ConfigError(
            f"--card {card!r} and --vram {vram!r} contradict each other: each is a budget.",
            hint="Give one: --card for what a card really offers, --vram for a number of your own.",
        )
    if card is not None:
        return place_of(card)
    if vram is None:
        return None
    size = read_bytes(vram)
    name = f"a card with {size / GIB:.1f} GiB"
    return Budget(Card(UNNAMED, name, size, (8, 0), "--vram"), size, name)


def place_of(key: str) -> Budget:
    """Returns a card with all it offers, or for `cpu` this machine's free memory. Raises `UnknownName`."""
    if key.strip().lower() == CPU:
        return Budget(None, free_ram_bytes(), "this machine's CPU")
    card = find_card(key, others=[CPU])
    return Budget(card, card.offered_bytes, card.name)


def place_here(machine: Machine) -> Budget:
    """Returns this machine: what is free on its card now, or in its RAM."""
    name = f"this machine's {machine.name if machine.has_gpu else 'CPU'}"
    return Budget(machine.card, machine.usable_bytes, name)


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
    size = int(float(match[1]) * _UNITS[match[2].lower()]) if match else 0
    if size <= 0:
        raise ConfigError(
            f"--vram {text[:40]!r} is not an amount of memory.",
            hint="Write a number and a unit: 24GiB, 24GB or 16384MiB.",
        )
    return size


def read_pass_rate(text: str) -> PassRate:
    """Returns the pass rate of a number from 0 to 1 or of a `probe`'s file. Raises `ConfigError`.

    Several numbers, as in 0.2,0.3,0.5, are the probabilities of a reward's values, the right answer's first.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        return measured(_read_counts(text))
    first, *others = [given(number) for number in numbers]
    return outcomes(numbers) if others else first


def _read_counts(file: str) -> list[tuple[int, int]]:
    """Returns (passed, samples) of each example in a probe's file."""
    content = _read_json(file)
    examples = content.get("examples") if isinstance(content, dict) else None
    if not isinstance(examples, list) or not examples:
        raise ConfigError(f"{file} lists no examples.", hint="`lowmem-rl probe` writes such a file.")
    counts = []
    for number, example in enumerate(examples, start=1):
        row = example if isinstance(example, dict) else {}
        where = f"{Path(file).name}, example {number}"
        samples = _count(row, "samples", 1, _MOST_SAMPLES, where)
        counts.append((_count(row, "passed", 0, samples, where), samples))
    return counts


def _read_json(file: str) -> Any:
    """Reads a plain file; a device or a pipe might never end."""
    path, hint = Path(file), "Give a share such as 0.35, or the file `lowmem-rl probe` wrote."
    try:
        if not path.is_file():
            raise FileNotFoundError(ENOENT, "no plain file of that name")
        with path.open("rb") as stream:
            text = stream.read(LARGEST_PROBE_BYTES + 1)
        if len(text) > LARGEST_PROBE_BYTES:
            raise OSError(EFBIG, "larger than any probe's file")
        return json.loads(text)
    except OSError as error:
        what = f"is neither a number nor a file: {error.strerror or error}"
        raise ConfigError(f"--pass-rate {file[:80]!r} {what}.", hint=hint) from error
    except (ValueError, RecursionError) as error:
        what = f"cannot be read as JSON: {error}"
        raise ConfigError(f"--pass-rate {file[:80]!r} {what}.", hint=hint) from error


def _count(row: dict[str, Any], field: str, least: int, most: int, where: str) -> int:
    value = row.get(field)
    if type(value) is int and least <= value <= most:  # True is an int too
        return value
    raise ConfigError(
        f"{where}: {field} is {str(value)[:40]!r}, not an integer from {least} to {most}.",
        hint="`passed` counts the right ones of `samples` completions; probe again.",
    )
