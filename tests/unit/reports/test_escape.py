from hypothesis import given
from hypothesis import strategies as st

from lowmem_rl.reports.escape import LONGEST_COMPARED, marked, one_line, shown


@given(st.text(alphabet=st.characters(codec=None, exclude_categories=())))
def test_shown_text_has_no_control_characters_and_no_direction_marks(text) -> None:
    visible = shown(text)
    assert not any(ord(c) < 32 and c not in "\n\t" for c in visible)
    assert not set("\x7f\x9b\u200b\u200e\u202e\u2066\u2067\u2069\ufeff") & set(visible)
    visible.encode("utf-8")


def test_what_is_plain_stays_as_it_is() -> None:
    assert shown("a\tb\n\\boxed{7} é 数 🙂") == "a\tb\n\\boxed{7} é 数 🙂"


def test_a_long_text_is_cut_and_its_length_given() -> None:
    assert shown("x" * 1_000_000, 10) == "xxxxxxxxxx … 999,990 characters more"
    assert one_line("a\n  b\n") == "a b"
    assert one_line("x" * 1_000_000, 5) == "xxxx…"


@given(st.text(), st.text())
def test_the_marked_pieces_are_the_later_text(earlier, later) -> None:
    assert "".join(piece for _, piece in marked(earlier, later)) == later


def test_only_what_differs_is_marked() -> None:
    assert [piece for differs, piece in marked("so 7 it is", "so 8 it is") if differs] == ["8"]
    assert list(marked("", "x" * (LONGEST_COMPARED + 1)))[-1] == (False, "x")
