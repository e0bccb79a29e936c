import os
import sys

import pytest

from lowmem_rl.telemetry.output_capture import capture_library_output


@pytest.mark.parametrize(
    "make",
    [lambda path: path.symlink_to("elsewhere"), os.mkfifo, lambda path: path.mkdir()],
    ids=["link", "pipe", "dir"],
)
def test_what_is_no_file_takes_no_talk_and_costs_nothing(make, tmp_path) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    make(tmp_path / "libraries.log")
    with capture_library_output(tmp_path / "libraries.log"):
        sys.stdout.write("a banner")
    assert (tmp_path / "elsewhere").read_text() == "precious"


def test_output_of_libraries_is_appended_to_the_file(tmp_path) -> None:
    for line in ("one", "two"):
        with capture_library_output(tmp_path / "libraries.log"):
            sys.stdout.write(f"{line}\n")
    assert (tmp_path / "libraries.log").read_text() == "one\ntwo\n"
