"""A step's completions over the cards: each card gets as many, in whole micro-batches."""

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError
from lowmem_rl.planning.overrides import divisors, with_overrides


def divided(config: RunConfig, cards: int, *, may_choose: bool) -> RunConfig:
    """Returns the run with a micro-batch that divides a card's share of a step; what it is changes no gradient.

    `may_choose` allows a smaller one: the run has left it to the planner. Raises `ConfigError`, with the nearest
    numbers that divide.
    """
    rows = config.rows_per_step
    if rows % cards:
        raise _uneven(config, cards)
    share, given = rows // cards, config.micro_batch
    nearest = divisors(share, given)[-1]
    if nearest == given:
        return config
    if not may_choose:
        what = (
            f"memory.micro_batch {given} does not divide the {share} completions that each of {cards} cards has a step."
        )
        raise ConfigError(what, hint=f"The nearest is --set memory.micro_batch={nearest}; it changes no gradient.")
    return with_overrides(config, {"memory.micro_batch": nearest})


def _uneven(config: RunConfig, cards: int) -> ConfigError:
    """Returns the refusal, with the nearest numbers of cards and of prompts that divide."""
    rows, grpo = config.rows_per_step, config.grpo
    near_cards = [n for n in divisors(rows) if n < cards][-1:] + [n for n in divisors(rows) if n > cards][:1]
    whole = next(n for n in range(grpo.prompts_per_step, 0, -1) if n * grpo.group_size % cards == 0 or n == 1)
    above = next(
        n for n in range(grpo.prompts_per_step, grpo.prompts_per_step + cards + 1) if n * grpo.group_size % cards == 0
    )
    prompts = [n for n in dict.fromkeys((whole, above)) if n * grpo.group_size % cards == 0]
    return ConfigError(
        f"The {rows} completions of a step (grpo.group_size {grpo.group_size} x grpo.prompts_per_step "
        f"{grpo.prompts_per_step}) do not divide over {cards} cards.",
        hint=f"The nearest are {' or '.join(map(str, near_cards))} cards, or "
        f"--set grpo.prompts_per_step={' or '.join(map(str, prompts))}, which changes the batch.",
    )
