"""A record of the first minutes for a person: a line a part, then its figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

GIB = 2**30
Found = Mapping[str, Any]


def line_of(part: Found) -> str:
    """Returns a part's line; what failed in its first two lines."""
    reason = " ".join(part.get("reason", "").splitlines()[:2])
    return f"{part['name']:<22} {part['status']:<8} {part['seconds']:>6.1f} s  {reason}".rstrip()


def lines_of(record: Found) -> Iterator[str]:
    """Yields the figures of all parts that are done."""
    machine = record["machine"]
    yield f"{machine['gpu']}, driver {machine['driver']}, {record['date']}, {record['seconds']:.0f} s"
    for part in record["parts"]:
        kind = part["name"].partition(",")[0]
        if part["status"] == "done" and kind in SHOWN:
            yield ""
            yield part["name"]
            yield from (f"  {line}" for line in SHOWN[kind](part["found"]))


def _run(found: Found) -> Iterator[str]:
    resumed, steps = found["resumed"], found["step_seconds"]
    told = "exact" if resumed["exact"] else f"adapter {resumed['adapter_distance']:.1e} off: {resumed['differences']}"
    yield f"rewards {_numbers(found['rewards'])}, seconds a step {_numbers(steps)}"
    yield f"sampled by {found['sampling']['engine']}: {found['sampling']['reason']}"
    yield f"killed and resumed: {told}"


def _memory(found: Found) -> Iterator[str]:
    kinds = next(iter(found["phases"].values()))
    yield f"{'GiB':<12}" + "".join(f"{f'{kind}: predicted, measured':>32}" for kind in kinds)
    for phase, sizes in found["phases"].items():
        yield f"{phase:<12}" + "".join(f"{_beside(size):>32}" for size in sizes.values())


def _beside(size: Found) -> str:
    error = "" if size["error"] is None else f"{size['error']:+.0%}"
    return f"{size['predicted'] / GIB:.2f} {size['measured'] / GIB:.2f} {error:>6}"


def _decode(found: Found) -> Iterator[str]:
    ways = next(iter(found["rows"].values()))
    yield f"{'rows':<12}" + "".join(f"{f'{way}: ms a token, ratio':>32}" for way in ways)
    for rows, times in found["rows"].items():
        yield f"{rows:<12}" + "".join(f"{_time(time):>32}" for time in times.values())


def _time(time: Found) -> str:
    spread = f"{time['least_ratio']:.2f} to {time['most_ratio']:.2f}"
    return f"{time['ms']:.2f}  {time['ratio']:.2f} ({spread})"


def _step(found: Found) -> Iterator[str]:
    for name, seconds in found["seconds"].items():
        yield f"{name:<10}" + ", ".join(f"{phase} {spent:.2f} s" for phase, spent in seconds.items())
    ratio = found["ratio"]
    yield f"Unsloth takes {ratio['median']:.2f} times as long ({ratio['low']:.2f} to {ratio['high']:.2f})"
    yield f"first gradients {found['gradient_error']:.1e} apart"


def _shortage(found: Found) -> Iterator[str]:
    for row in found["recoveries"]:
        yield f"step {row['step']}, {row['phase']}: {row['rows']} rows, then {row['next_rows']}"


def _card(found: Found) -> Iterator[str]:
    yield f"{found['name']}, capability {found['capability']}, CUDA {found['cuda']}"
    yield ", ".join(f"{name} {value}" for name, value in found["clocks"].items())


def _numbers(values: list[float]) -> str:
    return " ".join(f"{value:.2f}" for value in values)


SHOWN: Mapping[str, Callable[[Found], Iterator[str]]] = {
    "does it run": _run,
    "memory": _memory,
    "decode": _decode,
    "step": _step,
    "out of memory": _shortage,
    "card": _card,
}
