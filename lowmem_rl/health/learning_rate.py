"""Learning rate too high: accuracy breaks down while entropy, gradient or KL jumps, or slowly. Too low: no change."""

from collections.abc import Sequence
from statistics import fmean, median

from lowmem_rl.health.detector import Detector, HealthFinding, Requirements
from lowmem_rl.health.history import RunHistory, numbers
from lowmem_rl.health.kl import FAR_NATS, distance
from lowmem_rl.health.significance import SOLVED, SURELY_MOVED, WINDOW, confidence
from lowmem_rl.stats import errors_between, shift
from lowmem_rl.storage.run_dir import Row

_HIGH, _LOW = "learning_rate_too_high", "learning_rate_too_low"
_HEAD = 2
"""Rounds that a warm-up leaves untouched at any rate."""
_FEW = 4
"""Rounds that show a breakdown at once if they hold enough prompts."""
_FALLEN = 0.5
_ENTROPY_JUMP, _ENTROPY_JUMP_NATS = 2.0, 0.2
_GRADIENT_JUMP = 10.0
_ENTROPY_LEAP, _ENTROPY_LEAP_NATS, _HARDLY = 5.0, 1.0, 1.0
"""So much entropy is nearly enough evidence by itself, when few prompts a step leave accuracy unsure."""

_WORN, _WORN_ERRORS = 0.12, 2.5
"""Accuracy that was reached and is lost; the best window is chosen afterwards, so that chance has many tries."""

_LONG, _PART = 60, 20
_SOON, _UNMOVED_NATS = 15, 1e-6
"""Rounds after which a policy that learns is further from its base, in nats a token: 9e-5 in the log of a full model
at 5e-7 in its warm-up (open-r1 #257)."""
_STILL_SHARE, _STILL_ERRORS = 0.15, 2.0
"""Of what a metric was: twenty rounds of eight prompts know an accuracy of 0.4 no better than within a tenth."""
_FEWEST_INFORMATIVE = 0.2


def detect_too_high(history: RunHistory) -> HealthFinding | None:
    rounds, now = history.rounds, history.rounds[_HEAD:][-WINDOW:]
    # A collapse is sudden: the time before it is the very start, or a window ago.
    pairs = [
        (rounds[:_HEAD], now),
        (rounds[-2 * WINDOW : -WINDOW], now),
        (rounds[-WINDOW - _FEW : -_FEW], rounds[-_FEW:]),
    ]
    found = (_collapse(history, before, after) for before, after in pairs if before)
    return next(filter(None, found), None) or _slow_loss(history)


def _collapse(history: RunHistory, before: tuple[Row, ...], now: tuple[Row, ...]) -> HealthFinding | None:
    was, is_now = _mean(before, "accuracy"), _mean(now, "accuracy")
    if was is None or is_now is None or is_now > _FALLEN * was:
        return None
    per_round = history.prompts_per_round
    errors = errors_between(was, len(before) * per_round, is_now, len(now) * per_round)
    jump = _jump(before, now)
    enough = _HARDLY if _entropy_rose(before, now, _ENTROPY_LEAP, _ENTROPY_LEAP_NATS) else SURELY_MOVED
    if errors > -enough or not jump:
        return None
    return HealthFinding(
        "critical",
        f"Accuracy broke down from {was:.2f} to {is_now:.2f} while {jump}.",
        f"Lower optimizer.learning_rate to {history.config.optimizer.learning_rate / 10:g} and start before it.",
        _HIGH,
        (now[0]["step"], history.step),
        confidence(errors, 0.85),
    )


def _slow_loss(history: RunHistory) -> HealthFinding | None:
    """Detects loss of accuracy without a jump. Not reported if reward still rises: that is reward hacking."""
    rounds = [row for row in history.rounds if isinstance(row.get("accuracy"), float)]
    values = [row["accuracy"] for row in rounds]
    starts = range(len(values) - 2 * WINDOW + 1)
    if not starts:
        return None
    best = max(starts, key=lambda start: sum(values[start : start + WINDOW]))
    change = shift(values[best : best + WINDOW], values[-WINDOW:])
    prompts = WINDOW * history.prompts_per_round
    errors = errors_between(change.before, prompts, change.after, prompts)
    reward, reward_now = (_mean(part, "reward") or 0.0 for part in (rounds[best : best + WINDOW], rounds[-WINDOW:]))
    if change.change > -_WORN or change.z > -SURELY_MOVED or errors > -_WORN_ERRORS or reward_now > reward:
        return None
    broke_down = change.after <= _FALLEN * change.before and errors <= -SURELY_MOVED
    since = f"{change.before:.2f} in the {WINDOW} rounds from step {rounds[best]['step']} on"
    return HealthFinding(
        "critical" if broke_down else "warning",
        f"Accuracy {'broke down' if broke_down else 'wears off'}: {since}, now {change.after:.2f}.",
        f"Lower optimizer.learning_rate to {history.config.optimizer.learning_rate / 3:.1g}, or let it fall: "
        "optimizer.schedule=cosine.",
        _HIGH,
        (rounds[best + WINDOW]["step"], history.step),
        confidence(errors, 0.6),
    )


