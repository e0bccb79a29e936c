"""Replays what a round of sampling has found so far, so that it is repeated without sampling or scoring again.

A reward may be slow, cost money or write something, and completions that are sampled twice are other completions. If
memory runs out after such a call, the round begins again, and each of these calls returns at once what it returned
before.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, TypeVar

from lowmem_rl.engine.rng import restore_rng, rng_states

T = TypeVar("T")


@dataclass
class ReplayedCalls:
    """The results of a round's calls, in their order, and the random states after each."""

    results: list[tuple[Any, dict[str, Any]]] = field(default_factory=list)
    repeated: int = 0
    """Calls that this pass over the round has made."""
    has_completions: bool = False

    def run(self, call: Callable[[], T]) -> T:
        """Returns what `call` returns; in a repeated round what it returned, with the random states after it."""
        if self.repeated == len(self.results):
            self.results.append((call(), rng_states()))
        else:
            restore_rng(self.results[self.repeated][1])
        self.repeated += 1
        found: T = self.results[self.repeated - 1][0]
        return found

    def begin_again(self) -> None:
        """Begins another pass over the same round."""
        self.repeated = 0

    def forget(self) -> None:
        """Begins another round."""
        self.results, self.repeated, self.has_completions = [], 0, False

    def wrapped(self, function: Callable[..., T]) -> Callable[..., T]:
        """Returns the function with replayed calls, under its own name, by which TRL names a reward's metrics."""

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> T:
            return self.run(lambda: function(*args, **kwargs))

        return run
