"""The measurements read in November 2026, scored together with the earlier ones."""

from pathlib import Path

import pytest

from lowmem_rl.memory.accuracy import AccuracyScore, ScoredRow, errors, score
from lowmem_rl.memory.measured_rows import read_rows

RECORDS = Path(__file__).parents[2] / "benchmarks" / "records"
FILES = ("memory_rows.json", "memory_rows_2026-11-28.json")
ALLOCATED, RESERVED, PROCESS = 0.03, 0.06, 0.06
EXPLAINED = {
    "coursia-rtx30708gb-4b-g8-t96": "reserved: blocks of the cache that grows in `generate` (0.90 GiB beyond tensors; "
    "simulated, 0.88 with them and 0.35 without); why the 1.7B of that day held 0.36 is not known",
    "fitcheck-edge-qwen2.5-7b-b1": "2.0 GiB are missing; 16-bit blocks of embeddings and head are as large, but a "
    "simulated pool uses most of them again and holds 0.55 more: the rest is not known",
    "fms-045": "the pool reached the card's limit and gave cached blocks back before it was read",
    "unsloth-rl-412": "a notebook's meter reads more than the card has",
    "unsloth-rl-413": 'a notebook\'s meter: "mostly 10 to 11, peak 13"',
}
"""Rows more than a tenth off, and why."""


@pytest.fixture(scope="module")
def scored() -> tuple[ScoredRow, ...]:
    """Rows of one length: what a pool holds of varying ones without growing segments is scored separately."""
    rows = [row for name in FILES for row in read_rows(RECORDS / name)]
    return tuple(one for one in score(rows).scored if not one.row.is_varying)


def test_tensors_come_within_3_per_cent_pools_and_processes_within_6(scored: tuple[ScoredRow, ...]) -> None:
    found = errors(scored)
    assert found["allocated"]["rows"] >= 65
    assert found["allocated"]["mean_error"] <= ALLOCATED  # 1.0 %
    assert found["reserved"]["mean_error"] <= RESERVED  # 3.4 %
    assert found["process"]["mean_error"] <= PROCESS  # 3.4 %


def test_every_row_more_than_a_tenth_off_is_explained(scored: tuple[ScoredRow, ...]) -> None:
    peaks = ("allocated", "reserved", "process")
    far = {one.row.id for one in scored for name in peaks if abs(one.errors.get(name, 0.0)) > 0.10}
    assert far <= EXPLAINED.keys()


def test_no_completed_run_is_refused_and_no_failed_one_called_fitting(scored: tuple[ScoredRow, ...]) -> None:
    summary = AccuracyScore(scored).summary
    assert summary["verdicts"]["completed"]["does-not-fit"] == []
    assert summary["out_of_memory"]["called_fits"] == []
    assert summary["out_of_memory"]["rows"] >= 9


def test_the_later_rows_alone_come_within_the_same_bounds() -> None:
    later = [one for one in score(read_rows(RECORDS / FILES[1])).scored if not one.row.is_varying]
    found = errors(later)
    assert found["allocated"]["mean_error"] <= ALLOCATED  # 0.7 %
    assert found["reserved"]["mean_error"] <= RESERVED  # 3.4 %
    assert (found["process"]["rows"], found["process"]["mean_error"] <= PROCESS) == (8, True)  # 4.3 %


@pytest.mark.parametrize(("logits", "rows"), [("selective", 13), ("divided", 3)])
def test_trl_s_loss_over_whole_logits_is_within_1_per_cent(
    scored: tuple[ScoredRow, ...], logits: str, rows: int
) -> None:
    """The temperature divides in place in TRL 1.9.2, into a copy in 1.12."""
    found = [error for one in scored if one.row.logits == logits if (error := one.error("allocated")) is not None]
    assert len(found) == rows
    assert max(map(abs, found)) <= 0.01
