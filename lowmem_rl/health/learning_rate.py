"""Learning rate too high: accuracy breaks down while entropy, gradient or KL jumps, or wears off. Too low: no move."""

from collections.abc import Sequence
from statistics import fmean, median

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory, numbers
from lowmem_rl.health.kl import FAR_NATS, distance
from lowmem_rl.health.significance import SOLVED, SURELY_MOVED, WINDOW, confidence
from lowmem_rl.stats import errors_between, shift
from lowmem_rl.storage.run_dir import Row

HEAD = 2
"""Rounds that a warm-up leaves untouched whatever the rate."""
FEW = 4
"""Rounds that show a breakdown at once where they hold prompts enough."""
FALLEN = 0.5
ENTROPY_JUMP, ENTROPY_JUMP_NATS = 2.0, 0.2
GRADIENT_JUMP = 10.0
ENTROPY_LEAP, ENTROPY_LEAP_NATS, HARDLY = 5.0, 1.0, 1.0
"""So much entropy says it nearly alone, where few prompts a step leave accuracy unsure."""

WORN, WORN_ERRORS = 0.12, 2.5
"""Accuracy that was there already and is lost; the best window is chosen afterwards, so that chance has many tries."""

LONG, PART = 60, 20
SOON, UNMOVED_NATS = 15, 1e-6
"""Rounds after which a policy that learns is further from its base, in nats a token: 9e-5 stand in the log of a full
model at 5e-7 in its warm-up (open-r1 #257)."""
STILL_SHARE, STILL_ERRORS = 0.15, 2.0
"""Of what a metric was: twenty rounds of eight prompts know an accuracy of 0.4 no better than within a tenth."""
FEWEST_INFORMATIVE = 0.2


def look_too_high(record: RunHistory) -> HealthFinding | None:
    rounds, now = record.rounds, record.rounds[HEAD:][-WINDOW:]
    # A collapse is sudden: what was before it stands at the very start, or a window ago.
    pairs = [
        (rounds[:HEAD], now),
        (rounds[-2 * WINDOW : -WINDOW], now),
        (rounds[-WINDOW - FEW : -FEW], rounds[-FEW:]),
    ]
    found = (_collapse(record, before, after) for before, after in pairs if before)
    return next(filter(None, found), None) or _wear(record)


def _collapse(record: RunHistory, before: tuple[Row, ...], now: tuple[Row, ...]) -> HealthFinding | None:
    was, is_now = _mean(before, "accuracy"), _mean(now, "accuracy")
    if was is None or is_now is None or is_now > FALLEN * was:
        return None
    per_round = record.prompts_per_round
    errors = errors_between(was, len(before) * per_round, is_now, len(now) * per_round)
    jump = _jump(before, now)
    enough = HARDLY if _leaps(before, now) else SURELY_MOVED
    if errors > -enough or not jump:
        return None
    return HealthFinding(
        "critical",
        f"Accuracy broke down from {was:.2f} to {is_now:.2f} while {jump}.",
        f"Lower optimizer.learning_rate to {record.config.optimizer.learning_rate / 10:g} and start before it.",
        "learning_rate_too_high",
        (now[0]["step"], record.step),
        confidence(errors, 0.85),
    )


def _wear(record: RunHistory) -> HealthFinding | None:
    """Finds accuracy that was reached and is lost again, with nothing leaping; another ill, where reward rises."""
    rounds = [row for row in record.rounds if isinstance(row.get("accuracy"), float)]
    values = [row["accuracy"] for row in rounds]
    starts = range(len(values) - 2 * WINDOW + 1)
    if not starts:
        return None
    best = max(starts, key=lambda start: sum(values[start : start + WINDOW]))
    change = shift(values[best : best + WINDOW], values[-WINDOW:])
    prompts = WINDOW * record.prompts_per_round
    errors = errors_between(change.before, prompts, change.after, prompts)
    paid, paid_now = (_mean(part, "reward") or 0.0 for part in (rounds[best : best + WINDOW], rounds[-WINDOW:]))
    if change.change > -WORN or change.z > -SURELY_MOVED or errors > -WORN_ERRORS or paid_now > paid:
        return None
    broke_down = change.after <= FALLEN * change.before and errors <= -SURELY_MOVED
    since = f"{change.before:.2f} in the {WINDOW} rounds from step {rounds[best]['step']} on"
    return HealthFinding(
        "critical" if broke_down else "warning",
        f"Accuracy {'broke down' if broke_down else 'wears off'}: {since}, now {change.after:.2f}.",
        f"Lower optimizer.learning_rate to {record.config.optimizer.learning_rate / 3:.1g}, or let it fall: "
        "optimizer.schedule=cosine.",
        "learning_rate_too_high",
        (rounds[best + WINDOW]["step"], record.step),
        confidence(errors, 0.6),
    )


