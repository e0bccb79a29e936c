import json

import pytest

from lowmem_rl.errors import ConfigError
from lowmem_rl.scale_out.counterparts import MappedKey, changed, equal
from lowmem_rl.scale_out.hydra_text import override
from lowmem_rl.scale_out.mapping_page import code, mapping_page


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (5e-06, "5e-06"),
        ("Qwen/Qwen2.5-7B", "'Qwen/Qwen2.5-7B'"),
        ("it's", r"'it\'s'"),
        ("ends with \\", r"'ends with \\'"),
        (r"a\'b", r"'a\\\'b'"),
        ("null", "'null'"),
        (["q_proj", "a,b]"], "['q_proj','a,b]']"),
    ],
)
def test_a_value_stays_a_value_in_hydras_grammar(value, text):
    """Hydra itself reads these and more in tests/verl."""
    assert override("a.b", value) == f"a.b={text}"


def test_what_omegaconf_would_replace_is_refused():
    with pytest.raises(ConfigError, match="a.b = .*HOME") as refused:
        override("a.b", "x/${oc.env:HOME}")
    assert refused.value.hint == "Rename it."


def test_a_page_puts_what_differs_first():
    rows = [MappedKey("a.b", 1, equal("x")), MappedKey("c.d", None, changed("y", "it differs"))]
    page = mapping_page("A run", ["A fact."], rows)
    assert "Of 2 settings: 1 changed, 1 equal." in page
    assert "| `c.d` | `unset` | `y` | it differs |" in page
    assert page.index("c.d") < page.index("a.b")


@pytest.mark.parametrize("hostile", ["a | b", "`x` ``y``", "line\nbreak | <script>", "| |\r\n| --- |"])
def test_a_hostile_value_stays_in_its_cell(hostile):
    line = mapping_page("t", [], [MappedKey("k", {hostile: hostile}, equal(hostile))]).splitlines()[-2]
    assert line.replace("\\|", "").count("|") == 5
    fence = code(json.dumps({hostile: hostile})).split(" ")[0]
    assert fence.strip("`") == "" or "`" not in hostile
