"""Amounts as people read them."""

import pytest

from dspex.kit.wording import counted, usd_text


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0.0, "$0.00"),
        (0, "$0.00"),
        (20, "$20.00"),
        (0.5, "$0.50"),
        (13.20806, "$13.20806"),
        (0.011481000000000003, "$0.011481"),
        (6.54e-05, "$0.000065"),
        (0.000001, "$0.000001"),
        (9.9e-07, "<$0.000001"),
        (1e-300, "<$0.000001"),
        (1234567.891, "$1234567.891"),
        (1e22, "$10000000000000000000000.00"),
        (-0.25, "-$0.25"),
    ],
)
def test_dollars_have_two_to_six_decimals_and_no_exponent(amount: float, text: str) -> None:
    assert usd_text(amount) == text


def test_one_is_not_many() -> None:
    assert [counted(number, "row") for number in (0, 1, 2)] == ["0 rows", "1 row", "2 rows"]
