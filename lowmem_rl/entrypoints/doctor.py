"""Checks whether this machine is ready to train: one small function a check, each with its fix.

Packages are never imported, only their metadata is read. The check of xformers' kernels needs torch and runs in a
subprocess.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from lowmem_rl.models.hardware import Machine, this_machine
from lowmem_rl.models.hub import hub_cache, is_offline
from lowmem_rl.stack import TESTED
from lowmem_rl.units import GIB

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class MachineCheck:
    """One check of the machine: `found` is the short answer, `fix` is what to do about it."""

    name: str
    status: Status
    found: str
    message: str = ""
    fix: str = ""
    command: str = ""
    """A command line that does it; empty if only a person can."""

    def to_json(self) -> dict[str, str]:
        """Returns plain JSON data."""
        shown = asdict(self)
        return shown | {"cure": shown.pop("fix")}


_PYTHONS = ((3, 11), (3, 14))

_CPU_BACKEND_SINCE = "2026.10.9"
# Unsloth 2026.10.9 requires a certifi that some package indexes do not have (seen in November 2026). Plain pip then
# falls back to 2026.10.7, which has no CPU backend. The pyproject.toml of a checkout has the override.
_OVERRIDE = "echo certifi > overrides.txt && uv pip install --override overrides.txt"
_INSTALL_ELSEWHERE = f"{_OVERRIDE} 'lowmem-rl[train]'"
_INSTALL_CHECKOUT = "uv pip install -e '.[train]'"
_INSTALL = f"In a checkout: {_INSTALL_CHECKOUT}. Elsewhere: {_INSTALL_ELSEWHERE}"

_SMALLEST_CAPABILITY = (7, 0)
"""Required by Unsloth's kernels."""
_ROOM_FOR_MODELS = 20 * GIB
"""Qwen2.5-7B in 16 bit takes 15 GB of the cache."""
_ROOM_FOR_A_RUN = 1 * GIB
_PROBE_TIMEOUT_S = 60


def check_machine(*, probe_xformers: bool = True) -> list[MachineCheck]:
    """Runs all checks: well under a second without the xformers probe, about ten seconds with it."""
    machine = this_machine()
    checks = [check_python(sys.version_info[:2]), check_card(machine)]
    if machine.num_gpus > 1:
        checks.append(check_gpu_count(machine))
    ranges = required_ranges().items()
    checks += [check_package(name, installed(name), required, machine) for name, required in ranges]
    checks += check_conflicts("transformers")
    if probe_xformers and (found := installed("xformers")):
        checks.append(check_xformers(found))
    return [*checks, *check_disk(), check_network()]


def fix_commands(checks: Iterable[MachineCheck], has_uv: bool) -> list[str]:
    """Returns the command lines that fix what is not ok, each once, in the order in which they have to run."""
    commands = list(dict.fromkeys(check.command for check in checks if check.status != "ok" and check.command))
    if commands and not has_uv:  # pip has no overrides
        return [f"{sys.executable} -m pip install uv", *commands]
    return commands


def is_ready(checks: list[MachineCheck]) -> bool:
    """Returns whether no check fails."""
    return all(check.status != "fail" for check in checks)


def check_python(found: tuple[int, ...]) -> MachineCheck:
    """Fails outside the supported versions; `found` is (major, minor)."""
    lowest, below = _PYTHONS
    name = platform.python_version() if found == sys.version_info[:2] else ".".join(map(str, found))
    if lowest <= found < below:
        return MachineCheck("python", "ok", name)
    fix = "uv venv --python 3.12"
    return MachineCheck("python", "fail", name, "Python 3.11, 3.12 or 3.13 is needed.", fix, fix)


def check_card(machine: Machine) -> MachineCheck:
    """Warns if there is no card or if it is shared; fails if it is too old for Unsloth's kernels."""
    if machine.card is None:
        ram = f"{machine.ram_bytes / GIB:.1f} GiB of RAM free"
        return MachineCheck(
            "card", "warn", "no GPU", f"The preset tiny-cpu trains on the CPU ({ram}, {machine.cores} cores)."
        )
    found = f"{machine.name}, {machine.free_bytes / GIB:.1f} of {machine.total_bytes / GIB:.1f} GiB free"
    if machine.card.compute_capability < _SMALLEST_CAPABILITY:
        old = ".".join(map(str, machine.card.compute_capability))
        return MachineCheck(
            "card", "fail", found, f"Compute capability {old}; Unsloth needs 7.0.", "Use a T4 or newer."
        )
    if machine.free_bytes < 0.9 * machine.total_bytes:
        return MachineCheck(
            "card", "warn", found, "Another process holds memory on it.", "See which one with: nvidia-smi"
        )
    return MachineCheck("card", "ok", found, f"Driver {machine.driver}.")


