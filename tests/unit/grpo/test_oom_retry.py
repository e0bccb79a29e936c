"""An optimizer step is undone whole; over large weights its copy is in host RAM, and made while states are missing."""

from typing import Any

import pytest
import torch  # noqa: TID253

from lowmem_rl.grpo import oom_retry
from lowmem_rl.grpo.oom_retry import JoinedCopies, OptimizerSnapshot, atomic_step

SMALL, LARGE = 2**20, 0
"""Limits above and below what the weights take."""


class FailingAdamW(torch.optim.AdamW):
    """AdamW whose calls of these numbers run out of memory when they have changed everything."""

    fails: tuple[int, ...] = ()
    calls = 0

    def step(self, closure: Any = None) -> Any:
        self.calls += 1
        super().step(closure)
        if self.calls in self.fails:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 MiB.")


def weights() -> list[torch.nn.Parameter]:
    torch.manual_seed(0)
    found = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
    for weight in found:
        weight.grad = torch.randn_like(weight)
    return found


def stepped(steps: int, fails: tuple[int, ...] = (), **settings: Any) -> tuple[list[Any], list[str], int]:
    """Returns the weights after some steps, the reasons that were given, and the snapshots taken."""
    reasons: list[str] = []
    learned, snapshots = weights(), 0
    optimizer = atomic_step(FailingAdamW, reasons.append)(learned, lr=0.1, **settings)
    optimizer.fails = fails
    plain = OptimizerSnapshot.of

    def of(optimizer: Any) -> OptimizerSnapshot:
        nonlocal snapshots
        snapshots += 1
        return plain(optimizer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OptimizerSnapshot, "of", of)
        for _ in range(steps):
            optimizer.step()
    return learned, reasons, snapshots


def are_equal(found: list[Any], wanted: list[Any]) -> bool:
    return all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("limit", [SMALL, LARGE])
@pytest.mark.parametrize("failing", [1, 2])
def test_a_step_that_fails_happens_once(limit: int, failing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oom_retry, "UNDO_BYTES", limit)
    wanted, _, _ = stepped(3)
    found, reasons, _ = stepped(3, fails=(failing,))
    assert len(reasons) == 1
    assert are_equal(found, wanted)


@pytest.mark.parametrize(
    ("limit", "fused", "snapshots"), [(SMALL, True, 3), (LARGE, True, 1), (LARGE, False, 3), (SMALL, False, 3)]
)
def test_large_fused_steps_are_copied_until_they_have_states(
    limit: int, fused: bool, snapshots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oom_retry, "UNDO_BYTES", limit)
    assert stepped(3, fused=fused)[2] == snapshots


def test_a_large_step_is_copied_again_if_a_weight_begins_to_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oom_retry, "UNDO_BYTES", LARGE)
    learned = weights()
    learned[1].requires_grad_(False).grad = None
    optimizer = torch.optim.AdamW(learned, lr=0.1, fused=True)
    optimizer.step()
    assert oom_retry._allocates_nothing(optimizer)
    learned[1].requires_grad_(True)
    assert not oom_retry._allocates_nothing(optimizer)


def test_a_failed_large_step_in_place_passes_its_error_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oom_retry, "UNDO_BYTES", LARGE)
    with pytest.raises(torch.OutOfMemoryError):
        stepped(2, fails=(2,), fused=True)


@pytest.mark.parametrize("to_host", [False, True])
def test_copies_are_written_back(to_host: bool) -> None:
    tensors = [torch.arange(6.0).view(2, 3), torch.arange(4, dtype=torch.uint8), torch.arange(3.0)]
    wanted = [tensor.clone() for tensor in tensors]
    copies = JoinedCopies.of([*tensors, tensors[0]], to_host=to_host)
    for tensor in tensors:
        tensor.zero_()
    copies.write_back()
    assert are_equal(tensors, wanted)
    assert len(copies.joined) == (3 if to_host else 2)


def test_what_rests_in_a_step_is_not_copied() -> None:
    weights = [torch.nn.Parameter(torch.ones(4)) for _ in range(3)]
    optimizer = torch.optim.AdamW(weights)
    weights[1].requires_grad_(False)
    copied = [tensor for tensors, _ in OptimizerSnapshot.of(optimizer).copies.joined for tensor in tensors]
    assert [any(one is weight for one in copied) for weight in weights] == [True, False, True]
