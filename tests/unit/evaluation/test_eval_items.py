"""What an evaluation finds when it comes back to its own file."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest

from lowmem_rl.errors import RunDirError
from lowmem_rl.evaluation.eval_items import Item, ItemFile, read_items
from lowmem_rl.storage.run_dir import append_row, drop_torn_row

ITEM = Item("a", "1+1?", "2", "two", 3, False, True, False, {}, by="me")


def written(path: Path, *items: Item) -> Path:
    for item in items:
        append_row(path, asdict(item))
    return path


def test_half_a_row_is_cut_off_and_the_next_one_is_whole(tmp_path) -> None:
    path = written(tmp_path / "items.jsonl", ITEM, replace(ITEM, example_id="b"))
    path.write_bytes(path.read_bytes()[:-9])
    file = ItemFile(path, "me")
    assert list(file.items) == [("a", 0)]
    file.add(replace(ITEM, example_id="c"))
    assert [item.example_id for item in read_items(path)] == ["a", "c"]


@pytest.mark.parametrize("content", [b"", b"torn", b"whole\n", b"whole\ntorn"])
def test_only_what_follows_the_last_line_break_goes(content, tmp_path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    drop_torn_row(path)
    assert path.read_bytes() == (b"whole\n" if b"\n" in content else b"")


def test_what_others_have_made_is_not_taken_over(tmp_path) -> None:
    path = written(tmp_path / "items.jsonl", replace(ITEM, by="another"), replace(ITEM, example_id="b"))
    assert list(ItemFile(path, "me").items) == [("b", 0)]
    assert [item.example_id for item in read_items(path)] == ["b"]


def test_rows_end_in_the_order_that_was_asked_for_and_others_stay(tmp_path) -> None:
    path = written(tmp_path / "items.jsonl", *(replace(ITEM, example_id=name) for name in "cab"))
    file = ItemFile(path, "me")
    file.add(replace(ITEM, example_id="a", completion="again"))
    assert [item.completion for item in file.finish([("a", 0), ("b", 0)])] == ["again", "two"]
    assert [item.example_id for item in read_items(path)] == ["a", "b", "c"]


@pytest.mark.parametrize("row", [{"example_id": "a"}, {**asdict(ITEM), "correct": "yes"}, {**asdict(ITEM), "by": 1}])
def test_a_row_that_is_not_an_item_is_reported_with_its_line(row, tmp_path) -> None:
    append_row(tmp_path / "items.jsonl", row)
    with pytest.raises(RunDirError, match="line 1"):
        ItemFile(tmp_path / "items.jsonl", "me")


def test_items_of_an_older_version_are_read(tmp_path) -> None:
    newer = ("level", "sample", "vote", "strict_vote", "by")
    append_row(tmp_path / "items.jsonl", {k: v for k, v in asdict(ITEM).items() if k not in newer} | {"more": 1})
    assert read_items(tmp_path / "items.jsonl") == [replace(ITEM, by="")]
