import math

import pytest

from gan_core.runs.chart import Axis, chart, compact, value_axis


def test_outliers_do_not_squeeze_the_axis():
    axis, beyond = value_axis([*(step / 100 for step in range(200)), 1e6, math.nan])
    assert axis.low == pytest.approx(0.02 - 0.05 * 1.96)
    assert axis.high == pytest.approx(1.98 + 0.05 * 1.96)
    assert beyond == 1


def test_an_axis_of_equal_or_no_values_still_has_a_range():
    for values in ([], [0.0], [5.0, 5.0], [-1e29], [1e-300]):
        axis, _ = value_axis(values)
        assert axis.low < axis.high
        assert 1 <= len(axis.ticks(7)) <= 9


def test_ticks_are_round_and_positions_percent():
    axis = Axis(0, 2000)
    assert axis.ticks(5) == [0, 500, 1000, 1500, 2000]
    assert [axis.at(value) for value in (0, 500, 2000, 1e300)] == [0, 25, 100, 150]


def test_numbers_are_compact():
    numbers = (0.71234, 1500, 2_000_000, -3e9, 0, math.nan)
    assert [compact(value) for value in numbers] == ["0.7123", "1.5k", "2M", "-3G", "0", "not finite"]


def test_an_axis_from_zero_holds_zero_and_another_need_not():
    assert value_axis([800.0, 900.0], from_zero=True)[0].low == 0
    assert value_axis([800.0, 900.0])[0].low == 795


def test_labels_are_escaped():
    page = chart("<b>", {"<i>": [(0, 1.0, 0)]}, 1)
    assert "<b>&" not in page
    assert "&lt;i&gt; <b>1</b>" in page
    assert "<h3>&lt;b&gt;</h3>" in page
