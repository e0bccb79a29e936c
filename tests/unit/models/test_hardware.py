"""Cards and this machine."""

import os

import pynvml
import pytest

from lowmem_rl.errors import UnknownName
from lowmem_rl.models import hardware
from lowmem_rl.models.hardware import CARDS, find_card, recognise, this_machine
from lowmem_rl.units import GIB


def test_every_card_offers_less_than_its_name_says_and_names_a_source() -> None:
    nominal = {"4060": 8, "5060": 8, "3060": 12, "4070": 12, "5070": 12, "2060-12": 12, "gb10": 128}
    nominal |= {"t4": 16, "a4000": 16, "l4": 24, "a10g": 24, "a5000": 24, "3090": 24, "4090": 24, "5090": 32}
    nominal |= {"a100-40": 40, "a40": 48, "a6000": 48, "h100": 80, "a100-80": 80, "h200": 141}
    assert nominal.keys() == CARDS.keys()
    for key, card in CARDS.items():
        assert 0.9 * nominal[key] * GIB < card.offered_bytes < nominal[key] * GIB
        assert card.source


def test_only_cards_before_ampere_lack_bfloat16() -> None:
    assert {key for key, card in CARDS.items() if not card.has_bf16} == {"t4", "2060-12"}


@pytest.mark.parametrize("spelling", ["a6000", "A6000", "RTX A6000", "rtx-a6000"])
def test_a_card_is_found_in_common_spellings(spelling: str) -> None:
    assert find_card(spelling).key == "a6000"


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("NVIDIA L4", "l4"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 4090", "4090"),
        ("NVIDIA A100-SXM4-80GB", "a100-80"),
    ],
)
def test_a_card_is_found_by_the_name_its_driver_reports(name: str, key: str) -> None:
    assert find_card(name).key == key


def test_every_card_is_found_by_the_name_shown_here_unless_it_comes_in_two_sizes() -> None:
    two_sizes = ("A100", "GeForce RTX 2060")
    assert [c.key for c in CARDS.values() if c.name not in two_sizes and find_card(c.name) is not c] == []
    with pytest.raises(UnknownName) as caught:
        find_card("GeForce RTX 2060")
    assert "2060-12" in caught.value.hint


def test_a_near_card_is_offered_with_any_family_before_it() -> None:
    with pytest.raises(UnknownName, match="'NVIDIA L4x'") as caught:
        find_card("NVIDIA L4x")
    assert "l4" in caught.value.hint


def test_an_unknown_card_offers_near_names() -> None:
    with pytest.raises(UnknownName) as caught:
        find_card("a100")
    assert "a100-40" in caught.value.hint
    assert "a100-80" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "gib", "key"),
    [
        ("NVIDIA RTX A6000", 47.5, "a6000"),
        ("NVIDIA A100-SXM4-80GB", 79.2, "a100-80"),
        ("NVIDIA A100-PCIE-40GB", 39.4, "a100-40"),
        ("NVIDIA H200", 139.8, "h200"),
        ("Tesla T4", 14.7, "t4"),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 15.7, None),
        ("NVIDIA GeForce RTX 4060", 7.6, "4060"),
        ("NVIDIA GeForce RTX 4060 Ti", 15.6, None),
        ("NVIDIA GeForce RTX 5070", 11.5, "5070"),
        ("NVIDIA GeForce RTX 2060", 5.79, None),
        ("NVIDIA GeForce RTX 2060", 11.75, "2060-12"),
        ("NVIDIA GB10", 121.69, "gb10"),
        ("NVIDIA L40S", 44.4, None),
        ("NVIDIA RTX 6000 Ada Generation", 47.5, None),
    ],
)
def test_a_card_is_recognised_by_name_and_size(name: str, gib: float, key: str | None) -> None:
    card = recognise(name, int(gib * GIB))
    assert (card and card.key) == key


def test_no_visible_device_is_a_machine_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        machine = this_machine()
        assert (machine.card, machine.name, machine.num_gpus, machine.total_bytes) == (None, "cpu", 0, 0)


class SharedMemoryDriver:
    """NVML on a GB10: it names the GPU and does not know its memory."""

    NVMLError_NotSupported = pynvml.NVMLError_NotSupported
    NVMLError = pynvml.NVMLError
    nvmlMemory_v2 = pynvml.nvmlMemory_v2

    def nvmlDeviceGetMemoryInfo(self, gpu: object, version: int | None = None) -> object:
        raise self.NVMLError_NotSupported()

    def nvmlDeviceGetName(self, gpu: object) -> str:
        return "NVIDIA GB10"

    def nvmlDeviceGetCudaComputeCapability(self, gpu: object) -> tuple[int, int]:
        return (12, 1)

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.95.05"


def test_a_gpu_that_shares_the_host_s_memory_has_the_host_s() -> None:
    machine = hardware._gpu_machine([object()], SharedMemoryDriver())
    assert machine.has_gpu
    assert machine.total_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < machine.free_bytes <= machine.total_bytes
    assert machine.usable_bytes == machine.free_bytes


def test_this_machine_has_memory_and_cores() -> None:
    machine = this_machine()
    everything = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < machine.ram_bytes <= everything
    assert machine.cores >= 1
    assert machine.has_gpu == (machine.card is not None)
