"""Which layers learned when, as a run directory shows it."""

import re
import time
from pathlib import Path

import pytest

from lowmem_rl.reports.html import render
from lowmem_rl.reports.run_record import RunRecord, read_record
from lowmem_rl.reports.sections.layers import layer_strip, what_learned
from lowmem_rl.storage.run_dir import RunDir, append_row, read_json, write_json
from tests.run_maker import begin, metric_row


def record_of(path: Path, layers: list[str], depth: int | None = 4, **settings: object) -> RunRecord:
    """A run of as many steps as there are lists of layers."""
    run = RunDir(path)
    begin(run, settings)
    for step, listed in enumerate(layers, 1):
        append_row(run.metrics, metric_row(step, len(layers)) | {"trainable_layers": listed, "trainable_numbers": 9})
    if depth:
        write_json(run.estimate, read_json(run.estimate) | {"num_layers": depth})
    return read_record(path)


def test_each_stretch_of_a_layer_is_a_box_and_the_lowest_layer_is_at_the_bottom(tmp_path: Path) -> None:
    strip = layer_strip(record_of(tmp_path, ["3", "2-3", "2-3", "0"]))
    assert strip is not None
    assert (strip.layers, strip.columns) == (4, 4)
    boxes = set(re.findall(r"M(\d+) (\d+)h(\d+)v1", strip.path))
    assert boxes == {("0", "0", "3"), ("1", "1", "2"), ("3", "3", "1")}
    assert strip.sentence.endswith("3 in step 1; 2-3 in steps 2 to 3; 0 in step 4.")


def test_many_changes_are_counted_instead_of_listed(tmp_path: Path) -> None:
    strip = layer_strip(record_of(tmp_path, ["0", "1", "2", "3", "0", "1"]))
    assert strip is not None
    assert strip.sentence == "The set of layers changed 5 times; each of the 4 layers learned in 1 to 2 of 6 steps."


@pytest.mark.parametrize("layers", [["0-3", "0-3"], []])
def test_no_picture_if_all_layers_learned_or_none_is_known(tmp_path: Path, layers: list[str]) -> None:
    assert layer_strip(record_of(tmp_path, layers)) is None


def test_a_run_that_has_not_written_its_depth_shows_the_layers_that_are_seen(tmp_path: Path) -> None:
    strip = layer_strip(record_of(tmp_path, ["2", "1"], depth=None))
    assert strip is not None
    assert strip.layers == 3


def test_a_long_run_of_a_deep_model_stays_a_small_picture(tmp_path: Path) -> None:
    record = record_of(tmp_path, [f"{step % 80}" for step in range(3000)], depth=80)
    began = time.thread_time()
    strip = layer_strip(record)
    assert strip is not None
    assert time.thread_time() - began < 2
    assert strip.columns <= 600
    assert len(strip.path) < 100_000


@pytest.mark.parametrize("text", ["0-9999," * 9999, "<script>", "9999", "-1", "", "1e9", "none"])
def test_a_strangers_list_of_layers_makes_a_page(tmp_path: Path, text: str) -> None:
    record = record_of(tmp_path, [text, "0"], depth=10**9)
    page = render(record)
    assert "<script>alert" not in page
    assert len(page) < 500_000


def test_it_says_what_learned(tmp_path: Path) -> None:
    lora = record_of(tmp_path / "lora", ["2"], trainable__layers="last:2", trainable__schedule="lisa")
    assert what_learned(lora) == "adapters of rank 16 in layers last:2; lisa, every = 20"
    settings = {"trainable__method": "full", "trainable__layers": "none", "trainable__extra": ["norms", "embed_tokens"]}
    assert what_learned(record_of(tmp_path / "norms", ["0-3"], **settings)) == "norms, embed_tokens"
    chosen = {"trainable__select": "grad_norm", "trainable__select_top": 2, "adapter__peft_type": "tinylora"}
    words = "TinyLoRA in 2 of all layers, chosen by grad_norm"
    assert what_learned(record_of(tmp_path / "chosen", ["0"], **chosen)) == words
    whole = {"trainable__method": "full", "trainable__extra": ["norm"]}
    assert what_learned(record_of(tmp_path / "whole", ["0-3"], **whole)) == "whole weights in all layers and norm"
