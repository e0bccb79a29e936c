"""What keeps a checkout from being released."""

import zipfile
from pathlib import Path

import pytest

from scripts.release import faults_of_text, faults_of_wheel

TODAY = "2026-12-01"
READY = f"""# Changelog

## [Unreleased]

## [0.2.0] - {TODAY}

### Added

- A thing.

## [0.1.0] - 2026-11-01

- First.
"""


def test_a_dated_version_with_entries_is_ready() -> None:
    assert list(faults_of_text("0.2.0", READY, TODAY)) == []


@pytest.mark.parametrize(
    ("version", "old", "new", "fault"),
    [
        ("0.2.0.dev0", "", "", "a release is X.Y.Z"),
        ("0.3.0", "", "", "no heading"),
        ("0.2.0", TODAY, "2026-11-30", "today is"),
        ("0.2.0", "- A thing.\n", "", "says nothing"),
        ("0.2.0", "## [Unreleased]\n", "## [Unreleased]\n\n- Late.\n", "under [Unreleased]"),
    ],
)
def test_what_is_missing_is_named(version: str, old: str, new: str, fault: str) -> None:
    assert any(fault in found for found in faults_of_text(version, READY.replace(old, new), TODAY))


def test_a_wheel_without_presets_or_with_tests_is_not_released(tmp_path: Path) -> None:
    wheel = tmp_path / "lowmem_rl-0.2.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("lowmem_rl_cli/app.py", "")
        archive.writestr("tests/test_it.py", "")
    faults = " ".join(faults_of_wheel(wheel))
    assert "lacks lowmem_rl/_presets/tiny-cpu.toml" in faults
    assert "holds tests/test_it.py" in faults