def _jump(before: tuple[Row, ...], now: tuple[Row, ...]) -> str:
    """Returns what jumped, in words, or "" if nothing did."""
    if _entropy_rose(before, now, _ENTROPY_JUMP, _ENTROPY_JUMP_NATS):
        return f"entropy rose from {_mean(before, 'entropy'):.2f} to {_mean(now, 'entropy'):.2f} nats"
    norms, norms_now = list(numbers(before, "grad_norm")), list(numbers(now, "grad_norm"))
    if norms and norms_now and median(norms_now) >= _GRADIENT_JUMP * median(norms) > 0:
        return f"the gradient norm rose from {median(norms):.2g} to {median(norms_now):.2g}"
    kl = list(numbers(now, "kl"))
    return f"the policy went {median(kl):.1f} nats away from the base model" if kl and median(kl) >= FAR_NATS else ""


def _entropy_rose(before: tuple[Row, ...], now: tuple[Row, ...], factor: float, nats: float) -> bool:
    was, is_now = _mean(before, "entropy"), _mean(now, "entropy")
    return was is not None and is_now is not None and is_now >= max(factor * was, was + nats)


def _mean(rows: Sequence[Row], name: str) -> float | None:
    values = list(numbers(rows, name))
    return fmean(values) if values else None


def detect_too_low(history: RunHistory) -> HealthFinding | None:
    return _unmoved(history) or (_still(history) if len(history.rounds) >= _LONG else None)


def _unmoved(history: RunHistory) -> HealthFinding | None:
    """Detects a policy that is still its base model; steps of a warm-up and skipped steps do not count."""
    measured = distance(history)
    warmup = history.config.optimizer.warmup_steps
    rounds = [row for row in history.rounds if row["step"] > warmup and not row.get("optimizer_skipped")]
    if measured is None or len(rounds) < _SOON or (kl := measured[0]) >= _UNMOVED_NATS or measured[1][0] < _SOON:
        return None
    if fmean(history.last("informative_share", _SOON)) < _FEWEST_INFORMATIVE:
        return None
    rate = history.config.optimizer.learning_rate
    return HealthFinding(
        "warning",
        f"After {history.step} steps with a signal the policy is still the base model: {kl:.0e} nats a token from it.",
        f"Raise optimizer.learning_rate (now {rate:g}); 5e-6 is where adapters usually begin to learn.",
        _LOW,
        (rounds[0]["step"], history.step),
        0.9,
    )


def _still(history: RunHistory) -> HealthFinding | None:
    """Detects metrics that do not move over `_LONG` rounds."""
    accuracy = fmean(history.last("accuracy", _PART))
    informative = fmean(history.last("informative_share", _LONG))
    if accuracy >= SOLVED or informative < _FEWEST_INFORMATIVE:
        return None
    for name in ("accuracy", "reward", "entropy", "completion_tokens"):
        moved = shift(history.first(name, _PART), history.last(name, _PART))
        if abs(moved.z) >= _STILL_ERRORS or abs(moved.change) > _STILL_SHARE * abs(moved.before):
            return None
    frozen = _greedy_is_frozen(history)
    rate = history.config.optimizer.learning_rate
    return HealthFinding(
        "warning" if frozen else "note",
        f"After {history.step} steps with a signal neither reward, accuracy, entropy nor length has moved.",
        f"Raise optimizer.learning_rate to {3 * rate:.1g} (now {rate:g}).",
        _LOW,
        (history.rounds[0]["step"], history.step),
        0.8 if frozen else 0.6,
    )


def _greedy_is_frozen(history: RunHistory) -> bool:
    """Returns whether evaluations of the same examples are equal to the last digit."""
    outcomes: dict[int, set[tuple[float, float]]] = {}
    for evaluation in history.evaluations[1:]:
        outcomes.setdefault(evaluation.num_examples, set()).add((evaluation.pass_at_1, evaluation.completion_tokens))
    return len(history.evaluations) > 2 and any(len(found) == 1 for found in outcomes.values())


TOO_HIGH = Detector(_HIGH, Requirements(_HEAD + 5, ("accuracy",), comparable=True, settled=True), detect_too_high)
TOO_LOW = Detector(
    _LOW,
    Requirements(_SOON, ("accuracy", "informative_share", "reward", "entropy", "completion_tokens"), settled=True),
    detect_too_low,
)
