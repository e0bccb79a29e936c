"""Orders of examples: fixed ones, and one that moves with what a run has seen."""

import json
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.errors import RunDirError, TaskError
from lowmem_rl.example import Example
from lowmem_rl.tasks.curriculum import (
    STRETCH,
    PassCounts,
    RolloutOutcome,
    SignalWindow,
    arrange,
    difficulties,
    read_order,
    read_rates,
)

EXAMPLES = [
    Example(f"e{n}", ({"role": "user", "content": f"{n}?"},), "7" * (1 + n % 9), level=1 + n % 4) for n in range(192)
]
IDS = [example.id for example in EXAMPLES]
RATES = {f"e{n}": (n % 9, 8) for n in range(192)}


@pytest.mark.parametrize("by", ["level", "pass_rate", "answer_length"])
def test_easy_to_hard_never_steps_back(by) -> None:
    hardness = difficulties(EXAMPLES, by, RATES)
    order = [hardness[example.id] for example in arrange(EXAMPLES, by, "easy_to_hard", 0, RATES)]
    assert order == sorted(order)
    assert order[0] < order[-1]


@pytest.mark.parametrize("how", ["easy_to_hard", "mixed"])
def test_an_order_has_every_example_once_and_is_fixed_by_its_seed(how) -> None:
    order = arrange(EXAMPLES, "level", how, 1)
    assert sorted(order, key=EXAMPLES.index) == EXAMPLES
    assert order == arrange(EXAMPLES, "level", how, 1)
    assert order != arrange(EXAMPLES, "level", how, 2)


@pytest.mark.parametrize("by", ["level", "pass_rate", "answer_length"])
def test_mixed_has_the_whole_range_in_every_stretch(by) -> None:
    hardness = difficulties(EXAMPLES, by, RATES)
    order = [hardness[example.id] for example in arrange(EXAMPLES, by, "mixed", 0, RATES)]
    means = [fmean(order[start : start + STRETCH]) for start in range(0, len(order), STRETCH)]
    spread = max(hardness.values()) - min(hardness.values())
    assert max(means) - min(means) < 0.1 * spread


def test_a_rarely_solved_example_is_harder_than_an_unknown_and_that_than_a_solved_one() -> None:
    hardness = difficulties(EXAMPLES[:3], "pass_rate", {"e0": (0, 8), "e2": (8, 8)})
    assert hardness["e0"] > hardness["e1"] > hardness["e2"]


def test_what_does_not_say_how_hard_it_is_is_refused() -> None:
    plain = [Example("a", EXAMPLES[0].prompt, "1")]
    with pytest.raises(TaskError, match="'a' has no level"):
        arrange(plain, "level", "mixed", 0)
    with pytest.raises(TaskError, match="none of this run's"):
        arrange(plain, "pass_rate", "mixed", 0, RATES)


def test_a_probes_file_gives_the_counts(tmp_path: Path) -> None:
    rows = [{"example_id": "e1", "passed": 3, "samples": 8, "interval": {"low": 0.1, "high": 0.7}}]
    file = tmp_path / "probe.json"
    file.write_text(json.dumps({"model": "m", "task": "mine", "examples": rows}))
    assert read_rates(file, "mine") == {"e1": (3, 8)}
    with pytest.raises(TaskError, match="of task 'mine', and this run learns 'other'"):
        read_rates(file, "other")


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"task": "mine", "examples": [{"example_id": "a", "passed": 9, "samples": 8}]}']
)
def test_a_file_without_counts_names_the_command_that_writes_one(tmp_path: Path, text: str) -> None:
    file = tmp_path / "probe.json"
    file.write_text(text)
    with pytest.raises(TaskError, match="holds no pass rates") as caught:
        read_rates(file, "mine")
    assert "lowmem-rl probe --task mine" in caught.value.hint


def test_the_window_leaves_out_what_is_always_or_never_solved() -> None:
    window, seen = SignalWindow(), {id_: PassCounts(right, 8, -1) for id_, (right, _) in RATES.items()}
    drawn = window.draw(IDS, seen, step=0, count=100)
    assert {RATES[id_][0] for id_ in drawn} <= set(range(2, 7))


def test_the_window_takes_the_nearest_where_nothing_is_inside() -> None:
    seen = {"never": PassCounts(0, 64, 0), "nearly": PassCounts(8, 64, 0), "always": PassCounts(64, 64, 0)}
    assert SignalWindow().draw(list(seen), seen, step=1, count=2)[0] == "nearly"
    assert SignalWindow().draw(list(seen), seen, step=1, count=1) == ["nearly"]


def test_every_unknown_example_is_asked_before_one_is_asked_again() -> None:
    window, seen, asked = SignalWindow(), {}, []
    for step in range(24):
        ids = window.draw(IDS, seen, step, 8)
        seen = window.note(seen, RolloutOutcome(step, tuple(ids), (4,) * 8, 8))
        asked += ids
    assert sorted(asked) == sorted(IDS)


def test_a_solved_example_comes_back_in_time() -> None:
    window, solved = SignalWindow(half_life_steps=10), PassCounts(8, 8, 0)
    assert window.rate(solved, 1) > window.high
    assert window.rate(solved, 30) < window.high
    assert window.rate(solved, 10_000) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.sampled_from(IDS[:20]), st.integers(0, 8)), max_size=40), st.integers(0, 40))
def test_a_resumed_run_draws_what_the_undisturbed_one_would(outcomes: list[tuple[str, int]], cut: int) -> None:
    window = SignalWindow(seed=3)
    steps = [RolloutOutcome(step, (id_,), (right,), 8) for step, (id_, right) in enumerate(outcomes)]
    with TemporaryDirectory() as folder:
        record = Path(folder) / "order.jsonl"
        record.write_text("".join(json.dumps(drawn.to_json()) + "\n" for drawn in steps))
        assert window.replay(read_order(record), RATES) == window.replay(steps, RATES)
    half = window.replay(steps[:cut], RATES)
    for drawn in steps[cut:]:
        half = window.note(half, drawn)
    assert window.draw(IDS, half, 99, 8) == window.draw(IDS, window.replay(steps, RATES), 99, 8)


def test_a_half_written_last_line_is_left_out_and_a_broken_one_before_it_is_named(tmp_path: Path) -> None:
    record = tmp_path / "order.jsonl"
    line = json.dumps(RolloutOutcome(0, ("e1",), (2,), 8).to_json()) + "\n"
    record.write_text(line + line[:20])
    assert len(read_order(record)) == 1
    for wrong in ({}, {"right": []}, {"right": ["x"]}, {"right": [float("inf")]}, {"examples": 3}):
        record.write_text(json.dumps((json.loads(line) | wrong) if wrong else {}) + "\n" + line)
        with pytest.raises(RunDirError, match=r"order\.jsonl, line 1"):
            read_order(record)
