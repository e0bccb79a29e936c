"""The word check finds what its list holds, in names as in prose, and nothing else."""

import pytest

from scripts.check_words import Use, main, uses, words_of


@pytest.mark.parametrize("text", ["told", "Told later", "is_told_at_the_end", "ToldLater", "TOLD = 1", "(told)"])
def test_a_word_is_found_in_prose_and_in_the_parts_of_a_name(text: str) -> None:
    assert "told" in words_of(text)


@pytest.mark.parametrize("text", ["untold", "tolde", "retoldings", '{"told": 1}'])
def test_other_words_and_keys_of_files_are_not_found(text: str) -> None:
    assert "told" not in words_of(text)


def test_each_use_is_printed_with_its_line_and_more_than_the_limit_is_an_error(tmp_path, capsys) -> None:
    source = tmp_path / "code.py"
    source.write_text("one = 1\n" * 1999 + "# told\n")
    (tmp_path / "data.json").write_text('"told"')
    assert main(tmp_path) == 0
    assert capsys.readouterr().out.startswith("code.py:2000: told (write: ")
    source.write_text(source.read_text() + "# anew, alike\n")
    assert main(tmp_path) == 1


def test_the_list_that_a_document_shows_does_not_count(tmp_path) -> None:
    (tmp_path / "A.md").write_text("<!-- words:begin -->\ntold\n<!-- words:end -->\nanew\n")
    assert list(uses(tmp_path)) == [Use("A.md", 4, "anew")]
