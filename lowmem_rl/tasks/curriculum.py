"""The order in which a run sees its examples: easy ones first, all kinds mixed, or those with a learning signal.

A fixed order is a pure function of examples, difficulties and seed. An adaptive one is a pure function of the run's
outcomes so far: `SignalWindow.draw` chooses the next prompts from `PassCounts`, and `SignalWindow.note` adds a step's
outcomes to them. A resumed run replays its own record (`replay`) and continues exactly.

A group whose completions are all right or all wrong has no gradient, so a prompt is useful if its pass rate is in
between: DAPO (arXiv 2503.14476) samples until it finds such prompts, the window chooses them before sampling.
"""

import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from lowmem_rl.config.places import without_folder
from lowmem_rl.errors import RunDirError, TaskError
from lowmem_rl.example import Example
from lowmem_rl.storage.run_dir import read_rows

By = Literal["level", "pass_rate", "answer_length"]
How = Literal["easy_to_hard", "mixed"]

STRETCH = 32
"""Examples among which all kinds are mixed: four steps of eight prompts."""

Rates = Mapping[str, tuple[float, float]]
"""(right, sampled) completions by example id; a missing id is unknown."""


def arrange(examples: Sequence[Example], by: By, how: How, seed: int, rates: Rates | None = None) -> list[Example]:
    """Returns the examples in the order of a curriculum. Raises `TaskError` if their difficulties are unknown."""
    hardness = difficulties(examples, by, rates)
    rng = random.Random(seed)
    shuffled = rng.sample(examples, len(examples))
    ranked = sorted(shuffled, key=lambda example: hardness[example.id])  # stable: equals stay shuffled
    if how == "easy_to_hard":
        return ranked
    count = max(1, len(ranked) // STRETCH)
    stretches = [ranked[first::count] for first in range(count)]  # each with easy and hard ones as in the whole
    return [example for stretch in stretches for example in rng.sample(stretch, len(stretch))]


def difficulties(examples: Sequence[Example], by: By, rates: Rates | None = None) -> dict[str, float]:
    """Returns the difficulty of each example by its id; higher is harder. Raises `TaskError` if it is unknown."""
    if by == "answer_length":
        return {example.id: float(len(example.answer)) for example in examples}
    if by == "level":
        unknown = next((example for example in examples if example.level is None), None)
        if unknown:
            what = f"Example {unknown.id!r} has no level."
            raise TaskError(what, hint="Order by pass_rate or answer_length, or choose task.levels.")
        return {example.id: float(example.level or 0) for example in examples}
    known = rates or {}
    if not any(example.id in known for example in examples):
        raise TaskError(
            "The pass rates are of other examples: none of this run's is among them.",
            hint="Probe this task with this seed: lowmem-rl probe --task NAME --seed N",
        )
    return {example.id: 1 - _smoothed(*known.get(example.id, (0.0, 0.0))) for example in examples}


def _smoothed(right: float, sampled: float) -> float:
    """Returns the mean pass rate under Jeffreys' prior: never 0 or 1, one half if nothing is known."""
    return (right + 0.5) / (sampled + 1)


def read_rates(path: Path, task: str) -> dict[str, tuple[float, float]]:
    """Returns the counts of a file that `lowmem-rl probe` wrote. Raises `TaskError` for any other file or task."""
    try:
        probe = json.loads(path.read_text(encoding="utf-8"))
        probed, rows = str(probe["task"]), probe["examples"]
        rates = {str(row["example_id"]): (float(row["passed"]), float(row["samples"])) for row in rows}
        if not all(0 <= right <= sampled > 0 for right, sampled in rates.values()):
            raise ValueError("its counts are not 0 <= passed <= samples")
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        # An OSError's own text would name the path again.
        reason = f"it has no {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        raise TaskError(
            f"{path} holds no pass rates: {str(reason).rstrip('.')}.",
            hint=f"Write it with: lowmem-rl probe --task {task} --out FILE",
        ) from error
    if without_folder(probed) != without_folder(task):
        raise TaskError(
            f"{path} holds pass rates of task {probed!r}, and this run learns {task!r}.",
            hint=f"Write another with: lowmem-rl probe --task {task} --out FILE",
        )
    return rates


