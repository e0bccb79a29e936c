"""A step's completions over the cards: each card gets as many, in whole micro-batches."""

from math import gcd

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError
from lowmem_rl.planning.overrides import divisors, with_overrides
from lowmem_rl.scale_out.cluster import MOST_CARDS_OF_TRL, Cluster


def divided(config: RunConfig, cluster: Cluster, *, may_choose: bool) -> RunConfig:
    """Returns the run with a micro-batch that divides a card's share of a step; what it is changes no gradient.

    `may_choose` allows a smaller one: the run has left it to the planner. Raises `ConfigError`, with the nearest
    numbers that divide.
    """
    rows, cards = config.rows_per_step, cluster.cards
    if rows % cards:
        raise _uneven(config, cluster)
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


def _uneven(config: RunConfig, cluster: Cluster) -> ConfigError:
    """Returns the refusal, with the nearest numbers of cards and of prompts that divide."""
    rows, grpo = config.rows_per_step, config.grpo
    cards = _near_cards(rows, cluster)
    prompts = _near_prompts(grpo.prompts_per_step, grpo.group_size, cluster.cards)
    by_cards, by_prompts = (" or ".join(map(str, numbers)) for numbers in (cards, prompts))
    return ConfigError(
        f"The {rows} completions of a step (grpo.group_size {grpo.group_size} x grpo.prompts_per_step "
        f"{grpo.prompts_per_step}) do not divide over {cluster.cards} cards.",
        hint=f"They do over {by_cards} card{'s' * (cards != [1])}, and with "
        f"--set grpo.prompts_per_step={by_prompts}, which changes the batch.",
    )


def _near_cards(rows: int, cluster: Cluster) -> list[int]:
    """Returns the nearest numbers of cards below and above that share the rows, no more than the target takes."""
    most = MOST_CARDS_OF_TRL if cluster.to == "trl" else None
    sharing = divisors(rows, most)
    return [n for n in sharing if n < cluster.cards][-1:] + [n for n in sharing if n > cluster.cards][:1]


def _near_prompts(prompts: int, group_size: int, cards: int) -> list[int]:
    """Returns the nearest numbers of prompts below and above whose groups divide over the cards."""
    every = cards // gcd(cards, group_size)
    below = prompts // every * every
    return [n for n in (below, below + every) if n]
