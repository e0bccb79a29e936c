"""What the figure of the process assumes, and both figures."""

from datetime import date

import pytest

from lowmem_rl.config.compose import resolve
from lowmem_rl.memory.calibration import Calibration
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.models.lookup import load_shape
from lowmem_rl.planning.plan import Plan, plan


def planned(
    *settings: str, preset: str = "qwen7b-24gb", card: str | None = "3090", calibration: Calibration | None = None
) -> Plan:
    config = resolve(preset=preset, settings=settings).config
    return plan(config, load_shape(config.model.name), CARDS[card] if card else None, calibration=calibration)


@pytest.fixture(autouse=True)
def no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)


def test_with_growing_segments_the_figure_is_that_of_any_lengths() -> None:
    found = planned()
    process = found.process
    assert process is not None
    assert process.segments_grow
    assert process.one_length_bytes == found.estimate.expected_bytes
    assert process.varying_bytes == pytest.approx(process.one_length_bytes, rel=0.02)
    assert process.fixed_segments_bytes > 1.1 * process.varying_bytes
    assert "rows of any length" in str(process)


@pytest.mark.parametrize("vllm", [False, True])
def test_with_fixed_segments_both_figures_are_given(vllm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not vllm:
        monkeypatch.setenv("PYTORCH_ALLOC_CONF", "max_split_size_mb:64")
    process = planned(*(["rollout.engine=vllm"] if vllm else [])).process
    assert process is not None
    assert not process.segments_grow
    assert process.varying_bytes == process.fixed_segments_bytes >= process.one_length_bytes
    shown = process.to_json()
    assert shown["assumes"].startswith("rows of one length")
    assert shown["varying_lengths"] == process.varying_bytes


@pytest.mark.parametrize("settings", [("trainable.select=grad_norm", "model.bits=16"), ()])
def test_varying_lengths_never_take_less_than_one_length(settings: tuple[str, ...]) -> None:
    measured = Calibration("3090", "unsloth", 2.0, 1, date(2026, 11, 30))
    for calibration in (None, measured):
        process = planned(*settings, calibration=calibration).process
        assert process is not None
        assert process.one_length_bytes <= process.varying_bytes <= 1.05 * process.one_length_bytes


def test_a_cpu_has_no_pool() -> None:
    assert planned(preset="tiny-cpu", card=None).process is None
