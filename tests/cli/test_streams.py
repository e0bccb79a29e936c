"""Commands whose standard streams are closed, full or without a reader, and users without a home."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

COMMAND = Path(sys.executable).with_name("lowmem-rl")
LIST = ["presets", "list"]


def in_shell(arguments: Sequence[str], streams: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["sh", "-c", f'"$0" "$@" {streams}', COMMAND, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", [LIST, ["--help"], ["train", "--help"], [*LIST, "--json"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_device_as_stdout_is_reported(arguments: list[str], unbuffered: str) -> None:
    done = in_shell(arguments, ">/dev/full", PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 3
    first, second = done.stderr.splitlines()
    assert first == "error: The output cannot be written: No space left on device."
    assert second.startswith("hint: ")


@pytest.mark.parametrize("streams", [">&-", "<&- >&-", "<&- >&- 2>&-", "2>&-"])
@pytest.mark.parametrize("arguments", [LIST, ["--help"], ["profile"]])
def test_closed_streams_are_like_the_null_device(arguments: list[str], streams: str) -> None:
    done = in_shell(arguments, streams)
    assert (done.returncode, done.stderr) == (0, "")


def test_with_stdout_closed_no_file_takes_its_place() -> None:
    """The lowest free descriptor is that of the next file opened: what a library prints would be written into it."""
    program = "import os; from lowmem_rl_cli import streams; streams.prepare(); os._exit(os.open(os.devnull, 0) < 3)"
    done = subprocess.run(["sh", "-c", '"$0" -c "$1" <&- >&- 2>&-', sys.executable, program], check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("streams", ["2>/dev/full", "2>&-"])
def test_an_error_that_nobody_can_read_has_its_exit_code(streams: str) -> None:
    done = in_shell(["presets", "show", "none"], streams)
    assert (done.returncode, done.stdout) == (2, "")


def test_a_full_disk_is_not_taken_for_stdout(small_disk: Path) -> None:
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(4096)):
            pass
    done = in_shell(["presets", "copy", "tiny-cpu", str(small_disk / "copy.toml")], "")
    assert "copy.toml" in done.stderr
    assert "The output" not in done.stderr


NOBODY = ["unshare", "--user", "--map-user=12345", "env", "--unset=HOME", "--unset=XDG_CACHE_HOME", "--unset=HF_HOME"]


def can_be_nobody() -> bool:
    return bool(shutil.which("unshare")) and subprocess.run([*NOBODY, "true"], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_be_nobody(), reason="no user namespaces here")
@pytest.mark.parametrize(
    "arguments", [["profile"], ["profile", "--preset", "qwen7b-a6000"], ["train", "--dry-run", "--preset", "tiny-cpu"]]
)
def test_a_user_without_home_and_passwd_entry_can_plan(arguments: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [*NOBODY, COMMAND, *arguments],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not can_be_nobody(), reason="no user namespaces here")
def test_a_path_from_a_home_that_there_is_not_is_named() -> None:
    done = subprocess.run([*NOBODY, COMMAND, "eval", "~/run"], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert done.stderr.startswith("error: A path begins with ~")
