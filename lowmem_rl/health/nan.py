"""NaN: loss or gradient is not a finite number (null in metric rows); steps that float16 skips do not count."""

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory, is_only_skipped, numbers

NAME = "not_a_number"
_WATCHED = ("loss", "grad_norm", "reward")


def detect(history: RunHistory) -> HealthFinding | None:
    row = history.rows[-1]
    watched = [name for name in _WATCHED if name in row and not (name == "grad_norm" and is_only_skipped(row))]
    broken = [name for name in watched if not list(numbers([row], name))]
    if not broken:
        return None
    scaled = ""
    if "loss" in row and row["loss"] is not None and row.get("optimizer_skipped"):
        # The row has the scale of the next step, which the skip has halved.
        scaled = f": it overflows float16 though the loss is scaled by no more than {2 * row['loss_scale']:g}"
    return HealthFinding(
        "critical",
        f"{' and '.join(broken)} at step {history.step} is not a finite number{scaled}.",
        _fix(history, broken),
        NAME,
        (history.step, history.step),
        0.99,
    )


def _fix(history: RunHistory, broken: list[str]) -> str:
    if broken == ["reward"]:
        return "Look for a score that is too large for float32 once it is weighted (rewards)."
    if broken == ["grad_norm"] and history.rows[-1].get("optimizer_skipped"):
        return "It did not change any weight: the model may need bfloat16 or float32 (model.dtype)."
    return f"Lower optimizer.learning_rate to {history.config.optimizer.learning_rate / 10:g} and start before it."


DETECTOR = Detector(NAME, Requirements(), detect)