def check_gpu_count(machine: Machine) -> MachineCheck:
    fix = "Choose one with CUDA_VISIBLE_DEVICES."
    return MachineCheck("gpus", "ok", f"{machine.num_gpus} GPUs", "A run uses only the first one.", fix)


def check_package(name: str, found: str | None, required: SpecifierSet, machine: Machine) -> MachineCheck:
    """A missing package or one out of range fails; one in range that is not the tested version gives a warning."""
    if found is None:
        install = _INSTALL_CHECKOUT if Path("pyproject.toml").is_file() else _INSTALL_ELSEWHERE
        return MachineCheck(name, "fail", "not installed", "The extra `train` brings it.", _INSTALL, install)
    # a build of a pre-release counts as its release: a vendor's torch is 2.14.0a0+...
    found_version, tested = Version(Version(found).base_version), TESTED[name]
    fix = f"uv pip install '{name}=={tested}'"
    if name == "unsloth" and not machine.has_gpu and found_version < Version(_CPU_BACKEND_SINCE):
        message = f"The CPU backend began with {_CPU_BACKEND_SINCE}."
        newer = f"{_OVERRIDE} 'unsloth>={_CPU_BACKEND_SINCE}'"
        return MachineCheck(name, "fail", found, message, newer, newer)
    if found_version not in required:
        wanted = ",".join(sorted(map(str, required), reverse=True))
        return MachineCheck(name, "fail", found, f"{name}{wanted} is needed.", fix, fix)
    if found_version != Version(tested):
        return MachineCheck(name, "warn", found, f"Tested with {tested}.", fix, fix)
    return MachineCheck(name, "ok", found)


def check_conflicts(package: str) -> Iterator[MachineCheck]:
    """Yields a failure for each requirement of an installed package that is missing or of another version.

    transformers looks at its own when it is imported, and refuses.
    """
    for requirement in map(Requirement, requires(package) or () if installed(package) else ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = installed(requirement.name)
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            message = f"{package} needs {requirement.name}{requirement.specifier}, and does not load without it."
            fix = f"uv pip install '{requirement.name}{requirement.specifier}'"
            yield MachineCheck(requirement.name, "fail", found or "not installed", message, fix, fix)


def required_ranges() -> dict[str, SpecifierSet]:
    """Returns the version range of each tested package, from the extra `train` of the installed lowmem-rl."""
    found = dict.fromkeys(TESTED, SpecifierSet())
    with suppress(PackageNotFoundError):  # the sources without an installation have no metadata
        for requirement in map(Requirement, requires("lowmem-rl") or ()):
            if (name := requirement.name.replace("-", "_")) in found:
                found[name] = requirement.specifier
    return found


def check_xformers(found: str) -> MachineCheck:
    """Loads the kernels in a subprocess. Without them Unsloth uses PyTorch's attention: slower, never wrong."""
    try:
        probe = subprocess.run(
            [sys.executable, "-c", "from xformers._cpp_lib import _register_extensions as load; load()"],
            capture_output=True,
            text=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return MachineCheck("xformers", "warn", found, f"Its kernels did not load within {_PROBE_TIMEOUT_S} s.")
    if probe.returncode == 0:
        return MachineCheck("xformers", "ok", found)
    message = "Its kernels do not load with this torch; Unsloth uses PyTorch's attention instead."
    return MachineCheck("xformers", "warn", found, message)


def check_disk() -> list[MachineCheck]:
    """Checks the free space of the hub's cache and of the working directory."""
    return [
        _check_free("disk: hub cache", hub_cache(), _ROOM_FOR_MODELS),
        _check_free("disk: runs", Path.cwd(), _ROOM_FOR_A_RUN),
    ]


def _check_free(name: str, path: Path, needed_bytes: int) -> MachineCheck:
    place = next(place for place in (path, *path.absolute().parents) if place.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / GIB:.1f} GiB free in {path}"
    if not os.access(place, os.W_OK):
        return MachineCheck(name, "fail", found, f"{place} cannot be written.", "Set HF_HOME, or change directory.")
    if free < needed_bytes:
        message = f"{needed_bytes / GIB:.0f} GiB give room to work."
        return MachineCheck(name, "warn", found, message, "Free some space, or set HF_HOME to a larger disk.")
    return MachineCheck(name, "ok", found)


def check_network() -> MachineCheck:
    """Reports how the hub's client is configured; sends no request."""
    if is_offline():
        which = next(name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name))
        return MachineCheck("hub", "ok", f"offline ({which})", "Models and data come from the cache only.")
    return MachineCheck("hub", "ok", os.environ.get("HF_ENDPOINT", "huggingface.co"), "Downloads are allowed.")


def installed(name: str) -> str | None:
    """Returns the installed version of a package without importing it, None if there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
