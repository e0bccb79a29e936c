"""Does an exported model answer like the trained one: what is compared, and what is accepted.

**Token by token**, if the export holds the weights that were trained. Both models answer the same prompts greedily.
Two computations of one model round differently, so each model first shows its rounding: the log-probabilities of
generation (in batches, with a cache) against those of the same text read whole and alone. Accepted is an export that

- tokenizes every prompt equally,
- gives every answer token by token, or first differs at a tie: its token is among the trained model's likeliest there,
  and less likely by at most twice the larger of the two roundings,
- reads the trained answers with the same log-probabilities: their mean difference is at most `MAX_ROUNDINGS` times the
  trained model's rounding, or what numbers of its format do to a merge.

**In accuracy**, if it holds other weights on purpose (the 16-bit originals under a 4-bit run): the task's grader
counts, item by item. Accepted is an export that is not distinguishably worse, and whose 95 % interval of the difference
ends above -`MAX_ACCURACY_LOSS`: too few items prove nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any, Literal

from lowmem_rl.export.model_answers import Answer
from lowmem_rl.reports.escape import p_text, percent, points
from lowmem_rl.stats import PairedDifference, compare_paired

Kind = Literal["tokens", "accuracy"]

MAX_ROUNDINGS = 5
"""A right merge in float32 differs by 1.4 of the model's own rounding, one scaled by 1.01 by 900 (embedded model, two
x86 cores, 2026-11-20)."""
MIN_ROUNDING = {"float32": 1e-6, "bfloat16": 0.01, "float16": 0.01}
"""In nats, by number format. float32 has no finer steps at log-probabilities of -8 to -16. A 16-bit model that is read
in two ways rounds equally (0.0004 in bfloat16), while its merge rounds every weight again (0.016; embedded model, two
x86 cores, 2026-11-20). float16 is assumed to be no worse."""
MAX_ACCURACY_LOSS = 0.1
"""Share of the items by which an export may be worse at the far end of the interval."""


@dataclass(frozen=True, slots=True)
class ModelAnswers:
    """The prompts (items, tokens) as one model's tokenizer reads them, its answers, and these read again.

    `read_own` (items, tokens, NEAR) are the log-probabilities of its answers' near tokens, read whole and alone.
    """

    prompts: list[list[int]]
    answers: list[Answer]
    read_own: list[list[list[float]]]

    @property
    def distances(self) -> list[float]:
        """How far it is from itself, in nats: one number for each near token of each place."""
        return list(_distances([answer.log_probs for answer in self.answers], self.read_own))


@dataclass(frozen=True, slots=True)
class TokenMismatch:
    """Where an exported answer first differs: the item, the place in it, and how much less likely its token is.

    `behind_nats` is None if that token is not among the trained model's likeliest.
    """

    item: int
    place: int
    behind_nats: float | None


@dataclass(frozen=True, slots=True)
class TokenCheck:
    """Answers compared token by token; `same` of `items` have no mismatch."""

    items: int
    same: int
    other_prompts: int
    """Prompts that the exported tokenizer reads as other tokens."""
    ties: tuple[TokenMismatch, ...]
    differences: tuple[TokenMismatch, ...]
    """Mismatches that rounding does not explain."""
    tie_nats: float
    rounding_nats: float
    """The trained model's mean distance from itself."""
    least_rounding_nats: float
    gap_nats: float
    """The exported model's mean distance from the trained one, on the trained answers."""

    @property
    def most_gap_nats(self) -> float:
        return MAX_ROUNDINGS * max(self.rounding_nats, self.least_rounding_nats)

    @property
    def faults(self) -> list[str]:
        """What is not accepted, in words."""
        found = []
        if self.other_prompts:
            found.append(f"its tokenizer reads {self.other_prompts} of {self.items} prompts differently")
        if self.differences:
            found.append(f"{len(self.differences)} of {self.items} answers differ where there is no tie")
        if not self.gap_nats <= self.most_gap_nats:  # NaN too
            gap, most = f"{self.gap_nats:.2g} nats", f"{self.most_gap_nats:.2g}"
            found.append(f"its log-probabilities are {gap} from the trained ones, rounding explains {most}")
        return found


