"""Metric rows as text, the same in the live display and in plain lines."""

from collections.abc import Iterator, Sequence
from statistics import fmean

from lowmem_rl.stats import Interval
from lowmem_rl.storage.run_dir import Row
from lowmem_rl.units import GIB

_BARS = "▁▂▃▄▅▆▇█"


def figures(row: Row) -> Iterator[tuple[str, str]]:
    """Yields label and value of the metrics in a step's row, in reading order."""
    yield "reward", _number(row.get("reward"), "6.3f")
    for key in row:
        if key.startswith("scores/"):
            yield key.removeprefix("scores/"), _number(row[key], "6.3f")
    yield "accuracy", _share(row.get("accuracy"))
    yield "informative groups", _share(row.get("informative_share"))
    yield "completion tokens", _number(row.get("completion_tokens"), "6.1f")
    yield "truncated", _share(row.get("truncated_share"))
    if row.get("late_verdicts"):
        yield "late verdicts", str(row["late_verdicts"])
    if row.get("kl") is not None:
        yield "KL", _number(row["kl"], "6.4f")
    if row.get("optimizer_skipped"):
        yield "skipped", f"overflow, loss scale now {row['loss_scale']:g}"
    yield "tokens/s", _number(row.get("completion_tokens_per_s"), "6.0f")
    yield "memory", f"{row['peak_bytes'] / GIB:6.2f} GiB"


def plain_line(row: Row, num_steps: int, seconds_left: float) -> str:
    """Returns one step as one line."""
    parts = "  ".join(f"{label} {value.strip()}" for label, value in figures(row))
    return f"step {row['step']}/{num_steps}  {parts}  {clock(seconds_left)} left"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Draws values as a row of bars between their least and greatest; a long series is averaged into `width` bars."""
    if not values:
        return ""
    size = -(-len(values) // width)
    means = [fmean(values[i : i + size]) for i in range(0, len(values), size)]
    low, high = min(means), max(means)
    scale = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round((value - low) * scale)] for value in means)


def clock(seconds: float) -> str:
    """Returns a time span as 1:02:03 or 2:03."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def share_text(share: float, interval: Interval) -> str:
    """Returns a share with its interval: `0.512 [0.469, 0.555]`."""
    return f"{share:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _number(value: float | None, form: str) -> str:
    return "     -" if value is None else format(value, form)


def _share(value: float | None) -> str:
    return "     -" if value is None else f"{100 * value:5.1f} %"