@dataclass(frozen=True, slots=True)
class PassCounts:
    """Right and sampled completions of one example, counted at `step`."""

    right: float
    sampled: float
    step: int


@dataclass(frozen=True, slots=True)
class RolloutOutcome:
    """One step of a run: its examples, and how many completions of each were right of how many."""

    step: int
    examples: tuple[str, ...]
    right: tuple[int, ...]
    sampled: int

    def to_json(self) -> dict[str, Any]:
        """Returns one row of the run's record."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SignalWindow:
    """Chooses prompts that the policy gets right sometimes, and tries the others again from time to time.

    Counts of `half_life_steps` ago count half. So an old certainty decays towards one half, and a prompt that was too
    easy or too hard comes back into the window when the policy may have changed: after eight right of eight, in about
    two and a half half-lives.
    """

    low: float = 0.2
    high: float = 0.8
    half_life_steps: float = 50.0
    seed: int = 0

    def draw(self, pool: Sequence[str], seen: Mapping[str, PassCounts], step: int, count: int) -> list[str]:
        """Returns the ids for one step: within the window those that waited longest, then the nearest outside."""

        def key(example_id: str) -> tuple[float, int, bytes]:
            rate = self.rate(seen.get(example_id), step)
            last = seen[example_id].step if example_id in seen else -1
            tie = blake2b(f"{self.seed}/{step}/{example_id}".encode(), digest_size=8).digest()
            return max(self.low - rate, rate - self.high, 0.0), last, tie

        return sorted(pool, key=key)[:count]

    def rate(self, seen: PassCounts | None, step: int) -> float:
        """Returns the estimated pass rate at `step`."""
        if seen is None:
            return _smoothed(0, 0)
        weight = self._weight(step - seen.step)
        return _smoothed(seen.right * weight, seen.sampled * weight)

    def note(self, seen: Mapping[str, PassCounts], drawn: RolloutOutcome) -> dict[str, PassCounts]:
        """Returns the counts with a step's outcomes added."""
        now = dict(seen)
        for example_id, right in zip(drawn.examples, drawn.right, strict=True):
            old = now.get(example_id, PassCounts(0.0, 0.0, drawn.step))
            weight = self._weight(drawn.step - old.step)
            now[example_id] = PassCounts(old.right * weight + right, old.sampled * weight + drawn.sampled, drawn.step)
        return now

    def replay(self, rows: Iterable[RolloutOutcome], rates: Rates | None = None) -> dict[str, PassCounts]:
        """Returns the counts after a run's recorded steps, starting from a probe's."""
        # Step -1: measured, but not yet sampled in this run.
        seen = {example_id: PassCounts(right, sampled, -1) for example_id, (right, sampled) in (rates or {}).items()}
        for drawn in rows:
            seen = self.note(seen, drawn)
        return seen

    def _weight(self, age_steps: int) -> float:
        return float(0.5 ** (age_steps / self.half_life_steps))


def read_order(path: Path) -> list[RolloutOutcome]:
    """Returns the steps of a run's record without a torn last line. Raises `RunDirError` for any other damage."""
    steps = []
    for number, row in enumerate(read_rows(path), start=1):
        try:
            right = dict(zip(map(str, row["examples"]), map(int, row["right"]), strict=True))
            steps.append(RolloutOutcome(int(row["step"]), tuple(right), tuple(right.values()), int(row["sampled"])))
        except (ValueError, LookupError, TypeError, OverflowError) as error:
            what = f"{path}, line {number}, is not a step: {error}."
            raise RunDirError(what, hint="Resume from an earlier checkpoint, or start the run again.") from error
    return steps
