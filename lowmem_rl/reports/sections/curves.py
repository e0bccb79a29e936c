"""A run as curves: by step, by tokens, by time."""

from dataclasses import asdict, dataclass
from typing import Any

from lowmem_rl.reports.run_record import RunRecord
from lowmem_rl.storage.run_reader import number


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A run after a step; `seconds` are those of its steps, without evaluations."""

    step: int
    tokens: int | None
    seconds: float
    reward: float | None
    accuracy: float | None
    """Of the sampled completions, in any format."""
    pass_at_1: float | None
    """Of the held-out evaluation at this step, if there was one."""
    strict_pass_at_1: float | None

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return asdict(self)


def learning_curve(record: RunRecord) -> list[CurvePoint]:
    """Returns a point for each step, and one for step 0 if the base model was evaluated."""
    evaluated = {evaluation.step: evaluation.result for evaluation in record.evaluations}
    start = [{"step": 0, "num_tokens": 0}] if 0 in evaluated else []
    points, seconds = [], 0.0
    for row in [*start, *record.metrics]:
        seconds += number(row, "step_s") or 0.0
        tokens, result = number(row, "num_tokens"), evaluated.get(row["step"], {})
        points.append(
            CurvePoint(
                step=row["step"],
                tokens=None if tokens is None else round(tokens),
                seconds=seconds,
                reward=number(row, "reward"),
                accuracy=number(row, "accuracy"),
                pass_at_1=number(result, "pass_at_1"),
                strict_pass_at_1=number(result, "strict_pass_at_1"),
            )
        )
    return points
