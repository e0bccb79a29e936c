"""NaN: loss or gradient is no finite number, which metric rows hold as null; float16's skipped steps are none."""

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory, is_only_skipped, numbers
from lowmem_rl.storage.run_dir import Row

NAME = "not_a_number"
WATCHED = ("loss", "grad_norm", "reward")


def detect(record: RunHistory) -> HealthFinding | None:
    row = record.rows[-1]
    watched = [name for name in WATCHED if name in row and not (name == "grad_norm" and is_only_skipped(row))]
    broken = [name for name in watched if not list(numbers([row], name))]
    if not broken:
        return None
    return HealthFinding(
        "critical",
        f"{' and '.join(broken)} at step {record.step} is no finite number{_scaled(row)}.",
        _cure(record, broken),
        NAME,
        (record.step, record.step),
        0.99,
    )


def _scaled(row: Row) -> str:
    if "loss" in row and row["loss"] is not None and row.get("optimizer_skipped"):
        # The row has the scale of the next step, which the skip has halved.
        return f": it overflows float16 though the loss is scaled by no more than {2 * row['loss_scale']:g}"
    return ""


def _cure(record: RunHistory, broken: list[str]) -> str:
    if broken == ["reward"]:
        return "Look for a score that is too large for float32 once it is weighted (rewards)."
    if broken == ["grad_norm"] and record.rows[-1].get("optimizer_skipped"):
        return "No weight has moved by it: the model may need bfloat16 or float32 (model.dtype)."
    return f"Lower optimizer.learning_rate to {record.config.optimizer.learning_rate / 10:g} and go on from before it."


SYMPTOM = Detector(NAME, Requirements(), detect)
