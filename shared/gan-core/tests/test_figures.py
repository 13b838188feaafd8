"""The result of an evaluation as text, as JSON and in notebooks."""

import json

from gan_core.cards import MetricCard, Scale
from gan_core.measure.figures import Figures

FIGURES = Figures(
    {
        "model": "m",
        "data": "d",
        "samples": 4,
        "seed": 0,
        "metrics": {"fid": {"fid": 1.5}, "kid": {"kid": 0.25, "kid_std": 0.5}},
        "scales": {
            "fid": {"unit": "", "better": "lower"},
            "kid": {"unit": "dB", "better": "higher"},
            "kid_std": {"unit": "dB", "better": None},
        },
        "protocol": {"fid": "aa", "kid": "bb"},
        "protocols": {"aa": {"extractor": "<x>", "count": 4}, "bb": {"extractor": "<x>", "count": 5}},
    }
)


def test_text_lists_the_figures_and_what_their_protocols_share():
    assert str(FIGURES).splitlines() == [
        "fid  fid      1.5   lower is better       aa",
        "kid  kid      0.25  dB, higher is better  bb",
        "kid  kid_std  0.5   dB                    bb",
        "",
        "protocol",
        "all       extractor  <x>",
        "aa        count      4",
        "bb        count      5",
    ]


def test_figures_in_tables_have_few_digits_and_long_protocols_are_wrapped(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    changed = Figures(
        {**FIGURES, "metrics": {"fid": {"fid": 12.403347910839377}}, "protocols": {"aa": {"e": "x " * 60}}}
    )
    assert str(changed).splitlines()[0].startswith("fid  fid  12.403  lower")
    assert max(map(len, str(changed).splitlines())) <= 60
    assert changed["metrics"]["fid"]["fid"] == 12.403347910839377


def test_figures_are_a_dictionary():
    assert FIGURES["metrics"]["fid"] == {"fid": 1.5}
    assert json.loads(json.dumps(FIGURES)) == FIGURES
    assert repr(FIGURES) == repr(dict(FIGURES))


def test_a_notebook_shows_a_table():
    assert (
        '<th style="text-align:left">kid</th><td>kid_std</td><td>0.5</td><td>dB</td><td>bb</td>'
        in FIGURES._repr_html_()
    )


def test_ipython_shows_the_text():
    shown = []
    FIGURES._repr_pretty_(type("Printer", (), {"text": lambda self, text: shown.append(text)})(), cycle=False)
    assert shown == [str(FIGURES)]


def test_a_figure_has_the_scale_with_the_longest_matching_beginning():
    scales = {"": Scale("dB", "lower"), "loss": Scale(better="higher")}
    card = MetricCard(name="m", title="a metric", measure="m:M", scales=scales)
    assert card.scale("error") == Scale("dB", "lower")
    assert card.scale("loss_to_target") == Scale("", "higher")
    assert [card.scale(name) for name in ("error_of_real", "error_std", "error_on_real")] == 3 * [Scale("dB")]
    assert MetricCard(name="m", title="a metric", measure="m:M").scale("error") == Scale()
