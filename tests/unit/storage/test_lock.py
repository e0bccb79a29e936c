import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.disk import append, write_file
from lowmem_rl.storage.lock import locked

HOLDER = """
import sys, time
from pathlib import Path
from lowmem_rl.storage.lock import locked
with locked(Path(sys.argv[1]), print):
    print("held", flush=True)
    time.sleep(100)
"""


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path) -> None:
    path = tmp_path / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(RunDirError, match=f"in use by process {holder.pid} on "), locked(path, pytest.fail):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with locked(path, pytest.fail):
        assert path.read_text().startswith("process ")


def test_a_directory_that_cannot_be_written_is_named(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunDirError, match="cannot be written"), locked(tmp_path / "file" / ".lock", pytest.fail):
        pass


def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_stays(tmp_path) -> None:
    (tmp_path / "elsewhere").write_text("precious")
    (tmp_path / ".lock").symlink_to("elsewhere")
    with pytest.raises(RunDirError, match="cannot be written"), locked(tmp_path / ".lock", pytest.fail):
        pass
    assert (tmp_path / "elsewhere").read_text() == "precious"


@pytest.mark.parametrize("write", [lambda path: append(path, b"row"), lambda path: write_file(path, b"whole")])
def test_a_locked_directory_that_was_moved_is_not_made_again(tmp_path: Path, write: Callable[[Path], None]) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    run.mkdir()
    with locked(run / ".lock", pytest.fail):
        write(run / "metrics.jsonl")
        run.rename(moved)
        for _ in range(2):
            with pytest.raises(RunDirError, match=f"{run} was moved or deleted") as refused:
                write(run / "eval" / "after.jsonl")
        assert not run.exists()
        run.mkdir()  # another one has taken its place
        with pytest.raises(RunDirError, match="was moved or deleted"):
            write(run / "metrics.jsonl")
        write(tmp_path / "elsewhere" / "file")
    if sys.platform == "linux":
        assert f"--resume --out {moved}" in refused.value.hint
    write(run / "metrics.jsonl")  # no lock is held here any more


def test_a_locked_directory_that_was_deleted_is_not_made_again(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    with locked(run / ".lock", pytest.fail):
        shutil.rmtree(run)
        with pytest.raises(RunDirError, match="was moved or deleted") as refused:
            append(run / "metrics.jsonl", b"row")
    assert "--resume" not in refused.value.hint
    assert not run.exists()


ADDER = """
import sys
from pathlib import Path
from lowmem_rl.storage.lock import exclusive
folder = Path(sys.argv[1])
for _ in range(200):
    with exclusive(folder):
        (folder / "count").write_text(str(1 + int((folder / "count").read_text())))
"""


@pytest.mark.slow
def test_what_two_processes_change_in_turn_is_changed_by_both(tmp_path) -> None:
    (tmp_path / "count").write_text("0")
    adders = [subprocess.Popen([sys.executable, "-c", ADDER, tmp_path]) for _ in range(3)]
    assert [adder.wait() for adder in adders] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "600"
    assert [path.name for path in tmp_path.iterdir()] == ["count"]
