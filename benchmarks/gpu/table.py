"""A record of the first minutes as text: one line per part, then its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from lowmem_rl.units import GIB

Found = Mapping[str, Any]


def line_of(part: Found) -> str:
    """Returns a part's line, with the first two lines of its reason."""
    reason = " ".join(part.get("reason", "").splitlines()[:2])
    return f"{part['name']:<22} {part['status']:<11} {part['seconds']:>6.1f} s  {reason}".rstrip()


def lines_of(record: Found) -> Iterator[str]:
    """Yields the figures of all parts that have any."""
    machine = record["machine"]
    yield f"{machine['gpu']}, driver {machine['driver']}, {record['date']}, {record['seconds']:.0f} s"
    for part in record["parts"]:
        kind = part["name"].partition(",")[0]
        if "found" in part and kind in SHOWN:
            yield ""
            yield part["name"]
            yield from (f"  {line}" for line in _figures(part, SHOWN[kind]))


def _figures(part: Found, shown: Callable[[Found], Iterator[str]]) -> Iterator[str]:
    """Yields a part's lines. If a figure cannot be shown, the record has it, and the table continues."""
    try:
        yield from shown(part["found"])
    except (LookupError, TypeError, ValueError) as error:
        yield f"The rest is only in the record ({type(error).__name__}: {error})."
    for place in part.get("not_finite", ()):
        yield f"not finite: {place}"


def _run(found: Found) -> Iterator[str]:
    yield f"rewards {_numbers(found['rewards'])}, seconds a step {_numbers(found['step_seconds'])}"
    yield f"sampled by {found['sampling']['engine']}: {found['sampling']['reason']}"
    resumed = found["resumed"]
    off = f"adapter {_number(resumed['adapter_distance'], '.1e')} off: {resumed['differences']}"
    yield f"killed and resumed: {'exact' if resumed['exact'] else off}"


def _memory(found: Found) -> Iterator[str]:
    yield from _grid("GiB", "predicted, measured", found["phases"], _pair)


def _pair(size: Found) -> str:
    predicted, measured = (_number(size[name] / GIB) for name in ("predicted", "measured"))
    return f"{predicted} {measured} {_number(size['error'], '+.0%'):>6}"


def _decode(found: Found) -> Iterator[str]:
    yield from _grid("rows", "ms a token, ratio", found["rows"], _time)
    yield from (f"{name} left out: {reason}" for name, reason in found["left_out"].items())


def _time(time: Found) -> str:
    spread = f"{_number(time['least_ratio'])} to {_number(time['most_ratio'])}"
    return f"{_number(time['ms'])}  {_number(time['ratio'])} ({spread})"


def _grid(corner: str, title: str, rows: Mapping[str, Found], cell: Callable[[Found], str]) -> Iterator[str]:
    """Yields a line for each row, with all columns that any row has."""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    yield f"{corner:<12}" + "".join(f"{f'{column}: {title}':>32}" for column in columns)
    for name, row in rows.items():
        yield f"{name:<12}" + "".join(f"{cell(row[column]) if column in row else '-':>32}" for column in columns)


def _step(found: Found) -> Iterator[str]:
    for name, seconds in found["seconds"].items():
        yield f"{name:<10}" + ", ".join(f"{phase} {_number(spent)} s" for phase, spent in seconds.items())
    middle, low, high = (_number(found["ratio"][name]) for name in ("median", "low", "high"))
    yield f"Unsloth takes {middle} times as long ({low} to {high})"
    yield f"error of the first gradients {_number(found['gradient_error'], '.1e')}"


def _shortage(found: Found) -> Iterator[str]:
    for row in found["recoveries"]:
        yield f"step {row['step']}, {row['phase']}: {row['rows']} rows, then {row['next_rows']}"


def _card(found: Found) -> Iterator[str]:
    yield f"{found['name']}, capability {found['capability']}, CUDA {found['cuda']}"
    yield ", ".join(f"{name} {value}" for name, value in found["clocks"].items())


def _numbers(values: Iterable[float | None]) -> str:
    return " ".join(map(_number, values))


def _number(value: float | None, form: str = ".2f") -> str:
    """Returns "-" for a number that is not finite or not measured."""
    return "-" if value is None else format(value, form)


SHOWN: Mapping[str, Callable[[Found], Iterator[str]]] = {
    "does it run": _run,
    "memory": _memory,
    "decode": _decode,
    "step": _step,
    "out of memory": _shortage,
    "card": _card,
}
