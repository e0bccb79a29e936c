"""A few of the cases of `numbers`: each loss, each way through an update, each checkpointing mode, both betas."""

import pytest

from tests.rehearsal.numbers import Row, compare_numbers
from tests.rehearsal.replayed import Case
from tests.rehearsal.stage import Stage

CASES = (
    Case("dapo", 0.0, "prefix", "none"),
    Case("grpo", 0.04, "packed", "unsloth"),
    Case("dr_grpo", 0.04, "padded", "plain", bits=16),
)


@pytest.fixture(scope="module")
def rows(a6000: Stage, cpu: Stage) -> list[Row]:
    return compare_numbers(CASES, a6000, cpu)


@pytest.mark.parametrize("number", range(len(CASES)), ids=map(str, CASES))
def test_the_card_computes_the_cpus_numbers(number: int, rows: list[Row]) -> None:
    assert not rows[number].faults, rows[number]
