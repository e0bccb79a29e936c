"""Which prompts a run asks, and when: as its seed drew them, in a curriculum's order, or as its window moves.

The first two are the order of the data set's rows. A moving order is asked at the moment of sampling: the data
loader is then a round ahead already (transformers collects the batches of a step before its first one is sampled
from, and accelerate reads one more), so that its rows only say how many prompts there are to be.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.example import Example
from lowmem_rl.grpo.train_dataset import Prompt, prompts_needed, prompts_per_rollout, to_prompt
from lowmem_rl.tasks.curriculum import Rates, RolloutOutcome, SignalWindow, arrange, read_rates

SPARE = 2
"""Examples that are drawn for each prompt of a run without a window: overlong prompts are left out."""
TIMES_ASKED = 2
"""Prompts that a window asks for each of its examples: only what comes back can have been counted before."""


def rates_of(config: RunConfig) -> Rates:
    """Returns the pass rates that the run's order begins with, none where it names no file. Raises `TaskError`."""
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

    def choose(self, prompts: Sequence[Prompt], step: int) -> list[Prompt]:
        """Returns the rows of the round of sampling before `step`, each prompt as often as its group is large."""
        return list(prompts)

    def note(self, drawn: RolloutOutcome) -> None:
        """Takes in what came out of a round of sampling."""


class AdaptiveOrder(PromptOrder):
    """A window over the run's examples, and what has been seen of them; `steps` are those of a run that goes on."""

    def __init__(
        self, examples: Sequence[Example], config: RunConfig, rates: Rates, steps: Iterable[RolloutOutcome] = ()
    ) -> None:
        self.examples = {example.id: example for example in examples}
        self.group_size = config.grpo.group_size
        self.window = SignalWindow(seed=config.seed)
        self.seen = self.window.replay(steps, rates)

    def choose(self, prompts: Sequence[Prompt], step: int) -> list[Prompt]:
        count = len(prompts) // self.group_size
        drawn = self.window.draw(list(self.examples), self.seen, step, count)
        return [to_prompt(self.examples[key]) for key in drawn for _ in range(self.group_size)]

    def note(self, drawn: RolloutOutcome) -> None:
        self.seen = self.window.note(self.seen, drawn)


def order_of(
    examples: Sequence[Example], config: RunConfig, rates: Rates, steps: Iterable[RolloutOutcome] = ()
) -> PromptOrder:
    """Returns the order in which a run asks its arranged examples, behind the `steps` it has done."""
    return AdaptiveOrder(examples, config, rates, steps) if config.curriculum.how == "window" else PromptOrder()
