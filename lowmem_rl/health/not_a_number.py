"""NaN: loss or gradient is no finite number, which metric rows hold as null."""

from lowmem_rl.health.finding import Finding, Needs, Symptom
from lowmem_rl.health.record import Record, numbers

NAME = "not_a_number"
WATCHED = ("loss", "grad_norm", "reward")


def look(record: Record) -> Finding | None:
    row = record.rows[-1]
    broken = [name for name in WATCHED if name in row and not list(numbers([row], name))]
    if not broken:
        return None
    return Finding(
        NAME,
        "critical",
        (record.step, record.step),
        0.99,
        f"{' and '.join(broken)} at step {record.step} is no finite number.",
        _cure(record, broken),
    )


def _cure(record: Record, broken: list[str]) -> str:
    if broken == ["reward"]:
        return "Look for a score that is too large for float32 once it is weighted (rewards)."
    return f"Lower optimizer.learning_rate to {record.config.optimizer.learning_rate / 10:g} and go on from before it."


SYMPTOM = Symptom(NAME, Needs(), look)
