"""Cards and what they really offer, and this machine's card. No torch: NVML asks the driver.

A card offers less than its name says: error correction and the driver take their share before any process starts.
`offered_bytes` is the total that CUDA reports to a process.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lowmem_rl.errors import UnknownName, near_names
from lowmem_rl.units import GIB


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU model. bfloat16 in hardware begins with compute capability 8.0 (Ampere)."""

    key: str
    name: str
    """Part of the name that the driver reports."""
    offered_bytes: int
    compute_capability: tuple[int, int]
    source: str

    @property
    def has_bf16(self) -> bool:
        return self.compute_capability >= (8, 0)


@dataclass(frozen=True, slots=True)
class Machine:
    """What a run can use here. Without a driver `name` is "cpu" and the GPU's numbers are 0."""

    card: Card | None
    """From the table, or made from the driver's answers; None without a GPU."""
    name: str
    total_bytes: int
    free_bytes: int
    driver: str
    num_gpus: int
    """GPUs this process may see; a run uses the first."""
    ram_bytes: int
    """Host memory that is free now, without swap."""
    cores: int

    @property
    def has_gpu(self) -> bool:
        return self.num_gpus > 0

    @property
    def usable_bytes(self) -> int:
        """What a run may use: the card's free memory, or the host's."""
        return self.free_bytes if self.has_gpu else self.ram_bytes


def _row(key: str, name: str, gib: float, capability: tuple[int, int], source: str) -> Card:
    return Card(key, name, int(gib * GIB), capability, source)


_GITHUB = "https://github.com"
_MODAL = f"{_GITHUB}/modal-labs/modal-client/pull/2797 (nvidia-smi's total, less what the driver keeps)"
_ADA = "nvidia-smi's total, less the 388 MiB that the driver keeps of a 4090"
_BLACKWELL = "nvidia-smi's total, less the 464 MiB that the driver keeps of a 5070"

# If reports differ by driver, the smallest one. "capacity" is the total in PyTorch's out-of-memory message. Of cards
# that are sold in two sizes the key is that of the larger one; of the 2060, whose common size is 6 GB, it says so.
CARDS: dict[str, Card] = {
    card.key: card
    for card in (
        _row("5060", "GeForce RTX 5060", 7.5, (12, 0), f"{_BLACKWELL}: 8151 MiB"),
        _row("4060", "GeForce RTX 4060", 7.61, (8, 9), f"{_ADA}: 8188 MiB"),
        _row("5070", "GeForce RTX 5070", 11.48, (12, 0), f"total and reserve in {_GITHUB}/shkhln/libc6-shim/issues/14"),
        _row("4070", "GeForce RTX 4070", 11.61, (8, 9), f"{_ADA}: 12282 MiB, {_GITHUB}/meta-llama/llama/issues/466"),
        _row(
            "3060", "GeForce RTX 3060", 11.74, (8, 6), "Unsloth's banner on Linux; capacity in reports 11.75 to 11.76"
        ),
        _row("2060-12", "GeForce RTX 2060", 11.74, (7, 5), "as the 3060, not seen; the 6 GB one: 5.79 GiB in reports"),
        _row("t4", "Tesla T4", 14.56, (7, 5), f"capacity in {_GITHUB}/Zheng-Chong/CatVTON/issues/133"),
        _row("a4000", "RTX A4000", 15.61, (8, 6), f"capacity in {_GITHUB}/DengKaiCQ/VGGT-Long/issues/6"),
        _row("l4", "NVIDIA L4", 22.03, (8, 9), f"capacity in reports of g6 machines; 22.49 in {_MODAL}"),
        _row("a10g", "NVIDIA A10G", 22.06, (8, 6), f"capacity in reports of g5 machines; 22.49 in {_MODAL}"),
        _row("a5000", "RTX A5000", 23.5, (8, 6), "lower end of 24 GB workstation cards, 23.5 to 23.7 GiB"),
        _row("3090", "GeForce RTX 3090", 23.59, (8, 6), f"capacity in {_GITHUB}/Stable-X/StableNormal/issues/33"),
        _row("4090", "GeForce RTX 4090", 23.61, (8, 9), f"capacity in {_GITHUB}/pinokiofactory/flux-webui/issues/11"),
        _row("5090", "GeForce RTX 5090", 31.37, (12, 0), f"capacity in {_GITHUB}/Wan-Video/Wan2.1/issues/465"),
        _row("a100-40", "A100", 39.38, (8, 0), "capacity in vLLM reports, 39.38 to 39.56 GiB by driver"),
        _row("a40", "NVIDIA A40", 44.54, (8, 6), "Unsloth's banner on Linux; error correction is on"),
        _row("a6000", "RTX A6000", 47.4, (8, 6), "capacity in PyTorch reports, 47.40 to 47.54 GiB by driver"),
        _row("h100", "NVIDIA H100", 79.11, (9, 0), f"capacity in {_GITHUB}/vllm-project/vllm/issues/27508"),
        _row("a100-80", "A100", 79.25, (8, 0), f"capacity in {_GITHUB}/levihsu/OOTDiffusion/issues/235"),
        _row(
            "gb10",
            "NVIDIA GB10",
            119.69,
            (12, 1),
            "Unsloth's banner, 119.69 to 121.69 GiB by driver; the host's memory",
        ),
        _row("h200", "NVIDIA H200", 139.8, (9, 0), "capacity in PyTorch reports, 139.72 to 139.81 GiB by driver"),
    )
}

