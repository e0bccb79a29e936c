"""Checks that this checkout can be released, builds it, and prints the commands that release it; it releases nothing.

.venv/bin/python scripts/release.py            # every check, every test, then the build
.venv/bin/python scripts/release.py --quick    # without the tests
"""

import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSION = re.compile(r"\d+\.\d+\.\d+")
HEADING = re.compile(r"^## \[(?P<version>[^\]]+)\](?: - (?P<date>\d{4}-\d\d-\d\d))?$", re.MULTILINE)
LARGEST_WHEEL = 8 * 2**20
"""Bytes: the embedded model and uPlot are 4 MiB of it."""


def faults_of_text(version: str, changelog: str, today: str) -> Iterator[str]:
    """Yields what version and changelog lack."""
    if not VERSION.fullmatch(version):
        yield f"lowmem_rl/_version.py says {version}: a release is X.Y.Z"
    headings = list(HEADING.finditer(changelog))
    named = [heading["version"] for heading in headings]
    if version not in named:
        yield f"CHANGELOG.md has no heading `## [{version}] - {today}`"
        return
    place = named.index(version)
    if headings[place]["date"] != today:
        yield f"CHANGELOG.md dates {version} on {headings[place]['date']}, today is {today}"
    end = headings[place + 1].start() if place + 1 < len(headings) else len(changelog)
    if "\n- " not in changelog[headings[place].end() : end]:
        yield f"CHANGELOG.md says nothing of {version}"
    first = headings[0]
    if first["version"] == "Unreleased" and "\n- " in changelog[first.end() : headings[1].start()]:
        yield "CHANGELOG.md has entries under [Unreleased]: they belong to this release"


def faults_of_tree() -> Iterator[str]:
    """Yields what git has that a tag would not."""
    if run("git", "status", "--porcelain").stdout.strip():
        yield "the checkout has changes that are not committed"


def faults_of_wheel(wheel: Path) -> Iterator[str]:
    """Yields what is wrong with the built wheel."""
    if wheel.stat().st_size > LARGEST_WHEEL:
        yield f"{wheel.name} has {wheel.stat().st_size / 2**20:.1f} MiB, at most {LARGEST_WHEEL / 2**20:.0f} are meant"
    names = zipfile.ZipFile(wheel).namelist()
    for needed in ("lowmem_rl/_presets/tiny-cpu.toml", "lowmem_rl_cli/app.py", "lowmem_rl/_studies/which-layers.toml"):
        if needed not in names:
            yield f"{wheel.name} lacks {needed}"
    if strange := [name for name in names if name.startswith(("tests/", "runs/")) or "__pycache__" in name]:
        yield f"{wheel.name} holds {strange[0]}"


def run(*command: str) -> "subprocess.CompletedProcess[str]":
    """Runs a command in the checkout and returns what it printed."""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def stop_on(faults: Iterator[str]) -> None:
    """Ends with all faults of a stage, if there are any."""
    if found := list(faults):
        sys.exit("\n".join(f"not ready: {fault}" for fault in found))


def main(quick: bool) -> None:
    """Checks, builds, and prints what is left to do."""
    from lowmem_rl import __version__

    stop_on(faults_of_text(__version__, (ROOT / "CHANGELOG.md").read_text("utf-8"), date.today().isoformat()))
    stop_on(faults_of_tree())
    if subprocess.run([ROOT / "scripts/check", *(["lint"] if quick else [])], check=False).returncode:
        sys.exit("not ready: scripts/check fails")
    built = run(sys.executable, "-m", "hatchling", "build", "-d", "dist")
    if built.returncode:
        sys.exit(f"not ready: the build fails\n{built.stderr}")
    (wheel,) = (ROOT / "dist").glob(f"lowmem_rl-{__version__}-*.whl")
    stop_on(faults_of_wheel(wheel))
    name = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["name"]
    print(f"{name} {__version__} is ready in dist/. To release it:\n")
    print(f"  git tag -s v{__version__} -m '{name} {__version__}'\n  git push origin v{__version__}")
    print(f"  twine upload dist/lowmem_rl-{__version__}*")


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
