import os
from contextlib import suppress

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from lowmem_rl.errors import ConfigError, UnknownName
from lowmem_rl.models.hardware import CARDS, Machine, find_card
from lowmem_rl.planning.budget_input import (
    LARGEST_PROBE_BYTES,
    asked_place,
    nearest_card,
    place_here,
    place_of,
    read_bytes,
    read_pass_rate,
)
from lowmem_rl.units import GIB


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("24GiB", 24 * GIB),
        ("23.5 gib", 23.5 * GIB),
        ("24GB", 24 * 10**9),
        ("512MiB", GIB // 2),
        (" 16000MB ", 16 * 10**9),
    ],
)
def test_an_amount_of_memory_is_read_in_its_unit(text, size):
    assert read_bytes(text) == size


@pytest.mark.parametrize(
    "text", ["", "GiB", "24", "24G", "0GiB", "-1GiB", "1e3GiB", "nanGiB", "٢٤GiB", "24GiB\0", "24KiB"]
)
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(ConfigError, match="not an amount of memory"):
        read_bytes(text)


@pytest.mark.slow
@forall(st.text(max_size=30))
def test_hostile_text_is_an_amount_or_a_mistake(text):
    with suppress(ConfigError):
        assert 0 < read_bytes(text) < 2**54


@forall(st.floats())
def test_a_number_is_a_pass_rate_between_0_and_1_alone(number):
    try:
        assert read_pass_rate(repr(number)).mean == number
    except ConfigError:
        assert not 0 <= number <= 1


def test_several_numbers_are_the_probabilities_of_a_reward_s_values():
    rate = read_pass_rate("0.2,0.3, 0.5")
    assert (rate.kind, rate.mean) == ("given", 0.2)
    assert rate.informative_share(2) == pytest.approx(1 - (0.04 + 0.09 + 0.25))


@pytest.mark.parametrize("text", ["0.2,0.3", "0.5,0.5,0.5", "1.5,-0.5", "nan,1", "0.5,"])
def test_numbers_that_are_no_probabilities_are_refused(text):
    with pytest.raises(ConfigError):
        read_pass_rate(text)


def test_what_is_no_plain_file_is_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("/dev/zero", str(tmp_path / "pipe"), str(tmp_path), ""):
        with pytest.raises(ConfigError, match=f"--pass-rate '{name[:80]}' is neither a number nor a file"):
            read_pass_rate(name)


def test_a_file_too_large_for_a_probe_is_not_read_whole(tmp_path):
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(LARGEST_PROBE_BYTES + 1)
    with pytest.raises(ConfigError, match="larger than any probe's file"):
        read_pass_rate(str(tmp_path / "large.json"))


def test_a_place_is_asked_for_once_or_not_at_all():
    assert asked_place(None, None) is None
    assert asked_place("RTX 4090", None).card == find_card("4090")
    assert asked_place(None, "10GiB").budget_bytes == 10 * GIB
    with pytest.raises(ConfigError, match="contradict"):
        asked_place("4090", "24GiB")


def test_the_cpu_is_a_place_too_and_is_among_the_near_names():
    assert place_of("CPU").card is None
    with pytest.raises(UnknownName) as error:
        place_of("gpu")
    assert "cpu" in error.value.hint


def test_a_preset_is_chosen_by_the_largest_card_that_offers_no_more():
    assert nearest_card(asked_place(None, "24GiB")) == "4090"
    assert nearest_card(asked_place(None, "2GiB")) == "5060"
    assert nearest_card(place_of("a5000")) == "a5000"
    assert nearest_card(place_of("cpu")) is None


def test_this_machine_offers_what_is_free_on_it():
    gpu = Machine(CARDS["t4"], "Tesla T4", 15 * GIB, 12 * GIB, "570", 1, 8 * GIB, 4)
    assert (place_here(gpu).card, place_here(gpu).budget_bytes) == (CARDS["t4"], 12 * GIB)
    cpu = Machine(None, "cpu", 0, 0, "", 0, 8 * GIB, 4)
    assert (place_here(cpu).card, place_here(cpu).budget_bytes) == (None, 8 * GIB)
