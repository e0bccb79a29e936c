"""What machine.json holds: enough to say on what a figure was measured, and nothing personal."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lowmem_rl._version import __version__
from lowmem_rl.engine.device import Device
from lowmem_rl.models.hardware import Machine

STACK = ("torch", "unsloth", "unsloth_zoo", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate")


def environment_record(machine: Machine, device: Device) -> dict[str, Any]:
    """Returns card, driver, versions and commit as plain JSON data."""
    return {
        "gpu": machine.name if machine.has_gpu else None,
        "driver": machine.driver or None,
        "gpu_bytes": machine.total_bytes,
        "device": device.kind,
        "dtype": device.dtype,
        "cores": machine.cores,
        "ram_bytes": machine.ram_bytes,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "commit": commit(),
    }


def versions() -> dict[str, str | None]:
    """Returns the versions of lowmem-rl and of the stack, None for a package that is not installed; imports nothing."""
    return {"lowmem-rl": __version__} | {name: _version(name) for name in STACK}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """Returns the commit of the checkout this package runs from, marked `-dirty` if it has changes, else None."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    describe = ["describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]  # no tag: the commit itself
    try:
        result = subprocess.run(["git", "-C", str(here), *describe], capture_output=True, text=True, check=False)
    except OSError:  # no git, or one that cannot be run
        return None
    return result.stdout.strip() or None
