"""Tables and lists on pages of several widths."""

import pytest
from lowmem_rl_cli.text_page import GREEN, TextPage

HEAD, ROWS = ("name", "steps", "about"), [("short", "8", "one two three four five"), ("longer", "1024", "six")]


def test_columns_of_digits_are_aligned_to_the_right() -> None:
    assert list(TextPage(60).table(ROWS, head=HEAD)) == [
        "  name    steps  about",
        "  short       8  one two three four five",
        "  longer   1024  six",
    ]


def test_a_long_last_cell_is_folded_in_its_column() -> None:
    assert list(TextPage(34).table(ROWS, head=HEAD))[1:3] == [
        "  short       8  one two three",
        "                 four five",
    ]


def test_rows_on_a_narrow_page_are_paragraphs() -> None:
    first, *rest = TextPage(24).table(ROWS, head=HEAD)
    assert first == "  name short: steps 8,"
    assert max(map(len, rest)) <= 24


def test_a_list_too_wide_for_the_page_has_its_last_cells_below() -> None:
    assert list(TextPage(30).listing(HEAD, ROWS)) == [
        "name    steps",
        "short       8",
        "  one two three four five",
        "longer   1024",
        "  six",
    ]
    assert list(TextPage(60).listing(HEAD, ROWS))[1] == "short       8  one two three four five"


@pytest.mark.parametrize("colours", [True, False])
def test_colours_do_not_move_a_column(colours) -> None:
    (line,) = TextPage(60, colours=colours).table([("x", "ok", "fine")], inks={"ok": GREEN})
    assert line.replace("\x1b[32m", "").replace("\x1b[0m", "") == "  x  ok  fine"
    assert ("\x1b[32mok" in line) == colours
