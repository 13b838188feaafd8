"""The page that compares runs: what it puts side by side, and what it must not."""

import json
import re

import pytest

from gan_core.errors import CheckpointError, InputError
from gan_core.runs.comparison import write_comparison

PNG = b"\x89PNG\r\n\x1a\n" + bytes(8) + (8).to_bytes(4) + (8).to_bytes(4)


@pytest.fixture
def make(tmp_path):
    """A run of 20 steps with a rate, and a figure by a protocol."""

    def call(name, rate="0.001", fid=None, protocol="aaaa"):
        folder = tmp_path / name
        (folder / "samples").mkdir(parents=True)
        (folder / "samples/00000020.png").write_bytes(PNG + name.encode())
        (folder / "recipe.yaml").write_text(
            f"domain: image\nsystem: dcgan\noptimizer: {{learning_rate: {rate}, betas: [0.5, 0.9]}}\n"
            "train: {steps: 20}\ndata: {source: digits}\n"
        )
        lines = [{"step": s, "phase": "adversarial", "generator/adversarial": s / 10} for s in (10, 20)]
        if fid is not None:
            lines += [
                {"step": s, "phase": "evaluation", "evaluation/fid": v, "protocol/fid": protocol}
                for s, v in ((10, 2 * fid), (20, fid))
            ]
        (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return folder

    return call


def compared(tmp_path, *runs):
    return write_comparison(runs, tmp_path / "page.html").read_text()


def row(page, name):
    cells = re.search(rf'<tr><th scope="row">{re.escape(name)}</th>(.*?)</tr>', page)
    return [re.sub("<.*?>", "", cell) for cell in re.findall("<td>(.*?)</td>", cells[1])] if cells else None


def test_settings_that_differ_are_listed_and_others_are_not(make, tmp_path):
    page = compared(tmp_path, make("a"), make("b", rate="0.002"))
    assert row(page, "optimizer.learning_rate") == ["0.001", "0.002"]
    assert row(page, "optimizer.betas") is None
    assert row(page, "train.steps") is None
    assert "The recipes are the same" in compared(tmp_path, make("c"), make("d"))


def test_figures_of_one_protocol_stand_side_by_side_and_are_drawn_together(make, tmp_path):
    page = compared(tmp_path, make("a", fid=3.5), make("b", fid=1.25), make("c"))
    assert row(page, "fid") == ["3.5", "1.25", ""]
    assert "not comparable" not in page
    chart = re.search(r"<h3>evaluation/fid</h3><ul class=\"legend\">(.*?)</ul>", page)[1]
    assert re.sub("<.*?>", " ", chart).split() == ["a", "3.5", "b", "1.25"]


def test_figures_of_several_protocols_are_marked_and_never_drawn_together(make, tmp_path):
    page = compared(tmp_path, make("a", fid=3.5), make("b", fid=1.25, protocol="bbbb"))
    assert row(page, "fid") == ["3.5 (aaaa)", "1.25 (bbbb)"]
    assert "Figures with different protocols (in brackets) are not comparable." in page
    assert "<h3>evaluation/fid</h3>" not in page
    assert "Not drawn because the protocols differ: fid." in page


def test_figures_are_named_with_their_scale(make, tmp_path):
    runs = make("a", fid=3.5), make("b", fid=1.25)
    log = runs[0] / "log.jsonl"
    log.write_text(log.read_text().replace('"protocol/fid"', '"scale/fid": "dB, lower is better", "protocol/fid"'))
    assert row(compared(tmp_path, *runs), "fid (dB, lower is better)") == ["3.5", "1.25"]


def test_losses_and_samples_of_all_runs_are_shown(make, tmp_path):
    page = compared(tmp_path, make("a"), make("b"))
    assert "<h3>generator/adversarial</h3>" in page
    assert page.count("data:image/png") == 2
    assert "a, step 20" in page


def test_runs_of_the_same_name_get_longer_names(make, tmp_path):
    page = compared(tmp_path, make("x/run"), make("y/run"))
    assert row(page, "x/run") is not None
    assert row(page, "y/run") is not None


def test_text_of_runs_is_escaped(make, tmp_path):
    page = compared(tmp_path, make("a", rate="'<script>alert(1)</script>'"), make("<b>"))
    assert "<script>alert" not in page
    assert "<b>, step" not in page


def test_invalid_requests_are_refused(make, tmp_path):
    run = make("a")
    for folders, words in (
        ([run], "1 runs are given; expected 2 to 8"),
        ([run, tmp_path / "." / "a"], "a run is given twice; give each once"),
    ):
        with pytest.raises(InputError, match=re.escape(words)):
            write_comparison(folders, tmp_path / "page.html")
    with pytest.raises(InputError, match="is a folder"):
        write_comparison([run, make("b")], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        CheckpointError, match=r"empty: not a run folder \(it has no recipe\.yaml, log, samples or checkpoints\)"
    ):
        write_comparison([run, tmp_path / "empty"], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_figures_of_trained_models_are_compared_too(make, tmp_path):
    one, two, other = make("one"), make("two", fid=9.0), make("other")
    for folder, value in ((one, 4.5), (two, 3.5)):
        line = {
            "step": 20,
            "data": "digits",
            "samples": 500,
            "metrics": {"fid": {"fid": value}},
            "protocol": {"fid": "cccc"},
            "protocols": {"cccc": {}},
        }
        (folder / "evaluations.jsonl").write_text(json.dumps(line) + "\n")
    page = compared(tmp_path, one, two, other)
    assert row(page, "fid") == ["4.5", "3.5", ""]
    assert "are not comparable" not in page
