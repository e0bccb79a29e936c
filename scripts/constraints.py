"""Writes constraints.txt: the version of every package that the extra `train` brings, as this environment has it.

    .venv/bin/python scripts/constraints.py

Packages of CUDA are left out: torch names their versions itself. It has names and versions alone, no addresses.
"""

import platform
import re
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

FILE = Path(__file__).parents[1] / "constraints.txt"
OF_TORCH = re.compile(r"(nvidia-(?!ml-py)|cuda-|triton$)")


def main() -> None:
    """Writes the file."""
    found = {name: number for name, number in installed("lowmem-rl", ("train",)).items() if not OF_TORCH.match(name)}
    head = (
        f"# The versions with which lowmem-rl was tried as a whole: Python {'.'.join(map(str, sys.version_info[:2]))}, "
        f"{platform.system()}, {platform.machine()}, {date.today().isoformat()}.\n"
        '#   pip install ".[train]" -c constraints.txt\n'
        "# Written by scripts/constraints.py.\n"
    )
    lines = [f"{name}=={number}" for name, number in sorted(found.items()) if name != "lowmem-rl"]
    FILE.write_text(head + "\n".join(lines) + "\n", "utf-8")


def installed(package: str, extras: tuple[str, ...] = ()) -> dict[str, str]:
    """Returns the versions of a package and of all that it needs, by normalised name; what is absent is left out."""
    found, waiting, seen = dict[str, str](), [(package, extras)], set[tuple[str, tuple[str, ...]]]()
    while waiting:
        name, chosen = key = waiting.pop()
        if key in seen:
            continue
        seen.add(key)
        try:
            found[re.sub(r"[-_.]+", "-", name).lower()] = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
        for requirement in map(Requirement, requires(name) or ()):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*chosen, "")):
                waiting.append((requirement.name, tuple(sorted(requirement.extras))))
    return found


if __name__ == "__main__":
    main()
