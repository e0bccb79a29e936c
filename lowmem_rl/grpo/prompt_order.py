"""Which prompts a run asks, and when: as its seed drew them, in a curriculum's order, or by a moving window.

The first two are the order of the data set's rows. A window chooses at the moment of sampling: the data loader is then
a round ahead already (transformers collects the batches of a step before it samples from the first one, and accelerate
reads one more), so that its rows only say how many prompts are needed.
"""

from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.example import Example
from lowmem_rl.grpo.scored_batch import ScoredBatch
from lowmem_rl.grpo.train_dataset import Prompt, prompts_needed, prompts_per_rollout, to_prompt
from lowmem_rl.tasks.curriculum import Rates, RolloutOutcome, SignalWindow, arrange, read_rates

SPARE = 2
"""Examples that are drawn for each prompt of a run without a window: overlong prompts are left out."""
TIMES_ASKED = 2
"""Prompts that a window asks for each of its examples: only what comes back can have been counted before."""


def rates_of(config: RunConfig) -> Rates:
    """Returns the pass rates that the run's order starts with, none if it names no file. Raises `TaskError`."""
    path = config.curriculum.rates
    return read_rates(Path(path).expanduser(), config.task.name) if path else {}


def examples_to_draw(config: RunConfig, rates: Rates) -> int:
    """Returns how many training examples the run chooses its prompts from, at most."""
    if config.curriculum.by == "none":
        return SPARE * prompts_needed(config)
    if config.curriculum.how == "window":
        return max(prompts_per_rollout(config), prompts_asked(config) // TIMES_ASKED, len(rates))
    return SPARE * prompts_asked(config)


def prompts_asked(config: RunConfig) -> int:
    """Returns how many prompts the run asks: those of its rounds of sampling."""
    steps_of_a_rollout = config.grpo.steps_per_rollout * config.grpo.passes_per_rollout
    return -(-config.grpo.steps // steps_of_a_rollout) * prompts_per_rollout(config)


def arranged(examples: Sequence[Example], config: RunConfig, rates: Rates) -> list[Example]:
    """Returns the usable examples in the order in which the trainer is to read them."""
    by, how = config.curriculum.by, config.curriculum.how
    if how == "window":
        return list(examples)
    if by == "none":
        return list(examples[: prompts_needed(config)])
    # Cut first: the easiest of a large pool would be a run that never becomes hard.
    return arrange(examples[: prompts_asked(config)], by, how, config.seed, rates)


class PromptOrder:
    """The fixed order: that of the data set's rows."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.digest = digest_of(examples)

    def choose_prompts(self, prompts: Sequence[Prompt], step: int) -> list[Prompt]:
        """Returns the rows of the round of sampling for `step`, each prompt as often as its group is large."""
        return list(prompts)

    def on_scored(self, batch: ScoredBatch) -> None:
        """Learns what came out of a round of sampling."""

    def state_dict(self) -> dict[str, Any]:
        """Returns the digest of the run's examples: a resumed run must have the same ones."""
        return {"examples": self.digest}


class AdaptiveOrder(PromptOrder):
    """A window over the run's examples, moved by what was counted of them; `steps` are those of a resumed run."""

    def __init__(
        self, examples: Sequence[Example], config: RunConfig, rates: Rates, steps: Iterable[RolloutOutcome] = ()
    ) -> None:
        super().__init__(examples)
        self.examples = {example.id: example for example in examples}
        self.group_size = config.grpo.group_size
        self.window = SignalWindow(seed=config.seed)
        self.seen = self.window.replay(steps, rates)

    def choose_prompts(self, prompts: Sequence[Prompt], step: int) -> list[Prompt]:
        """Returns the rows of the prompts that carry signal now, as many as `prompts`."""
        count = len(prompts) // self.group_size
        chosen = self.window.draw(list(self.examples), self.seen, step, count)
        return [to_prompt(self.examples[key]) for key in chosen for _ in range(self.group_size)]

    def on_scored(self, batch: ScoredBatch) -> None:
        """Adds the round to what was counted."""
        self.seen = self.window.note(self.seen, batch.outcome)


def order_of(
    examples: Sequence[Example], config: RunConfig, rates: Rates, steps: Iterable[RolloutOutcome] = ()
) -> PromptOrder:
    """Returns the order in which a run asks its arranged examples, after the `steps` it has done."""
    is_adaptive = config.curriculum.how == "window"
    return AdaptiveOrder(examples, config, rates, steps) if is_adaptive else PromptOrder(examples)


def digest_of(examples: Sequence[Example]) -> str:
    """Returns the SHA-256 of ids, questions and answers, in their order."""
    digest = sha256()
    for example in examples:
        digest.update(f"{example.id}\0{example.question}\0{example.answer}\0".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()
