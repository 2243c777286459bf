import math

import pytest

from airtune.report.units import common_rung, digits, duration, percent, quantity, rung


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "bit", "0 bit"),
        (800, "bit", "800 bit"),
        (1_234_567, "bit", "1.23 Mbit"),
        (999_600, "bit", "1 Mbit"),  # three digits of it are a whole megabit
        (2**20, "bit", "1.05 Mbit"),  # prefixes are decimal
        (830, "J", "830 J"),
        (1830, "J", "1.83 kJ"),
        (0.0021, "J", "2.1 mJ"),
        (20e6, "Hz", "20 MHz"),
        (5e16, "bit", "50000 Tbit"),
        (None, "bit", "–"),  # noqa: RUF001
        (math.nan, "bit", "–"),  # noqa: RUF001
    ],
)
def test_quantities_have_three_digits_and_a_decimal_prefix(value, unit, text):
    assert quantity(value, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.35, "350 ms"),
        (4.5, "4.5 s"),
        (59.97, "1 min"),
        (200, "3 min 20 s"),
        (3599.8, "1.0 h"),
        (7560, "2.1 h"),
        (302_400, "3.5 d"),
        (None, "–"),  # noqa: RUF001
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_percent():
    assert percent(0.7123) == "71.2 %"
    assert percent(None) == percent(math.nan)


def test_column_digits_are_never_scientific():
    assert [digits(x) for x in (0, 0.00312, 0.5, 9, 72, 99.96, 679.4, 12_345)] == [
        "0", "0.00312", "0.500", "9.00", "72.0", "100", "679", "12345",
    ]  # fmt: skip


def test_a_column_takes_the_unit_of_its_smallest_entry_unless_that_is_too_wide():
    assert common_rung([3e6, 9e9], "bit").symbol == "Mbit"
    assert common_rung([3e3, 9e9], "bit").symbol == "Mbit"
    assert common_rung([0.0, 2e9], "bit").symbol == "Gbit"
    assert common_rung([], "s").symbol == rung(0.0, "s").symbol == "s"
