"""A few of the cases of `numbers`: each loss, each way through an update, each checkpointing mode, both betas;
one that begins with kept states."""

import pytest

from tests.rehearsal.numbers import Row, compare_numbers, kept_states_cases
from tests.rehearsal.replayed import Case
from tests.rehearsal.stage import Stage

CASES = (
    Case("dapo", 0.0, "prefix", "none"),
    Case("grpo", 0.04, "packed", "unsloth"),
    Case("dr_grpo", 0.04, "padded", "plain", bits=16),
    Case("dapo", 0.04, "prefix", "unsloth", layers="last:1", kept_states="host"),
)


@pytest.fixture(scope="module")
def rows(a6000: Stage, cpu: Stage) -> list[Row]:
    return compare_numbers(CASES, a6000, cpu)


@pytest.mark.long
@pytest.mark.parametrize("update", ["prefix", "packed", "padded"])
def test_it_does_so_from_states_that_were_kept_while_sampling(a6000: Stage, cpu: Stage, update: str) -> None:
    cases = [case for case in kept_states_cases() if case.update == update]
    for row in compare_numbers(cases, a6000, cpu):
        assert not row.faults, row


@pytest.mark.parametrize("number", range(len(CASES)), ids=map(str, CASES))
def test_the_card_computes_the_cpus_numbers(number: int, rows: list[Row]) -> None:
    assert not rows[number].faults, rows[number]
