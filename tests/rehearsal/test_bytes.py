"""Bytes on the simulated card: a real architecture against the estimate, a short measurement against a long one."""

from pathlib import Path

import pytest

from lowmem_rl.models.lookup import load_shape
from tests.rehearsal.bytes import on_stage
from tests.rehearsal.stage import Stage

LAYERS = 2
ROWS = ("grpo.prompts_per_step=2", "memory.rollout_rows=8", "memory.micro_batch=4")
"""Two waves, four micro-batches."""
SETTINGS = (*ROWS, "grpo.max_completion_tokens=24", "eval.batch=8")


def test_two_layers_of_a_real_model_take_what_the_estimate_says(t4: Stage, tmp_path: Path) -> None:
    rows = on_stage(t4, "qwen1.5b-t4", tmp_path, layers=LAYERS)
    assert [row.phase for row in rows] == ["load", "rollout", "backward", "optimizer", "evaluation", "save"]
    assert {row.phase: row.ratio for row in rows if not row.is_close} == {}


def test_an_evaluation_that_samples_one_row_takes_what_its_kl_takes(t4: Stage, tmp_path: Path) -> None:
    settings = (*ROWS, "eval.batch=1", "grpo.max_completion_tokens=128")
    rows = on_stage(t4, "qwen1.5b-t4", tmp_path, settings, layers=LAYERS, blocks=8)
    (found,) = (row for row in rows if row.phase == "evaluation")
    assert found.is_close
    large = [size for size, _, lines in found.blocks if "engine/logprobs.py" in lines][:6]
    assert large.count(128 * 4 * load_shape("Qwen/Qwen2.5-1.5B-Instruct").vocab_size) == 5


def test_a_layer_keeps_what_biases_and_dropout_make_it_keep(a6000: Stage, tmp_path: Path) -> None:
    found = []
    for layers in (2, 6):
        (tmp_path / str(layers)).mkdir()
        rows = on_stage(a6000, "tina-1.5b", tmp_path / str(layers), layers=layers)
        found += [row for row in rows if row.phase == "backward"]
    few, more = found
    predicted, measured = (getattr(more, name) - getattr(few, name) for name in ("predicted_bytes", "measured_bytes"))
    assert predicted == pytest.approx(measured, rel=0.03)


def peaks(repeats_nothing: bool) -> dict[str, int]:
    """Runs on the card; returns the bytes of each phase's tensors."""
    from lowmem_rl_cli.options import RunRequest

    from lowmem_rl.entrypoints.measure_memory import measure

    composed = RunRequest(preset="tiny-cpu", settings=SETTINGS).resolve()
    rows = measure(composed, repeats_nothing=repeats_nothing).rows
    return {row.phase: row.measured.allocated_bytes or 0 for row in rows}


@pytest.mark.long
def test_the_last_tokens_and_the_largest_micro_batches_show_the_peaks_of_a_whole_step(
    a6000: Stage, tmp_path: Path
) -> None:
    short, whole = (
        a6000.call(peaks, repeats_nothing, env={"XDG_CACHE_HOME": str(tmp_path)}) for repeats_nothing in (True, False)
    )
    assert short.keys() == whole.keys()
    assert {phase: short[phase] - whole[phase] for phase in whole if abs(short[phase] / whole[phase] - 1) > 0.01} == {}
