"""Is this machine ready to train: one small check a question, each with its cure.

Packages are asked for their version only, never imported; the one exception, whether xformers'
kernels load, runs in a process of its own because it takes torch with it.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from lowmem_rl.models.hardware import Machine, this_machine
from lowmem_rl.models.lookup import hub_cache
from lowmem_rl.stack import TRIED, TestedVersion
from lowmem_rl.units import GIB

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class MachineCheck:
    """One question about the machine: `found` is the short answer, `cure` what to do about it."""

    name: str
    status: Status
    found: str
    message: str = ""
    cure: str = ""


PYTHONS = ((3, 11), (3, 14))

# Unsloth 2026.10.9 asks for a certifi that package indexes did not have in November 2026; plain pip
# then falls back to 2026.10.7, which has no CPU backend. A checkout's pyproject.toml carries the override.
OVERRIDE = "echo certifi > overrides.txt && uv pip install --override overrides.txt"
INSTALL = f"In a checkout: uv pip install -e '.[train]'. Elsewhere: {OVERRIDE} 'lowmem-rl[train]'"

SMALLEST_CAPABILITY = (7, 0)
"""Of Unsloth's kernels."""
ROOM_FOR_MODELS = 20 * GIB
"""Qwen2.5-7B in 16 bit takes 15 GB in the cache."""
ROOM_FOR_A_RUN = 1 * GIB
PROBE_TIMEOUT_S = 60


def check_machine(*, probe_xformers: bool = True) -> list[MachineCheck]:
    """Asks everything. Takes well under a second without the xformers probe, some ten with it."""
    machine = this_machine()
    checks = [check_python(sys.version_info[:2]), check_card(machine)]
    if machine.num_gpus > 1:
        checks.append(check_gpu_count(machine))
    checks += [check_package(name, installed(name), tried, machine) for name, tried in TRIED.items()]
    if probe_xformers and (found := installed("xformers")):
        checks.append(check_xformers(found))
    return [*checks, *check_disk(), check_network()]


def is_ready(checks: list[MachineCheck]) -> bool:
    return all(check.status != "fail" for check in checks)


def check_python(found: tuple[int, ...]) -> MachineCheck:
    lowest, below = PYTHONS
    name = platform.python_version() if found == sys.version_info[:2] else ".".join(map(str, found))
    if lowest <= found < below:
        return MachineCheck("python", "ok", name)
    return MachineCheck("python", "fail", name, "Python 3.11, 3.12 or 3.13 is needed.", "uv venv --python 3.12")


def check_card(machine: Machine) -> MachineCheck:
    if machine.card is None:
        ram = f"{machine.ram_bytes / GIB:.1f} GiB of RAM free"
        return MachineCheck(
            "card", "warn", "no GPU", f"The preset tiny-cpu trains on the CPU ({ram}, {machine.cores} cores)."
        )
    found = f"{machine.name}, {machine.free_bytes / GIB:.1f} of {machine.total_bytes / GIB:.1f} GiB free"
    if machine.card.compute_capability < SMALLEST_CAPABILITY:
        old = ".".join(map(str, machine.card.compute_capability))
        return MachineCheck(
            "card", "fail", found, f"Compute capability {old}; Unsloth needs 7.0.", "Take a T4 or newer."
        )
    if machine.free_bytes < 0.9 * machine.total_bytes:
        return MachineCheck("card", "warn", found, "Another process holds memory on it.", "Look who with: nvidia-smi")
    return MachineCheck("card", "ok", found, f"Driver {machine.driver}.")


def check_gpu_count(machine: Machine) -> MachineCheck:
    cure = "Choose one with CUDA_VISIBLE_DEVICES."
    return MachineCheck("gpus", "ok", f"{machine.num_gpus} GPUs", "A run uses the first, and only that.", cure)


def check_package(name: str, found: str | None, tried: TestedVersion, machine: Machine) -> MachineCheck:
    """Missing or outside the range fails; inside it but not the tried version is worth a warning."""
    if found is None:
        return MachineCheck(name, "fail", "not installed", "The extra `train` brings it.", INSTALL)
    if name == "unsloth" and not machine.has_gpu and _parts(found) < _parts(tried.lowest):
        message = f"The CPU backend began with {tried.lowest}."
        return MachineCheck(name, "fail", found, message, f"{OVERRIDE} 'unsloth>={tried.lowest}'")
    if _parts(found) < _parts(tried.lowest) or (tried.below and _parts(found) >= _parts(tried.below)):
        wanted = f">={tried.lowest}" + (f",<{tried.below}" if tried.below else "")
        return MachineCheck(
            name, "fail", found, f"{name}{wanted} is needed.", f"uv pip install '{name}=={tried.version}'"
        )
    if _parts(found) != _parts(tried.version):
        return MachineCheck(
            name, "warn", found, f"Tried with {tried.version}.", f"uv pip install '{name}=={tried.version}'"
        )
    return MachineCheck(name, "ok", found)


def check_xformers(found: str) -> MachineCheck:
    """Loads the kernels elsewhere. Without them Unsloth takes PyTorch's attention: slower, never wrong."""
    try:
        probe = subprocess.run(
            [sys.executable, "-c", "from xformers._cpp_lib import _register_extensions as load; load()"],
            capture_output=True,
            text=True,
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return MachineCheck("xformers", "warn", found, f"Its kernels did not load within {PROBE_TIMEOUT_S} s.")
    if probe.returncode == 0:
        return MachineCheck("xformers", "ok", found)
    message = "Its kernels do not load with this torch; Unsloth takes PyTorch's attention instead."
    return MachineCheck("xformers", "warn", found, message)


def check_disk() -> Iterator[MachineCheck]:
    yield _disk_check("disk: hub cache", hub_cache(), ROOM_FOR_MODELS)
    yield _disk_check("disk: runs", Path.cwd(), ROOM_FOR_A_RUN)


def _disk_check(name: str, path: Path, wanted_bytes: int) -> MachineCheck:
    place = next(place for place in (path, *path.absolute().parents) if place.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / GIB:.1f} GiB free in {path}"
    if not os.access(place, os.W_OK):
        return MachineCheck(name, "fail", found, f"{place} cannot be written.", "Set HF_HOME, or change directory.")
    if free < wanted_bytes:
        message = f"{wanted_bytes / GIB:.0f} GiB give room to work."
        return MachineCheck(name, "warn", found, message, "Free some space, or set HF_HOME to a larger disk.")
    return MachineCheck(name, "ok", found)


def check_network() -> MachineCheck:
    """Says what the hub's client was told; it does not call out."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        return MachineCheck("hub", "ok", "offline (HF_HUB_OFFLINE)", "Models and data come from the cache only.")
    return MachineCheck("hub", "ok", os.environ.get("HF_ENDPOINT", "huggingface.co"), "Downloads are allowed.")


def installed(name: str) -> str | None:
    """Returns the installed version of a package, without importing it."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _parts(text: str) -> tuple[int, ...]:
    """Reads `2.14.1+cu130` as (2, 14, 1): what compares. A pre-release counts as its release."""
    numbers = []
    for part in text.partition("+")[0].split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
