"""Records of `prove` as text: the cards on which a preset was measured, and a line for each measurement."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lowmem_rl.units import GIB
from lowmem_rl_bench.prove.records import of_preset

if TYPE_CHECKING:
    from lowmem_rl_bench.prove.replay import CheckedRecord

_NONE = "none yet"
_WEIGHTS = {"cached": "", "random": ", random weights", "embedded": ", the embedded model in its place"}


def cards_of(records: "Sequence[CheckedRecord]", preset: str) -> str:
    """Returns the cards on which a preset was measured; a record of the embedded model is not one of the preset."""
    found = [one.record for one in of_preset(records, preset)]
    cards = [one.card_label for one in found if one.measured and one.measured.weights != "embedded"]
    return ", ".join(dict.fromkeys(cards)) or _NONE


def measured_lines(records: "Sequence[CheckedRecord]", preset: str) -> Iterator[str]:
    """Yields a line for each record of a preset."""
    found = of_preset(records, preset)
    if not found:
        yield f"measured: {_NONE}; `lowmem-rl prove --preset {preset}` measures it on this machine's card"
    for one in found:
        yield f"measured on {_where(one)}: {'; '.join(_figures(one)) or 'nothing of its step'}"


def _where(checked: "CheckedRecord") -> str:
    record = checked.record
    version, commit = record.machine.versions.get("lowmem-rl"), (record.machine.commit or "")[:10]
    by = f"lowmem-rl {version}" + (f" at {commit}" if commit else "")
    weights = _WEIGHTS[record.measured.weights] if record.measured else ""
    return f"{record.card_label} (driver {record.machine.driver}, {record.date.isoformat()}, {by}{weights})"


def _figures(checked: "CheckedRecord") -> Iterator[str]:
    measured = checked.record.measured
    if measured and measured.memory:
        peak, predicted = measured.memory.measured_bytes / GIB, checked.predicted_bytes / GIB
        yield f"peak {peak:.2f} GiB, predicted {predicted:.2f}"
    if measured and measured.step:
        step = measured.step
        spread = f"{step.ratio.median:.2f} times as long ({step.ratio.low:.2f} to {step.ratio.high:.2f})"
        yield f"{step.ours.median:.2f} s a step, Unsloth's defaults {step.unsloth.median:.2f} s, {spread}"
