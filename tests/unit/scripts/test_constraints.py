"""constraints.txt: versions that the project's own ranges take, and that it was tested with."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from lowmem_rl.stack import TESTED
from scripts.constraints import installed

ROOT = Path(__file__).parents[3]
FIXED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if not line.startswith("#")
)


def test_every_requirement_takes_its_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for requirement in map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["train"]]):
        name = requirement.name.replace("_", "-")
        assert requirement.specifier.contains(FIXED[name], prereleases=True), requirement


def test_the_versions_are_those_that_doctor_calls_tested() -> None:
    assert {name: FIXED[name.replace("_", "-")] for name in TESTED} == dict(TESTED)


def test_it_names_no_address() -> None:
    assert not any("/" in version or "@" in version for version in FIXED.values())


def test_packages_are_walked_with_their_extras() -> None:
    assert {"typer", "torch", "tensorboard"} <= set(installed("lowmem-rl", ("train",)))
    assert "torch" not in installed("lowmem-rl")
