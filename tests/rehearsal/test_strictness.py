"""What CUDA refuses is refused, with data and without, and what makes the host wait is counted."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from lowmem_rl.models.hardware import CARDS
from tests.rehearsal.card.cuda_api import SHARED_BYTES
from tests.rehearsal.card.state import MULTIPROCESSORS
from tests.rehearsal.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

ON_TWO_DEVICES = "at least two devices, cuda:0 and cpu"
ONE_DTYPE = "and their bias to have the same dtype"
PHANTOM_BYTES = 2**10
"""64 x 64 numbers have no data, 16 have."""


def errors_of(calls: dict[str, Callable[[], Any]]) -> dict[str, str]:
    """Returns what each call raises, "" for nothing."""
    found = dict.fromkeys(calls, "")
    for name, call in calls.items():
        try:
            call()
        except Exception as error:  # noqa: BLE001  # the test checks which one
            found[name] = f"{type(error).__name__}: {error}"
    return found


def on_card(*shape: int, **kwargs: Any) -> Tensor:
    """Returns ones on the card."""
    import torch

    return torch.ones(shape, device="cuda", **kwargs)


def refusals() -> dict[str, str]:
    import torch
    from torch.nn.functional import layer_norm, linear

    host, ids = torch.Generator(), on_card(2, 2, dtype=torch.int64)
    return errors_of(
        {
            "a host scalar is written": lambda: torch.tensor(0.0).add_(on_card()),
            "a host tensor is written": lambda: torch.add(on_card(2), 1, out=torch.empty(2)),
            "random numbers of a host generator": lambda: torch.rand(2, device="cuda", generator=host),
            "a host generator chooses": lambda: torch.multinomial(on_card(2), 1, generator=host),
            "a host generator fills": lambda: on_card(2).normal_(generator=host),
            "a product of integers": lambda: ids @ ids,
            "a product of two dtypes": lambda: on_card(2, 2) @ on_card(2, 2).half(),
            "a bias of another dtype": lambda: linear(on_card(2, 2), on_card(2, 2), on_card(2).half()),
            "a norm's weight of another dtype": lambda: layer_norm(on_card(2, 4).bfloat16(), (4,), on_card(4)),
            "a host mask fills": lambda: on_card(2).masked_fill(torch.tensor(True), 0.0),
        }
    )


def unseen_refusals() -> dict[str, str]:
    """The same for tensors without data."""
    import torch
    from torch.nn.functional import embedding, linear

    wide, host = on_card(64, 64), torch.Generator()
    beyond, negative = (torch.tensor([[5, value]], device="cuda") for value in (64, -1))
    return errors_of(
        {
            "an addition": lambda: wide + torch.ones(64),
            "a product": lambda: wide @ wide.half(),
            "a bias": lambda: linear(wide, wide, on_card(64).half()),
            "embedding": lambda: embedding(beyond, wide),
            "embedding, negative": lambda: embedding(negative, wide),
            "index": lambda: wide[beyond],
            "gather": lambda: wide.gather(1, beyond),
            "generator": lambda: torch.rand(64, 64, device="cuda", generator=host),
        }
    )


def takes() -> dict[str, str]:
    """What CUDA takes with one argument on the host, and indices that are in range."""
    import torch

    kept = on_card(2) > 0
    return errors_of(
        {
            "a host scalar fills": lambda: on_card(2).masked_fill(kept, torch.tensor(1.0)),
            "a host condition": lambda: torch.where(torch.tensor(True), on_card(2), on_card(2)),
            "a host bound": lambda: on_card(2).clamp(min=torch.tensor(0.0)),
            "a host copy": lambda: torch.empty(2).copy_(on_card(2)),
            "an index from the end": lambda: on_card(64, 64)[torch.tensor([63, -64], device="cuda")],
            "whether they are close": lambda: torch.allclose(on_card(64, 64), on_card(64, 64)),
        }
    )


def test_what_cuda_refuses_is_refused(a6000: Stage) -> None:
    found = a6000.call(refusals)
    for name in ("a host scalar is written", "a host tensor is written"):
        assert ON_TWO_DEVICES in found[name], name
    for name in ("random numbers of a host generator", "a host generator chooses", "a host generator fills"):
        assert "Expected a 'cuda' device type for generator but found 'cpu'" in found[name], name
    assert "\"addmm_cuda\" not implemented for 'Long'" in found["a product of integers"]
    assert ONE_DTYPE in found["a product of two dtypes"]
    assert ONE_DTYPE in found["a bias of another dtype"]
    assert "expected scalar type BFloat16 but found Float" in found["a norm's weight of another dtype"]
    assert "got mask on cpu and self on cuda:0" in found["a host mask fills"]


def test_what_cuda_refuses_is_refused_without_data(a6000: Stage) -> None:
    found = a6000.call(unseen_refusals, phantom_bytes=PHANTOM_BYTES)
    assert ON_TWO_DEVICES in found["an addition"]
    assert ONE_DTYPE in found["a product"]
    assert ONE_DTYPE in found["a bias"]
    assert "index 64 is out of bounds" in found["embedding"]
    assert "index -1 is out of bounds" in found["embedding, negative"]
    assert "index 64 is out of bounds" in found["index"]
    assert "index 64 is out of bounds" in found["gather"]
    assert "Expected a 'cuda' device type for generator" in found["generator"]


@pytest.mark.parametrize("phantom_bytes", [None, PHANTOM_BYTES])
def test_what_cuda_takes_is_taken(a6000: Stage, phantom_bytes: int | None) -> None:
    found = a6000.call(takes, phantom_bytes=phantom_bytes)
    assert {name: error for name, error in found.items() if error} == {}


def factories() -> list[tuple[str, int]]:
    """Returns dtypes and sums of new tensors."""
    import torch

    before = torch.zeros(64, 64, device="cuda")
    torch.set_default_dtype(torch.bfloat16)
    after = torch.zeros(64, 64, device="cuda")
    threes = torch.full((600,), 3, device="cuda"), on_card(2, dtype=torch.int64).new_full((600,), 3)
    return [(str(tensor.dtype), int(tensor.sum())) for tensor in (before, after, *threes)]


def test_factories_without_data_give_torchs_dtypes(a6000: Stage) -> None:
    found = a6000.call(factories, phantom_bytes=PHANTOM_BYTES)
    assert found == [("torch.float32", 0), ("torch.bfloat16", 0), ("torch.int64", 1800), ("torch.int64", 1800)]


def waits() -> tuple[dict[str, int], int]:
    """Returns how often the host waits, by kind, and the bytes that it was brought."""
    import torch

    from tests.rehearsal.card.state import STATE

    STATE.counts_waits = True
    wide, kept = on_card(64, 64), on_card(64) > 0
    for _ in range(2):  # the second time a phantom's shapes are known
        wide.cpu()
        wide[kept]
        wide[torch.tensor([1])]
        wide.sum().item()
        wide.copy_(torch.ones(64, 64))
    torch.histc(on_card(4))
    torch.histc(on_card(4), 4, 0, 1)
    on_card(4).untyped_storage().cpu()
    torch.save(on_card(4), io.BytesIO())
    found: dict[str, int] = {}
    for (kind, *_), count in STATE.waits.items():
        found[kind] = found.get(kind, 0) + count
    return found, STATE.bytes_to_host.total()


@pytest.mark.parametrize("phantom_bytes", [None, PHANTOM_BYTES])
def test_waits_are_counted(a6000: Stage, phantom_bytes: int | None) -> None:
    found, nbytes = a6000.call(waits, phantom_bytes=phantom_bytes)
    assert found == {
        "copy to the host": 4,
        "copy to the card": 4,
        "aten::index by a mask": 2,
        "aten::_local_scalar_dense": 2,
        "aten::histc": 1,
    }
    assert nbytes == 2 * 64 * 64 * 4 + 2 * 4 * 4


def memory_after_a_fraction() -> tuple[tuple[int, int], tuple[int, int], float, str]:
    import torch

    before = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(0.5)
    most = before[1] // 2 + 2**20
    error = errors_of({"": lambda: torch.empty(most, dtype=torch.uint8, device="cuda")})[""]
    return before, torch.cuda.mem_get_info(), torch.cuda.get_per_process_memory_fraction(), error


def test_a_fraction_of_the_memory_limits_the_process_and_not_the_card(a6000: Stage) -> None:
    before, after, fraction, error = a6000.call(memory_after_a_fraction, phantom_bytes=PHANTOM_BYTES)
    assert before == after
    assert fraction == pytest.approx(0.5)
    assert error.startswith("OutOfMemoryError: CUDA out of memory")


def peaks() -> dict[str, int]:
    """Returns the peak memory of an operation without its input, in multiples of the input."""
    import torch

    wide = on_card(64, 1024)
    calls = {
        "amax": lambda: wide.amax(-1),
        "logsumexp": lambda: wide.logsumexp(-1),
        "multinomial": lambda: torch.multinomial(wide, 1),
        "cumsum": lambda: wide.cumsum(-1),
        "cumsum in float64": lambda: wide.cumsum(-1, dtype=torch.float64),
    }
    found: dict[str, int] = {}
    for name, call in calls.items():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        found[name] = (torch.cuda.max_memory_allocated() - before) // wide.nbytes
    return found


@pytest.mark.parametrize("phantom_bytes", [None, PHANTOM_BYTES])
def test_composite_kernels_hold_a_copy_of_their_input(a6000: Stage, phantom_bytes: int | None) -> None:
    expected = {"amax": 0, "logsumexp": 1, "multinomial": 1, "cumsum": 1, "cumsum in float64": 4}
    assert a6000.call(peaks, phantom_bytes=phantom_bytes) == expected


def address_space() -> str:
    import resource

    from tests.rehearsal.card.memory import Addresses

    resource.setrlimit(resource.RLIMIT_AS, (2**36, 2**36))
    return errors_of({"": lambda: Addresses().take(4096)})[""]


def test_too_little_address_space_is_reported(a6000: Stage) -> None:
    assert "MemoryError: no address space" in a6000.call(address_space)


def test_every_card_is_known() -> None:
    assert MULTIPROCESSORS.keys() == CARDS.keys()
    assert {card.compute_capability for card in CARDS.values()} == SHARED_BYTES.keys()
