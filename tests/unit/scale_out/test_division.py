import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lowmem_rl.config.run_config import RunConfig
from lowmem_rl.errors import ConfigError
from lowmem_rl.scale_out.cluster import Cluster, cluster_of
from lowmem_rl.scale_out.division import divided


def run(group_size: int, prompts: int, micro_batch: int) -> RunConfig:
    return RunConfig.model_validate(
        {"grpo": {"group_size": group_size, "prompts_per_step": prompts}, "memory": {"micro_batch": micro_batch}}
    )


def on(cards: int, to: str = "verl") -> Cluster:
    return cluster_of(to, cards, 1, "scaled")


@pytest.mark.parametrize("cards", [1, 2, 4, 8])
def test_what_divides_stays(cards):
    assert divided(run(8, 8, 8), on(cards), may_choose=False) == run(8, 8, 8)


def test_a_planned_micro_batch_becomes_smaller():
    assert divided(run(8, 8, 32), on(4), may_choose=True).micro_batch == 16


def test_a_given_one_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="memory.micro_batch 32 does not divide the 16 completions") as refused:
        divided(run(8, 8, 32), on(4), may_choose=False)
    assert "memory.micro_batch=16" in refused.value.hint


@pytest.mark.parametrize(
    ("group_size", "prompts", "cards", "near"),
    [
        (8, 8, 3, ["2 or 4 cards", "prompts_per_step=6 or 9,"]),
        (8, 8, 5, ["4 or 8 cards", "prompts_per_step=5 or 10"]),
        (6, 1, 4, ["3 or 6 cards", "prompts_per_step=2"]),
        (7, 3, 64, ["21 cards", "prompts_per_step=64"]),
    ],
)
def test_a_step_that_does_not_divide_is_refused_with_the_nearest(group_size, prompts, cards, near):
    with pytest.raises(ConfigError, match=f"do not divide over {cards} cards") as refused:
        divided(run(group_size, prompts, 1), on(cards), may_choose=True)
    for text in near:
        assert text in refused.value.hint


@pytest.mark.parametrize(
    ("group_size", "prompts", "cards", "offer"),
    [
        (3, 3, 8, "They do over 3 cards, and with"),
        (11, 1, 4, "They do over 1 card, and with"),
        (6, 4, 7, "They do over 6 or 8 cards, and with"),
    ],
)
def test_no_more_cards_are_offered_than_trl_takes(group_size, prompts, cards, offer):
    with pytest.raises(ConfigError) as refused:
        divided(run(group_size, prompts, 1), on(cards, "trl"), may_choose=True)
    assert refused.value.hint.startswith(offer)


@given(group_size=st.integers(2, 64), prompts=st.integers(1, 64), cards=st.integers(2, 64))
def test_what_is_offered_divides(group_size, prompts, cards):
    assume(group_size * prompts % cards)
    with pytest.raises(ConfigError) as refused:
        divided(run(group_size, prompts, 1), on(cards), may_choose=True)
    more_cards, more_prompts = (
        [int(number) for number in re.findall(r"\d+", part)] for part in refused.value.hint.split("--set")
    )
    for number in more_cards:
        assert divided(run(group_size, prompts, 1), on(number), may_choose=True)
    for number in more_prompts:
        assert divided(run(group_size, number, 1), on(cards), may_choose=True)
