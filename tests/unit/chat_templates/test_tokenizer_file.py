"""Encoding with a tokenizer.json, and ids beyond the embedding."""

import pytest

from lowmem_rl.chat_templates.tokenizer_file import check_embedded, encoder_of_model
from lowmem_rl.errors import SetupError
from lowmem_rl.models.lookup import TINY


def test_a_text_is_encoded_as_it_is() -> None:
    pytest.importorskip("tokenizers")
    encode = encoder_of_model(TINY)
    assert encode
    assert len(encode("12")) == len(encode("1")) + 1
    assert encode("") == []


def test_a_tokenizer_that_is_not_here_or_broken_is_not_known(tmp_path) -> None:
    assert encoder_of_model("somebody/nothing") is None
    (tmp_path / "tokenizer.json").write_text("{}")
    assert encoder_of_model(str(tmp_path)) is None


def test_an_id_beyond_the_embedding_is_refused_with_the_fix() -> None:
    check_embedded("some/model", [0, 9], 10)
    check_embedded("some/model", [], 10)
    with pytest.raises(SetupError, match="some/model writes the token id 10, but the model embeds 10 tokens") as caught:
        check_embedded("some/model", [3, 10, 4], 10)
    assert "one repository" in caught.value.hint
