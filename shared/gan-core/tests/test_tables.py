"""Tables as text and as HTML."""

from gan_core.tables import LONGEST_CELL, html_table, table


def test_columns_are_aligned():
    assert table([["a", 10], ["long", 2]]) == "a     10\nlong  2"


def test_the_last_column_is_wrapped_to_the_width():
    text = table([["name", "title"], ["x", "one two three gan-image[extra] four"]], width=26)
    assert text.splitlines() == ["name  title", "x     one two three", "      gan-image[extra]", "      four"]
    assert max(map(len, text.splitlines())) <= 26


def test_an_empty_cell_is_kept():
    assert table([["a", ""], ["b", "c"]], width=80) == "a\nb  c"


def test_html_is_escaped_and_short():
    text = html_table([("<b>", "a & b", "x " * 500)])
    assert text.startswith('<table><tr><th style="text-align:left">&lt;b&gt;</th><td>a &amp; b</td><td>x x')
    assert len(text) < LONGEST_CELL + 120
