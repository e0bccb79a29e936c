import contextlib
import errno
import threading
import time

import pytest

from lowmem_rl.storage.disk import (
    DiskFullRetry,
    append,
    remove_stale_tmp,
    retry_when_disk_full,
    write_dir_atomic,
    write_file,
)


def filled(disk) -> None:
    with (disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"0" * 4096):
            pass


def test_a_full_disk_leaves_whole_lines_and_whole_files(small_disk) -> None:
    append(small_disk / "rows", b"one\n")
    write_file(small_disk / "file", b"old")
    filled(small_disk)
    with pytest.raises(OSError, match="No space"):
        append(small_disk / "rows", b"two\n" * 4096)
    with pytest.raises(OSError, match="No space"):
        write_file(small_disk / "file", b"new" * 4096)
    assert (small_disk / "rows").read_bytes() == b"one\n"
    assert (small_disk / "file").read_bytes() == b"old"
    assert {path.name for path in small_disk.iterdir()} == {"rows", "file", "ballast"}


def test_a_run_waits_for_space_and_loses_nothing(small_disk) -> None:
    filled(small_disk)
    reported: list[str] = []

    def sleep(seconds: float) -> None:
        (small_disk / "ballast").unlink()

    with retry_when_disk_full(DiskFullRetry(reported.append, sleep)):
        append(small_disk / "rows", b"0" * 8192)
    assert (small_disk / "rows").stat().st_size == 8192
    assert "no space" in reported[0]
    assert "continues" in reported[1]


@pytest.mark.parametrize("library", ["torch", "safetensors"])
def test_a_library_that_finds_the_disk_full_is_understood(library, small_disk) -> None:
    import safetensors.torch
    import torch

    save = {"torch": torch.save, "safetensors": safetensors.torch.save_file}[library]
    with pytest.raises(OSError, match="No space") as error:
        write_dir_atomic(small_disk / "made", lambda folder: save({"a": torch.zeros(2_000_000)}, folder / "weights"))
    assert error.value.errno == errno.ENOSPC
    assert list(small_disk.iterdir()) == []


def test_another_error_is_not_waited_out(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with retry_when_disk_full(DiskFullRetry(lambda text: pytest.fail(text))), pytest.raises(FileExistsError):
        append(tmp_path / "file" / "rows", b"")


def test_a_folder_is_seen_whole_or_not_at_all(tmp_path) -> None:
    def fill(folder) -> None:
        for number in range(20):
            (folder / str(number)).write_text("")
            time.sleep(0.001)

    seen: set[int] = set()
    writer = threading.Thread(target=write_dir_atomic, args=(tmp_path / "made", fill))
    writer.start()
    while writer.is_alive():
        seen.add(len(list((tmp_path / "made").glob("*"))))
    assert seen <= {0, 20}
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_folder_that_cannot_be_made_leaves_the_old_one(tmp_path) -> None:
    write_dir_atomic(tmp_path / "made", lambda folder: (folder / "old").touch())
    with pytest.raises(ZeroDivisionError):
        write_dir_atomic(tmp_path / "made", lambda folder: 1 / 0)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["old"]
    write_dir_atomic(tmp_path / "made", lambda folder: (folder / "new").touch())
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_what_a_killed_process_left_is_cleared_up(tmp_path) -> None:
    for name in ("whole", ".whole.old", ".torn.aside", ".moved.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "of").write_text(name)
    remove_stale_tmp(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"whole", "moved"}
    assert (tmp_path / "whole" / "of").read_text() == "whole"