@dataclass(frozen=True, slots=True)
class AccuracyCheck:
    """Shares of right answers, and the difference on the same items: above 0 if the exported model is better."""

    trained: float
    exported: float
    difference: PairedDifference

    @property
    def faults(self) -> list[str]:
        """What is not accepted, in words."""
        found, most = self.difference, f"{100 * MAX_ACCURACY_LOSS:.0f} %"
        if found.is_distinguishable and found.gain < 0:
            return [f"it is right on {-100 * found.gain:.1f} % fewer items, which chance does not explain"]
        is_open = found.interval.low < -MAX_ACCURACY_LOSS
        return [f"{found.num_items} items do not rule out that it is right on {most} fewer"] if is_open else []


@dataclass(frozen=True, slots=True)
class Proof:
    """Both comparisons; `kind` is the one that decides. llama.cpp is compared in accuracy alone."""

    kind: Kind
    tokens: TokenCheck | None
    accuracy: AccuracyCheck

    @property
    def faults(self) -> list[str]:
        """Why the export is refused; empty if it is accepted."""
        return self.tokens.faults if self.tokens and self.kind == "tokens" else self.accuracy.faults

    @property
    def agreement(self) -> str:
        """How many answers are the same; ties explain the others only if tokens decide."""
        if self.tokens is None:
            return f"Tokens were not compared on its {self.accuracy.difference.num_items} held-out items."
        tied = f"; {len(self.tokens.ties)} more depart at a tie" if self.tokens.ties and self.kind == "tokens" else ""
        same = f"{self.tokens.same} of {self.tokens.items} greedy answers to held-out items"
        return f"{same} are those of the trained model, token by token{tied}."

    @property
    def rightness(self) -> str:
        """How often both models are right."""
        trained, exported, difference = self.accuracy.trained, self.accuracy.exported, self.accuracy.difference
        right = f"The trained model is right on {percent(trained)} of them, this one on {percent(exported)}"
        return f"{right}: {points(difference)}, {p_text(difference.p_value)}."

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON data."""
        return {
            "holds": not self.faults,
            "kind": self.kind,
            "faults": self.faults,
            "tokens": asdict(self.tokens) | {"most_gap_nats": self.tokens.most_gap_nats} if self.tokens else None,
            "accuracy": asdict(self.accuracy) | {"most_lost": MAX_ACCURACY_LOSS},
        }


def check_tokens(
    trained: ModelAnswers, exported: ModelAnswers, read_trained: Sequence[list[list[float]]], dtype: str
) -> TokenCheck:
    """Compares answers; `read_trained` (items, tokens, NEAR) is how the exported model reads the trained one's."""
    own = trained.distances
    tie_nats = 2 * max(*own, *exported.distances)
    pairs = zip(trained.answers, exported.answers, strict=True)
    places = (first_mismatch(item, mine, theirs.ids) for item, (mine, theirs) in enumerate(pairs))
    found = [place for place in places if place is not None]
    ties = tuple(place for place in found if place.behind_nats is not None and place.behind_nats <= tie_nats)
    return TokenCheck(
        items=len(trained.answers),
        same=len(trained.answers) - len(found),
        other_prompts=sum(mine != theirs for mine, theirs in zip(trained.prompts, exported.prompts, strict=True)),
        ties=ties,
        differences=tuple(place for place in found if place not in ties),
        tie_nats=tie_nats,
        rounding_nats=fmean(own),
        least_rounding_nats=MIN_ROUNDING[dtype],
        gap_nats=fmean(_distances(trained.read_own, read_trained)),
    )


def check_accuracy(trained: Sequence[bool], exported: Sequence[bool]) -> AccuracyCheck:
    """Compares which items are right."""
    return AccuracyCheck(fmean(trained), fmean(exported), compare_paired(trained, exported))


def first_mismatch(item: int, trained: Answer, ids: Sequence[int]) -> TokenMismatch | None:
    """Returns where other greedy ids first differ from an answer, None if they do not."""
    pairs = enumerate(zip(trained.ids, ids, strict=False))
    place = next((place for place, (mine, theirs) in pairs if mine != theirs), None)
    if place is None:
        return None
    likely = dict(zip(trained.near[place], trained.log_probs[place], strict=True))
    taken = likely.get(ids[place])
    return TokenMismatch(item, place, None if taken is None else max(likely.values()) - taken)


def _distances(first: Sequence[list[list[float]]], second: Sequence[list[list[float]]]) -> Iterator[float]:
    for places in zip(first, second, strict=True):
        for near in zip(*places, strict=True):
            yield from (abs(one - other) for one, other in zip(*near, strict=True))
