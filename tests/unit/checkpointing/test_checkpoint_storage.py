import json
from pathlib import Path

import pytest

from lowmem_rl.checkpointing import checkpoint_storage
from lowmem_rl.checkpointing.checkpoint_storage import MANIFEST, newest, write_checkpoint
from lowmem_rl.errors import RunDirError
from lowmem_rl.storage.run_dir import RunDir

WEIGHTS = bytes(range(256)) * 64


def write(run: RunDir, *steps: int, keep: int = 2) -> None:
    for step in steps:
        write_checkpoint(run, step, lambda folder: (folder / "weights").write_bytes(WEIGHTS), keep)


def names(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


@pytest.fixture
def run(tmp_path) -> RunDir:
    return RunDir(tmp_path)


def test_the_last_ones_are_kept(run) -> None:
    write(run, 1, 2, 10)
    assert names(run) == ["step-000002", "step-000010"]
    assert newest(run, pytest.fail).step == 10


def test_a_run_without_checkpoints_has_none(run) -> None:
    assert newest(run, pytest.fail) is None
    run.checkpoints.mkdir()
    (run.checkpoints / ".step-000001.aside").mkdir()
    (run.checkpoints / "notes").mkdir()
    assert newest(run, pytest.fail) is None


def test_the_rows_that_a_resumed_run_reads_are_on_the_disk_before_it(run, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[str] = []
    monkeypatch.setattr(checkpoint_storage, "fsync", lambda path: flushed.append(path.name))
    tables = [run.metrics, run.samples, run.order, run.rollbacks, run.evaluations, run.trainable]
    for rows in tables:
        rows.write_text("{}\n")
    write(run, 1)
    assert sorted(flushed) == sorted(rows.name for rows in tables)


def truncated(folder: Path) -> None:
    (folder / "weights").write_bytes(WEIGHTS[:-1])


def with_a_flipped_bit(folder: Path) -> None:
    (folder / "weights").write_bytes(WEIGHTS[:-1] + bytes([WEIGHTS[-1] ^ 1]))


def without_a_file(folder: Path) -> None:
    (folder / "weights").unlink()


def with_a_flipped_bit_in_its_manifest(folder: Path) -> None:
    path = folder / MANIFEST
    path.write_text(path.read_text().replace('"format": 1', '"format": 3'))


def with_a_torn_manifest(folder: Path) -> None:
    path = folder / MANIFEST
    path.write_text(path.read_text()[:50])


def with_no_table_as_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_text("[1]")


def without_its_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


DAMAGES = (
    truncated,
    with_a_flipped_bit,
    without_a_file,
    with_a_flipped_bit_in_its_manifest,
    with_a_torn_manifest,
    with_no_table_as_manifest,
    without_its_manifest,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_named_and_passed_over(damage, run) -> None:
    write(run, 1, 2)
    damage(run.checkpoint(2))
    notes: list[str] = []
    assert newest(run, notes.append).step == 1
    assert str(run.checkpoint(2)) in notes[0]
    write(run, 2, 3)  # the run gets there again
    assert newest(run, pytest.fail).step == 3
    assert names(run) == ["step-000002", "step-000003"]


def test_where_all_are_damaged_nothing_is_thrown_away(run) -> None:
    write(run, 1, 2)
    for step in (1, 2):
        truncated(run.checkpoint(step))
    with pytest.raises(RunDirError, match="None of the 2 checkpoints") as error:
        newest(run, lambda text: None)
    assert f"rm -r {run.checkpoints}" in error.value.hint
    assert len(names(run)) == 2


def test_a_checkpoint_of_another_version_is_refused_and_its_writer_named(run, monkeypatch) -> None:
    write(run, 1)
    with monkeypatch.context() as future:
        future.setattr(checkpoint_storage, "FORMAT", 2)
        future.setattr(checkpoint_storage, "__version__", "9.0")
        write(run, 2)
    with pytest.raises(RunDirError, match="written by lowmem-rl 9.0 in format 2"):
        newest(run, pytest.fail)


def test_a_checkpoint_under_another_name_is_damaged(run) -> None:
    write(run, 1)
    run.checkpoint(1).rename(run.checkpoint(7))
    with pytest.raises(RunDirError, match="is whole"):
        newest(run, lambda text: None)
    assert json.loads((run.checkpoint(7) / MANIFEST).read_text())["step"] == 1
