"""The comparison of two runs: what was measured is left out, and any other difference is named."""

import json
from pathlib import Path

import pytest

from scripts.same_run import COMPARED, compare, tensors
from tests.run_maker import make_run


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two equal runs."""
    paths = tmp_path / "then", tmp_path / "now"
    for path in paths:
        make_run(path)
        (path / "order.jsonl").write_text("{}\n")
        (path / "adapter").mkdir()
        write_tensors(path / "adapter" / "adapter_model.safetensors", b"\x00\x00\x80\x3f")
    return paths


def write_tensors(path: Path, values: bytes) -> None:
    header = json.dumps({"lora_A": {"dtype": "F32", "shape": [1], "data_offsets": [0, len(values)]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + values)


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_equal_runs_have_no_difference(runs, capsys) -> None:
    assert compare(*runs) is None
    assert "differ" not in capsys.readouterr().out


def test_measured_times_and_bytes_are_not_compared(runs) -> None:
    replace(runs[1] / "metrics.jsonl", f'"peak_bytes": {2**30}', '"peak_bytes": 1')
    replace(runs[1] / "metrics.jsonl", '"step_s": 2.0', '"step_s": 3.0')
    replace(runs[1] / "metrics.jsonl", '"completion_tokens_per_s": 50.0', '"completion_tokens_per_s": 51.0')
    replace(runs[1] / "eval.json", '"seconds": 1.0', '"seconds": 1.5')
    assert compare(*runs) is None


def test_the_first_other_value_is_named(runs) -> None:
    replace(runs[1] / "metrics.jsonl", '"reward": 0.1,', '"reward": 0.15,')
    assert compare(*runs) == "metrics.jsonl, row 2, reward: 0.1 became 0.15"


@pytest.mark.parametrize("name", ["order.jsonl", "samples.jsonl", "eval/after.jsonl"])
def test_a_line_more_is_named(runs, name) -> None:
    with (runs[1] / name).open("a") as file:
        file.write("{}\n")
    assert (compare(*runs) or "").startswith(f"{name}, line ")


def test_other_bits_of_the_adapter_are_named(runs) -> None:
    write_tensors(runs[1] / "adapter" / "adapter_model.safetensors", b"\x01\x00\x80\x3f")
    assert (compare(*runs) or "").startswith("adapter/adapter_model.safetensors, lora_A: ")


@pytest.mark.parametrize("name", ["order.jsonl", "metrics.jsonl"])
def test_a_file_that_neither_run_has_is_a_difference(runs, name) -> None:
    assert name in COMPARED
    for run in runs:
        (run / name).unlink()
    assert compare(*runs) == f"{name}, is missing in both"


def test_tensors_are_read_as_safetensors_writes_them(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    save_file({"one": torch.tensor([1.0]), "two": torch.zeros(2, 3, dtype=torch.bfloat16)}, path)
    assert tensors(path) == {"one": ("F32", [1], b"\x00\x00\x80\x3f"), "two": ("BF16", [2, 3], bytes(12))}
