"""What the verdict on an answer promises. HOSTILE_COMPLETIONS=10000 runs the long version of the hostile test."""

import json
import os
import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lowmem_rl.verify import verify
from lowmem_rl.verify.equal import compare_exactly
from lowmem_rl.verify.extract import lenient_answer, strict_answer
from lowmem_rl.verify.pool import CPU_LIMIT_S
from lowmem_rl_bench import verify_pairs
from lowmem_rl_bench.verify_speed import is_paid, near_misses

RECORD = Path(__file__).parents[2] / "benchmarks" / "records" / "verify-2026-11-29.json"


def six_forms(n: int) -> list[str]:
    return [
        f"<think>1 + 1 = 3</think>So it is \\boxed{{{n}}}.",
        f"They sold {n} clips.\n#### {n}",
        f"The answer is {n}.",
        f"In all there are {n:,}.",
        f"\\boxed{{{n} \\text{{ clips}}}}",
        f"Hence \\[ x = \\frac{{{2 * n}}}{{2}} \\]",
    ]


def test_integers_written_six_ways_are_paid_and_their_neighbours_are_not() -> None:
    rng = random.Random(0)
    for n in [0, 1, 1000, *(rng.randint(1, 10 ** rng.randint(1, 7)) for _ in range(500))]:
        for form in six_forms(n):
            assert is_paid(form, str(n)), form
            assert not any(is_paid(form, str(other)) for other in (n + 1, n - 1, -n - 1, 10 * n + 7)), form


def test_no_near_miss_is_paid() -> None:
    assert near_misses(verify_pairs.near_misses(1000))["paid"] == []


def test_the_fast_path_agrees_with_exact_arithmetic() -> None:
    for pair in verify_pairs.rational_pairs(3000):
        assert compare_exactly(pair.given, pair.gold) is pair.equal, pair


@pytest.mark.parametrize("make", [verify_pairs.gsm8k_pairs, verify_pairs.sequence_pairs])
def test_integers_and_sequences_are_decided_without_a_worker(make) -> None:
    for pair in make(300):
        assert compare_exactly(pair.given, pair.gold) is pair.equal, pair


MARKS = [
    *"{}()[]^!-=,%$x&9",
    "^{9",
    "**9",
    "\\\\",
    "\\boxed{",
    "\\frac{",
    "\\sqrt{",
    "\\text{",
    "\\sin",
    "\\log_",
    "\\pm",
]
WORDS = [
    "\\cup",
    "\\int",
    "<think>",
    "</think>",
    "<answer>",
    "#### ",
    "answer is ",
    "\\begin{pmatrix}",
    "\\sum_{n=1}^{99999}",
]
PIECES = st.sampled_from([*MARKS, *WORDS, "\0", "\ud800", "１", "٣", "∞", " ", "\n", "a" * 50, "1," * 50])
HOSTILE = st.one_of(
    st.text(max_size=200),
    st.lists(PIECES, max_size=60).map("".join),
    st.lists(PIECES, max_size=30).map(lambda pieces: "\\boxed{" + "".join(pieces) + "}"),
    st.tuples(PIECES, st.integers(1, 20_000)).map(lambda piece: piece[0] * min(piece[1], 100_000 // len(piece[0]))),
    st.tuples(PIECES, PIECES, st.integers(1, 200)).map(lambda p: "\\boxed{" + p[0] * p[2] + "7" + p[1] * p[2] + "}"),
)


@pytest.fixture(scope="module")
def _workers_are_ready() -> None:
    verify("\\sec^2 x", "\\tan^2 x + 1")


@pytest.mark.usefixtures("_workers_are_ready")
@settings(
    max_examples=int(os.environ.get("HOSTILE_COMPLETIONS", "300")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(HOSTILE, st.sampled_from(["7", "\\frac{1}{2}", "x^2+\\sin x", "(1, 2]", "y = 2x + 1"]))
def test_a_hostile_completion_is_judged_within_a_second(completion: str, gold: str) -> None:
    for read in (strict_answer, lenient_answer):
        began = time.process_time()  # not wall-clock time, which depends on the machine's load
        answer = read(completion)
        assert answer is None or verify(answer, gold) in (True, False)
        assert time.process_time() - began < 1 > CPU_LIMIT_S


def test_the_command_measures_both_sides(cli) -> None:
    pytest.importorskip("math_verify")
    outcome = cli("bench", "verify", "--scale", "0.002", "--json", "--out", "record.json")
    assert outcome.code == 0, outcome.stderr
    record = json.loads(outcome.stdout)
    assert record == json.loads(Path("record.json").read_text())
    assert record["agreement"]["fast_path_agrees_with_exact_arithmetic"] == record["agreement"]["pairs"] == 40
    assert set(record["throughput"]) >= {"gsm8k", "mix", "symbolic"}


def test_the_committed_record_reaches_what_is_promised() -> None:
    record = json.loads(RECORD.read_text())
    agreement, cases, throughput = record["agreement"], record["cases"], record["throughput"]
    assert agreement["fast_path_agrees_with_exact_arithmetic"] == agreement["pairs"] == 20_000
    assert record["near_misses"]["paid"] == []
    assert cases["ours"]["true_positives"] > cases["math_verify"]["true_positives"]
    assert cases["ours"]["false_positives"] <= cases["math_verify"]["false_positives"]
    assert throughput["gsm8k"]["ratio"] >= 50
    assert throughput["mix"]["ratio"] >= 5
