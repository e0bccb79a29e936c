"""The published measurements: how near the estimate comes, and that it calls no failed run fitting."""

from itertools import product
from pathlib import Path
from statistics import fmean

import pytest

from lowmem_rl.memory import driver_overhead
from lowmem_rl.memory.accuracy import AccuracyScore, score
from lowmem_rl.memory.measured_rows import read_rows

ROWS = Path(__file__).parents[2] / "benchmarks" / "records" / "memory_rows.json"
KNOWN_UNDER_PREDICTIONS = {"unsloth-rl-412", "unsloth-rl-413"}
"""A T4's meter in a notebook: one reads more than the card has, the other is "mostly 10 to 11, peak 13"."""
LATER_ROWS = ROWS.with_name("memory_rows_2026-11-28.json")
NOT_COUNTED = ("GPTQ", "a mixture of experts", "GPT-BigCode")


@pytest.fixture(scope="module")
def measured() -> AccuracyScore:
    return score(read_rows(ROWS))


def test_tensors_come_within_five_per_cent_and_processes_within_ten(measured: AccuracyScore) -> None:
    errors = measured.summary["errors"]
    assert errors["allocated"]["rows"] >= 49
    assert errors["allocated"]["mean_error"] <= 0.05
    assert errors["process"]["mean_error"] <= 0.10
    assert errors["reserved"]["mean_error"] <= 0.10


def test_no_peak_is_under_predicted_by_more_than_a_tenth(measured: AccuracyScore) -> None:
    errors = measured.summary["errors"]
    under = {row for kind in ("allocated", "reserved", "process") for row in errors[kind]["under_predicted"]}
    assert under <= KNOWN_UNDER_PREDICTIONS


def test_the_benchmarks_page_names_both_under_predictions_as_they_are(measured: AccuracyScore) -> None:
    errors = sorted(-one.errors["process"] for one in measured.scored if one.row.id in KNOWN_UNDER_PREDICTIONS)
    text = " ".join((ROWS.parents[2] / "docs/benchmarks.md").read_text(encoding="utf-8").split())
    assert "under-predicted by {:.0f} and {:.0f} %".format(*(100 * error for error in errors)) in text


def test_no_failed_run_is_called_fitting(measured: AccuracyScore) -> None:
    assert measured.summary["out_of_memory"] == {"rows": 4, "called_fits": []}


def test_no_completed_run_is_refused_and_two_took_more_than_their_bound(measured: AccuracyScore) -> None:
    assert measured.summary["verdicts"]["completed"]["does-not-fit"] == []
    assert set(measured.summary["above_upper"]) <= KNOWN_UNDER_PREDICTIONS


def test_nine_in_ten_dense_rows_are_scored_and_the_others_say_why(measured: AccuracyScore) -> None:
    left_out = {row: why for row, why in measured.left_out.items() if not why.startswith(NOT_COUNTED)}
    assert all(measured.left_out.values())
    assert len(measured.scored) / (len(measured.scored) + len(left_out)) >= 0.9


GRID = {"chain": (10.0, 12.0, 14.0, 16.0), "stale": (0.3, 0.6, 0.9)}
"""Values for the two constants that rows decide: those of the blocks that a loss leaves."""
Fit = tuple[float, ...]
Errors = dict[str, list[float]]


@pytest.fixture(scope="module")
def fits(measured: AccuracyScore) -> dict[Fit, Errors]:
    """Absolute errors of the process or the pool by source, for every choice of constants."""
    both = [*measured.scored, *score(read_rows(LATER_ROWS)).scored]
    rows = [one.row for one in both if {"process", "reserved"} & one.errors.keys() and not one.row.is_varying]
    found: dict[Fit, Errors] = {}
    with pytest.MonkeyPatch.context() as patch:
        for fit in product(*GRID.values()):
            chain, stale = fit
            patch.setattr(driver_overhead, "CHAIN_BYTES", chain)
            patch.setattr(driver_overhead, "STALE", stale)
            found[fit] = errors = {}
            for one in score(rows).scored:
                found_errors = one.errors
                error = found_errors.get("process", found_errors.get("reserved", 0.0))
                errors.setdefault(one.row.source, []).append(abs(error))
    return found


def test_constants_refitted_without_a_source_hold_on_it(fits: dict[Fit, Errors]) -> None:
    held_out = {}
    for source in next(iter(fits.values())):
        others = {
            fit: [x for name, found in errors.items() if name != source for x in found] for fit, errors in fits.items()
        }
        best = min(others, key=lambda fit: fmean(others[fit]))
        held_out[source] = fmean(fits[best][source])
    assert len(held_out) >= 5
    assert max(held_out.values()) <= 0.10, held_out  # 4.6, 4.6, 0.8, 1.3, 8.7, 3.1, 6.9 and 3.0 %
    assert fmean(held_out.values()) <= 0.05


def test_every_row_names_a_source(measured: AccuracyScore) -> None:
    assert all(one.row.source.startswith("https://") for one in measured.rows)


LATER = ROWS.with_name("memory_rows_2026-11-28.json")
"""Rows that the formulas were not made with."""


@pytest.fixture(scope="module")
def later() -> AccuracyScore:
    return score(read_rows(LATER))


def test_later_rows_of_one_length_come_within_a_tenth_and_of_varying_ones_within_a_sixth(later: AccuracyScore) -> None:
    errors = later.summary["errors"]
    assert all(errors[kind]["mean_error"] <= 0.10 for kind in ("allocated", "reserved", "process"))
    varying = later.summary["varying"]["reserved"]
    assert varying["rows"] >= 37
    assert varying["mean_error"] <= 1 / 6


def test_no_later_run_that_completed_is_refused(later: AccuracyScore) -> None:
    assert later.summary["verdicts"]["completed"]["does-not-fit"] == []
