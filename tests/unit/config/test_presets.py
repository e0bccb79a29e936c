import pytest

from lowmem_rl.config.presets import default_preset, load_preset, load_presets
from lowmem_rl.errors import UnknownName
from lowmem_rl.models.hardware import CARDS
from lowmem_rl.planning.presets_table import presets_table


def test_presets_come_in_the_order_of_their_cards():
    assert load_presets()[0].name == "tiny-cpu"
    assert load_presets()[-1].card == "a100-80"


@pytest.mark.parametrize("name", ["", "qwen", "../presets/tiny-cpu", "tiny-cpu.toml", "a\0b"])
def test_only_a_preset_of_the_list_is_loaded(name):
    with pytest.raises(UnknownName):
        load_preset(name)


@pytest.mark.parametrize(
    ("card", "name"),
    [
        (None, "tiny-cpu"),
        ("4060", "qwen1.5b-8gb"),
        ("2060-12", "qwen3b-12gb"),
        ("t4", "qwen1.5b-t4"),
        ("l4", "qwen7b-24gb"),
        ("a6000", "qwen7b-a6000"),
        ("h200", "qwen7b-a6000"),
        ("a-card-of-the-future", "qwen1.5b-t4"),
    ],
)
def test_a_machine_gets_what_its_card_can_run(card, name):
    assert default_preset(card) == name


@pytest.mark.parametrize("card", CARDS)
def test_the_default_is_made_for_no_larger_card(card):
    made_for = CARDS[load_preset(default_preset(card)).card]
    assert made_for.offered_bytes <= 1.1 * CARDS[card].offered_bytes


def test_the_table_has_a_row_for_each_preset():
    rows = presets_table().splitlines()[2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == [preset.name for preset in load_presets()]
