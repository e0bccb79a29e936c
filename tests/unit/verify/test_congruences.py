"""Congruences."""

import pytest

from lowmem_rl.verify.equal import compare_exactly


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x \\equiv 4 \\pmod{9}", "x\\equiv 4 (mod 9)"),
        ("x \\equiv 4 \\pmod{9}", "x \\equiv 4 \\mod 9"),
        ("4 \\bmod 9", "4 \\pmod 9"),
        ("x \\equiv 13 \\pmod 9", "x≡4 (mod 9)"),
        ("n \\equiv 1, 5 \\pmod{6}", "n \\equiv 5 \\text{ or } 1 \\pmod 6"),
        ("x \\equiv 4 \\ (\\text{mod } 9)", "x \\equiv 4 \\pmod{9}"),
        ("4 \\pmod{9}", "x \\equiv 4 (\\bmod 9)"),
        ("x \\equiv -5 \\pmod{9}", "x = 4 \\pmod{9}"),
        ("n mod 9 = 4", "n \\equiv 4 \\pmod{9}"),
        ("n \\equiv 0 \\pmod 4 \\text{ or } n \\equiv 1 \\pmod 4", "n \\equiv 0, 1 \\pmod 4"),
        ("x \\equiv a \\pmod{p}", "x \\equiv a (mod p)"),
    ],
)
def test_one_congruence_in_two_notations_is_equal(one: str, other: str) -> None:
    assert compare_exactly(one, other) is True
    assert compare_exactly(other, one) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("x \\equiv 3 \\pmod{7}", "x \\equiv 4 \\pmod{7}"),
        ("x \\equiv 3 \\pmod{7}", "x \\equiv 3 \\pmod{8}"),
        ("x \\equiv 3 \\pmod{7}", "y \\equiv 3 \\pmod{7}"),
        ("n \\equiv 1, 5 \\pmod{6}", "n \\equiv 1 \\pmod{6}"),
    ],
)
def test_another_residue_modulus_or_name_is_unequal(one: str, other: str) -> None:
    assert compare_exactly(one, other) is False
    assert compare_exactly(other, one) is False
