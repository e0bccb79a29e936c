"""The simulated card behaves like one: what CUDA refuses is refused, what it counts is counted."""

import os
from pathlib import Path

import pytest

from tests.rehearsal.stage import RehearsalError, Stage

SHORT = (
    "--preset=tiny-cpu",
    "--steps=2",
    *(
        f"--set={setting}"
        for setting in (
            "grpo.prompts_per_step=2",
            "memory.micro_batch=8",
            "grpo.max_completion_tokens=32",
            "eval.examples=8",
            "eval.quick_examples=8",
        )
    ),
)
"""Two steps of 16 completions of the embedded model."""


def mixes_devices() -> None:
    import torch

    torch.ones(2, device="cuda") + torch.ones(2)


def adds_up() -> tuple[str, list[float], bool]:
    import torch

    weight = torch.ones(3, device="cuda", requires_grad=True)
    (weight * torch.arange(3.0, device="cuda")).sum().backward()
    assert weight.grad is not None
    return str(weight.grad.device), weight.grad.tolist(), torch.equal(weight.grad.cpu(), torch.arange(3.0))


def attends(length: int, padding: int) -> tuple[float, float]:
    """Returns the largest differences of output and gradients from the CPU's attention; the padding sees nothing."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention as attention

    torch.manual_seed(0)
    host = [torch.randn(2, heads, length, 16, requires_grad=True) for heads in (4, 2, 2)]
    card = [tensor.detach().cuda().requires_grad_() for tensor in host]
    mask = torch.ones(length, length, dtype=torch.bool).tril()
    mask[:, :padding] = False
    masks = (mask, mask.cuda()) if padding else (None, None)
    outs = [
        attention(*tensors, attn_mask=seen, is_causal=seen is None, enable_gqa=True)
        for tensors, seen in zip((host, card), masks, strict=True)
    ]
    for out in outs:
        out.square().sum().backward()
    grads = [(a.grad - b.grad.cpu()).abs().max().item() for a, b in zip(host, card, strict=True)]  # type: ignore[union-attr]
    return (outs[0] - outs[1].cpu()).abs().max().item(), max(grads)


def test_tensors_of_two_devices_do_not_mix(a6000: Stage) -> None:
    with pytest.raises(RehearsalError, match="at least two devices, cuda:0 and cpu"):
        a6000.call(mixes_devices)


def test_autograd_runs_on_the_card(a6000: Stage) -> None:
    assert a6000.call(adds_up) == ("cuda:0", [0.0, 1.0, 2.0], True)


@pytest.mark.parametrize("padding", [0, 3])
def test_attention_and_its_gradients_are_the_cpus(a6000: Stage, padding: int) -> None:
    assert max(a6000.call(attends, 7, padding)) < 1e-5


def test_a_training_runs_from_loading_to_report(a6000: Stage, tmp_path: Path) -> None:
    measured = Path(os.environ["XDG_CACHE_HOME"]) / "lowmem-rl" / "calibration.jsonl"
    known = measured.read_bytes() if measured.exists() else b""
    ended = a6000.lowmem("train", *SHORT, "--out", str(tmp_path / "run"), counts_waits=True)
    assert ended.code == 0, ended.output
    assert (tmp_path / "run" / "report.html").exists()
    assert ended.report.kernels["_rms_layernorm_backward"] > 0
    assert any("flex, prefixes shared" in kind for kind in ended.report.attention)
    assert ended.report.allocations > 1000
    assert ended.report.waits
    assert (measured.read_bytes() if measured.exists() else b"") == known, "a simulated card corrects no estimate"
