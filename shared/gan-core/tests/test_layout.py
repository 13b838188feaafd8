import pytest

from gan_core.media.layout import Grid, columns_for, round_step, ticks


def test_a_grid_is_the_sum_of_its_cells_gaps_and_margins():
    grid = Grid(count=5, columns=3, width=10, height=7, gap=2, left=30, top=4, right=5, bottom=6)
    assert grid.rows == 2
    assert grid.size == (30 + 3 * 10 + 2 * 2 + 5, 4 + 2 * 7 + 2 + 6)
    assert [grid.corner(item) for item in range(5)] == [(30, 4), (42, 4), (54, 4), (30, 13), (42, 13)]


def test_the_cells_of_an_item_are_side_by_side():
    grid = Grid(count=4, columns=2, width=10, height=7, cells=3, cell_gap=1, gap=8)
    assert grid.item_width == 3 * 10 + 2 * 1
    assert grid.size == (2 * 32 + 8, 2 * 7 + 8)
    assert [grid.corner(3, cell) for cell in range(3)] == [(40, 15), (51, 15), (62, 15)]


@pytest.mark.parametrize(
    ("count", "columns", "width", "height", "expected"),
    [
        (64, None, 1, 1, 8),
        (64, None, 4, 1, 4),  # four times as wide as high
        (64, None, 1, 4, 16),
        (1, None, 9, 1, 1),
        (5, 3, 1, 1, 3),
        (2, 3, 1, 1, 2),  # never more columns than items
    ],
)
def test_the_default_grid_is_about_square(count, columns, width, height, expected):
    assert columns_for(count, columns, width=width, height=height) == expected


@pytest.mark.parametrize(
    ("minimum", "step"), [(1, 1), (1.01, 2), (2.5, 5), (5.1, 10), (0.03, 0.05), (0.1, 0.1), (999, 1000), (3e-7, 5e-7)]
)
def test_a_round_step_is_1_2_or_5_times_a_power_of_ten(minimum, step):
    assert round_step(minimum) == pytest.approx(step, rel=1e-12)
    assert round_step(minimum) >= minimum


def test_a_round_step_exists_for_every_float():
    for exponent in range(-300, 300, 7):
        for factor in (1, 1.9999999999999998, 5, 9.999999999999998):
            minimum = factor * 10.0**exponent
            assert minimum <= round_step(minimum) <= 2.5 * minimum * (1 + 1e-9)


def test_ticks_are_the_multiples_within_the_range():
    assert ticks(-1.2, 2.0, 0.5) == [-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0]
    assert ticks(0.1, 0.4, 0.5) == []