_FAMILIES = re.compile(r"(nvidia|geforce|tesla|quadro|rtx|sxm\d?|pcie|[\s_-])+")
"""What a card's name may hold in addition to its key."""


def find_card(name: str, *, others: Sequence[str] = ()) -> Card:
    """Returns the card of that key or name: "a6000", "RTX A6000", "NVIDIA A100-SXM4-80GB".

    Raises `UnknownName` with the nearest keys; `others` are further names that the caller takes.
    """
    key = re.sub(r"(\d)-?gi?b$", r"\1", _FAMILIES.sub("-", name.lower()).strip("-"))
    if key not in CARDS:
        unknown = UnknownName("card", name, ())
        unknown.hint = near_names(key, [*others, *CARDS])
        raise unknown
    return CARDS[key]


def this_machine() -> Machine:
    """Returns this machine, with the first GPU that CUDA_VISIBLE_DEVICES leaves visible.

    Without a driver, a card or permission to ask it counts as a machine without a GPU.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return _cpu_machine()
    try:
        return _gpu_machine(_visible_gpus(pynvml), pynvml)
    except pynvml.NVMLError:
        return _cpu_machine()
    finally:
        pynvml.nvmlShutdown()


def free_ram_bytes() -> int:
    """Returns the host memory a new process can take: MemAvailable on Linux, all of it on other systems.

    A container's own limit counts if it is lower.
    """
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        available = int(fields["MemAvailable"].split()[0]) * 1024
    else:
        available = _host_bytes()
    return min(available, _container_bytes() or available)


def _host_bytes() -> int:
    """Returns all of the host's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _container_bytes() -> int | None:
    """Returns what a cgroup (version 2) leaves to this container, or None without a limit.

    Cached file pages count as used there, but are given back under pressure.
    """
    limit, used, stat = (Path("/sys/fs/cgroup", f"memory.{name}") for name in ("max", "current", "stat"))
    if not all(file.is_file() for file in (limit, used, stat)) or not (text := limit.read_text().strip()).isdigit():
        return None
    counts = dict(line.split() for line in stat.read_text().splitlines())
    return max(int(text) - int(used.read_text()) + int(counts.get("inactive_file", 0)), 0)


def _cpu_machine() -> Machine:
    return Machine(None, "cpu", 0, 0, "", 0, free_ram_bytes(), os.cpu_count() or 1)


def _gpu_machine(gpus: list[Any], nvml: Any) -> Machine:
    if not gpus:
        return _cpu_machine()
    name = nvml.nvmlDeviceGetName(gpus[0])
    total, free = _memory(gpus[0], nvml)
    card = recognise(name, total)
    if card is None:
        capability, key = nvml.nvmlDeviceGetCudaComputeCapability(gpus[0]), name.lower().replace(" ", "-")
        card = Card(key, name, total, capability, "this machine's driver")
    driver = nvml.nvmlSystemGetDriverVersion()
    return Machine(card, name, total, free, driver, len(gpus), free_ram_bytes(), os.cpu_count() or 1)


def recognise(name: str, total_bytes: int) -> Card | None:
    """Returns the listed card for a driver's name and total, or None.

    The total decides too: "RTX 4090" is also a laptop card of 16 GB, "NVIDIA L40S" begins with "NVIDIA L4".
    """
    named = (card for card in CARDS.values() if card.name in name)
    return next((card for card in named if abs(card.offered_bytes - total_bytes) < card.offered_bytes / 10), None)


def _memory(gpu: Any, nvml: Any) -> tuple[int, int]:
    """Returns a GPU's total and free bytes as CUDA reports them, without the driver's own reserve.

    GB10 shares the host's memory, and NVML knows nothing of it (docs.nvidia.com/dgx/dgx-spark/known-issues.html).
    """
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(gpu, version=nvml.nvmlMemory_v2)
        return memory.total - memory.reserved, memory.free
    except nvml.NVMLError_NotSupported:
        return _host_bytes(), free_ram_bytes()
    except nvml.NVMLError:  # drivers before 510 report no reserve
        memory = nvml.nvmlDeviceGetMemoryInfo(gpu)
        return memory.total, memory.free


def _visible_gpus(nvml: Any) -> list[Any]:
    """Returns handles in the order of CUDA_VISIBLE_DEVICES; as in CUDA, the list ends at the first unknown entry."""
    wanted, count, gpus = os.environ.get("CUDA_VISIBLE_DEVICES"), nvml.nvmlDeviceGetCount(), []
    for name in map(str.strip, map(str, range(count)) if wanted is None else wanted.split(",")):
        if name.isascii() and name.isdigit() and int(name) < count:
            gpus.append(nvml.nvmlDeviceGetHandleByIndex(int(name)))
        elif name.startswith(("GPU-", "MIG-")):
            gpus.append(nvml.nvmlDeviceGetHandleByUUID(name))
        else:
            break
    return gpus
