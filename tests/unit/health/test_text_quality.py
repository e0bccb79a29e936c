"""Broken text is distinguished from honest text, in any language and length."""

import random

import pytest

from lowmem_rl.health.text_quality import (
    ALIEN_SHARE,
    alien_share,
    broken_share,
    is_broken,
    loop_length,
    scripts_of,
)

DESTROYED = [  # by the embedded model after three steps at a learning rate of 1
    "503boxed>2224\ufffd\r0\ufffd33boxed05\ufffd0534>854\ufffd5>24>222234224134912492414\ufffd\r\r\r245245",
    "5124\ufffd\r\r\rX2>31324\ufffd\r\r\ufffd\r\r\ufffd514\ufffd0N335</2435</41095934349559243boxed24\ufffd\r233",
]
BABBLE = (  # by the embedded model, asked something it has never seen
    "<think></think>></></4>></></></think>>>>></></think>></></></think>></think></></think></4>>><think></think></>"
    "</think></think></60>></think>\\<think>></think>>>>>think>></7>"
)
HONEST = [
    "",
    "7",
    "<think>2*2+0=4\n9*2+0=18\n9*2+1=19</think>\\boxed{1984}",
    "1/3 = 0.3333333333333333, so three of them make 1.",
    "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\nNatalia sold 48+24 = <<48+24=72>>72 clips altogether.\n#### 72",
    "Weng verdient 12/60 = 0,20 Dollar in der Minute. Für 50 Minuten bekommt sie also 50 × 0,20 = 10 Dollar.",
    "娜塔莉亚在五月卖出了四十八的一半，也就是二十四个夹子。两个月加起来一共是七十二个。",
    "Наталья продала в мае вдвое меньше, то есть двадцать четыре; всего получается семьдесят две заколки.",
]


def elimination(rng: random.Random) -> str:
    rows = [[rng.randint(-9, 9) for _ in range(6)] for _ in range(3)]
    text = ""
    for step in range(9):
        rows[step % 3] = [value + rng.randint(-3, 3) for value in rows[step % 3]]
        matrix = " \\\\ ".join(" & ".join(map(str, row)) for row in rows)
        text += f"Subtract {step} times row {step % 3 + 1}:\n\\begin{{bmatrix}} {matrix} \\end{{bmatrix}}\n"
    return text


@pytest.mark.parametrize("text", [*DESTROYED, BABBLE, "So it is 12. " * 30, "7" * 60, "哈哈" * 40, "a b c " * 20])
def test_gibberish_is_broken(text):
    assert is_broken(text)


@pytest.mark.parametrize("text", HONEST)
def test_honest_text_is_not_broken(text):
    assert not is_broken(text)


def test_worked_matrices_are_not_broken_at_any_length():
    rng = random.Random(0)
    texts = [elimination(rng) for _ in range(20)]
    assert not any(is_broken(text[:length]) for text in texts for length in range(50, len(text) + 1, 50))


def test_a_loop_is_found_at_the_end_after_any_text():
    assert loop_length("The answer:" + "12, " * 9) == 36
    assert loop_length("no loop here") == 0
    assert is_broken("Let us see. " + "It follows. " * 400)


def test_half_bytes_and_controls_are_not_text_but_line_breaks_are():
    assert broken_share("a\ufffd\x00b") == 0.5
    assert broken_share("a\n\tb\r\n") == 0
    assert broken_share("") == 0


def test_a_script_is_alien_if_neither_prompt_nor_start_has_it():
    english = scripts_of(("What is 2 + 2?", "Four, by counting."))
    assert alien_share("四加二等于六", english) == 1
    assert alien_share("x = 4, π r² and so on", english) == 0
    assert alien_share("12 + 3", english) == 0
    assert alien_share("四加二等于六", scripts_of(("二加二等于几？",))) < ALIEN_SHARE


def test_hostile_text_of_any_size_is_checked_quickly():
    for text in ("\x00" * 100_000, "a" * 100_000, "\ud800" * 1000, "ab" * 50_000, "<think>" * 20_000):
        assert is_broken(text)