def _jump(before: tuple[Row, ...], now: tuple[Row, ...]) -> str:
    """Returns what leapt, in words, or "" where nothing did."""
    was, is_now = _mean(before, "entropy"), _mean(now, "entropy")
    if was is not None and is_now is not None and is_now >= max(ENTROPY_JUMP * was, was + ENTROPY_JUMP_NATS):
        return f"entropy rose from {was:.2f} to {is_now:.2f} nats"
    norms, norms_now = list(numbers(before, "grad_norm")), list(numbers(now, "grad_norm"))
    if norms and norms_now and median(norms_now) >= GRADIENT_JUMP * median(norms) > 0:
        return f"the gradient's norm rose from {median(norms):.2g} to {median(norms_now):.2g}"
    kl = list(numbers(now, "kl"))
    return f"the policy went {median(kl):.1f} nats away from the base model" if kl and median(kl) >= FAR_NATS else ""


def _leaps(before: tuple[Row, ...], now: tuple[Row, ...]) -> bool:
    was, is_now = _mean(before, "entropy"), _mean(now, "entropy")
    return was is not None and is_now is not None and is_now >= max(ENTROPY_LEAP * was, was + ENTROPY_LEAP_NATS)


def _mean(rows: Sequence[Row], name: str) -> float | None:
    values = list(numbers(rows, name))
    return fmean(values) if values else None


def look_too_low(record: RunHistory) -> HealthFinding | None:
    return _unmoved(record) or (_still(record) if len(record.rounds) >= LONG else None)


def _unmoved(record: RunHistory) -> HealthFinding | None:
    """Finds a policy that is its base model still; steps of a warm-up, and those that were skipped, do not count."""
    measured = distance(record)
    warmup = record.config.optimizer.warmup_steps
    rounds = [row for row in record.rounds if row["step"] > warmup and not row.get("optimizer_skipped")]
    if measured is None or len(rounds) < SOON or (kl := measured[0]) >= UNMOVED_NATS or measured[1][0] < SOON:
        return None
    if fmean(record.last("informative_share", SOON)) < FEWEST_INFORMATIVE:
        return None
    rate = record.config.optimizer.learning_rate
    return HealthFinding(
        "warning",
        f"After {record.step} steps with a signal the policy is the base model still: {kl:.0e} nats a token from it.",
        f"Raise optimizer.learning_rate (now {rate:g}); 5e-6 is where adapters usually begin to learn.",
        "learning_rate_too_low",
        (rounds[0]["step"], record.step),
        0.9,
    )


def _still(record: RunHistory) -> HealthFinding | None:
    accuracy = fmean(record.last("accuracy", PART))
    informative = fmean(record.last("informative_share", LONG))
    moves = ("accuracy", "reward", "entropy", "completion_tokens")
    if accuracy >= SOLVED or informative < FEWEST_INFORMATIVE or not all(_is_still(record, name) for name in moves):
        return None
    frozen = _greedy_is_frozen(record)
    rate = record.config.optimizer.learning_rate
    return HealthFinding(
        "warning" if frozen else "note",
        f"After {record.step} steps with a signal neither reward, accuracy, entropy nor length has moved.",
        f"Raise optimizer.learning_rate to {3 * rate:.1g} (now {rate:g}).",
        "learning_rate_too_low",
        (record.rounds[0]["step"], record.step),
        0.8 if frozen else 0.6,
    )


def _is_still(record: RunHistory, name: str) -> bool:
    moved = shift(record.first(name, PART), record.last(name, PART))
    return abs(moved.z) < STILL_ERRORS and abs(moved.change) <= STILL_SHARE * abs(moved.before)


def _greedy_is_frozen(record: RunHistory) -> bool:
    """Says whether evaluations of the same examples came out the same to the digit."""
    told: dict[int, set[tuple[float, float]]] = {}
    for evaluation in record.evaluations[1:]:
        told.setdefault(evaluation.num_examples, set()).add((evaluation.pass_at_1, evaluation.completion_tokens))
    return len(record.evaluations) > 2 and any(len(outcomes) == 1 for outcomes in told.values())


MOVES = ("accuracy", "informative_share", "reward", "entropy", "completion_tokens")
TOO_HIGH = Detector("learning_rate_too_high", Requirements(HEAD + 5, ("accuracy",), alike=True), look_too_high)
TOO_LOW = Detector("learning_rate_too_low", Requirements(SOON, MOVES), look_too_low)
