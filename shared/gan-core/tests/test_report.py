import base64
import hashlib
import json
import math
import os
import re
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from gan_core.errors import CheckpointError, GanError, InputError
from gan_core.runs import record
from gan_core.runs.chart import BUCKETS
from gan_core.runs.lines import parse_line
from gan_core.runs.record import choose, entry_of, read_run
from gan_core.runs.report import series, write_report

RECIPE = "domain: image\nsystem: {system}\npreset: small\ndata:\n  source: digits\ntrain:\n  steps: {steps}\n"


def png(shade: int) -> bytes:
    """A grey picture of one pixel."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes([0, shade]))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def entry(step: int, **values: object) -> dict[str, object]:
    return {"step": step, "phase": "adversarial", "generator/adversarial": 0.7, "samples_per_second": 800.0, **values}


def write_log(run: Path, *lines: object) -> None:
    (run / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of 200 steps."""
    folder = tmp_path / "run"
    for name in ("samples", "model", "checkpoints/00000200"):
        (folder / name).mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE.format(system="dcgan", steps=200))
    (folder / "model/config.json").write_text("{}")
    (folder / "samples/real.png").write_bytes(png(1))
    (folder / "samples/00000100.png").write_bytes(png(2))
    (folder / "samples/00000200.png").write_bytes(png(3))
    write_log(folder, entry(100), entry(200, **{"discriminator/r1": 0.125}))
    return folder


class Page(HTMLParser):
    """What a browser would find in the page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text("utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words += f"{data} "

    def find(self, tag: str, css_class: str = "") -> list[dict[str, str | None]]:
        return [
            a for name, a in self.tags if name == tag and (not css_class or css_class in (a.get("class") or "").split())
        ]

    @property
    def images(self) -> dict[str | None, bytes]:
        return {image["alt"]: base64.b64decode(image["src"].partition("base64,")[2]) for image in self.find("img")}


def page(run: Path) -> Page:
    return Page(write_report(run))


def test_terms_of_several_adversaries_have_charts_of_their_own(run):
    write_log(run, entry(100, **{"generator/mpd/adversarial": 0.5, "generator/msd/adversarial": 0.6}))
    players = series(read_run(run).training)
    assert {name: list(terms) for name, terms in players.items() if name.startswith("generator")} == {
        "generator": ["adversarial"],
        "generator/mpd": ["adversarial"],
        "generator/msd": ["adversarial"],
    }


def test_real_and_generated_are_embedded_byte_for_byte(run):
    images = page(run).images
    assert images == {"Real": png(1), "Generated at step 200": png(3), "Step 100": png(2), "Step 200": png(3)}


def test_the_header_says_what_was_trained_and_how_far(run):
    words = page(run).words
    for part in ("dcgan", "image", "small", "digits", "Finished", "200 of 200", "800 samples/s"):
        assert part in words


def test_the_same_folder_gives_the_same_page_and_no_other_file(run):
    first = write_report(run).read_bytes()
    before = sorted(run.iterdir())
    assert write_report(run).read_bytes() == first
    assert sorted(run.iterdir()) == before


def test_the_page_refers_to_nothing_outside_itself(run):
    (run / "samples/00000100.wav").write_bytes(b"RIFF")
    found = page(run)
    targets = [a[key] for _, a in found.tags for key in ("src", "href", "poster", "srcset", "action") if a.get(key)]
    assert len(targets) == 6
    assert all(target.startswith("data:") for target in targets)
    assert not re.search(r"https?://|url\(|@import", found.source)


def test_the_only_script_that_may_run_is_the_one_in_the_page(run):
    found = page(run)
    script = re.search(r"<script>(.*?)</script>", found.source, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = next(meta["content"] for meta in found.find("meta") if meta.get("http-equiv"))
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_text_from_disk_is_escaped(run):
    hostile = '"><script>alert(1)</script>'
    (run / "recipe.yaml").write_text(
        json.dumps({"system": hostile, "domain": hostile, "preset": hostile, "data": {"source": hostile}})
    )
    (run / "samples/00000200.txt").write_text(hostile)
    (run / f"samples/00000200-{hostile.replace('/', '')}.bin").write_bytes(b"0")
    write_log(
        run,
        entry(1, phase=hostile, **{f"{hostile}/{hostile}": 1.0}),
        entry(2, phase="evaluation", **{f"evaluation/{hostile}": 1.0}),
        entry(3, phase="c"),
    )
    found = page(run)
    assert len(found.find("script")) == 1
    assert found.words.count("<script>alert(1)</script>") >= 6
    assert {"onload", "onerror"}.isdisjoint(key for _, attributes in found.tags for key in attributes)


def test_characters_that_have_no_encoding_do_not_stop_the_report(run):
    (run / "log.jsonl").write_text('{"step": 1, "generator/\\ud800": 1.0}\n')
    assert "generator" in page(run).words


def test_a_line_cut_off_by_a_kill_is_skipped(run):
    with (run / "log.jsonl").open("a") as file:
        file.write('{"step": 300, "generator/adv')
    record = read_run(run)
    assert [line.step for line in record.training] == [100, 200]
    assert record.damaged_lines == 1
    assert "Damaged lines of the log: 1." in page(run).words


@pytest.mark.parametrize(
    "line",
    [b"", b"[]", b"3", b"{}", b'{"step": "x"}', b'{"step": -1}', b"[" * 50_000, b"\xff", b"null", b'{"step": 1e999}'],
)
def test_a_damaged_line_is_none(line):
    assert parse_line(line) is None


def test_values_that_were_not_finite_are_known_and_others_than_numbers_are_not():
    source = b'{"step": 1, "a": NaN, "b": -Infinity, "c": null, "d": "nan", "e": 1e31, "f": "x", "g": true}'
    values = entry_of(parse_line(source)).values
    assert sorted(values) == ["a", "b", "c", "d", "e"]
    assert all(math.isnan(value) for value in values.values())


def test_a_value_that_is_not_finite_is_a_cross_and_a_gap(run):
    losses = [1.0, 1.1, math.nan, 1.2, 1.3]
    write_log(run, *(entry(step, **{"generator/adversarial": loss}) for step, loss in enumerate(losses, 1)))
    found = page(run)
    assert len(found.find("text", "cross")) == 1
    assert "1 of 5 values are not finite (×)." in found.words
    assert found.find("path", "line")[0]["d"].count("M") == 2
    assert "nan" not in found.find("path", "line")[0]["d"]


def test_a_run_that_ends_not_finite_says_so(run):
    write_log(run, entry(100), entry(200, **{"generator/adversarial": math.inf}))
    assert "Loss not finite" in page(run).words


def test_a_run_that_was_rolled_back_says_so_until_it_has_gone_past_it(run):
    event = {"step": 260, "to": 200, "what": "generator/adversarial is nan", "log": []}
    (run / "rollbacks.jsonl").write_text(json.dumps(event) + "\n")
    found = page(run)
    assert "Rolled back to step 200" in found.words
    assert "at step 260, generator/adversarial is nan; the run was rolled back to step 200; try " in found.words
    write_log(run, entry(100), entry(300))
    assert "Rolled back" not in page(run).words


def test_the_doctor_s_findings_are_in_the_page_problems_first(run):
    watched = [
        {"step": step, "phase": "diagnostics", "samples/nearest": 0.9, "samples/spread": 0.05} for step in (100, 200)
    ]
    write_log(run, entry(100), entry(200), *watched)
    words = page(run).words
    findings = words[words.index("Diagnosis") : words.index("Losses and speed")]
    assert findings.index("the generator has collapsed: ") < findings.index("all logged values are finite")
    assert "memory: not checked: no data were held out" in findings
    assert "Last values: nearest 0.9, spread 0.05" in page(run).source
    assert "0.05" not in words[words.index("Losses and speed") :]  # they are no losses


def test_gradients_have_a_chart_of_their_own(run):
    norms = {"generator/gradient_norm": 3.0, "discriminator/gradient_norm": 4.0}
    write_log(run, entry(100, **norms), entry(200, **norms))
    players = series(read_run(run).training)
    assert set(players["gradient norm"]) == {"generator", "discriminator"}
    assert set(players["generator"]) == {"adversarial"}


def test_phases_are_named_and_marked_where_they_begin(run):
    write_log(run, entry(0, phase="pretrain"), entry(49, phase="pretrain"), entry(50), entry(200))
    found = page(run)
    assert [phase.step for phase in read_run(run).phases] == [0, 50]
    assert {line["x1"] for line in found.find("line", "phase")} == {"0.00%", "25.00%"}
    assert "pretrain" in found.words
    assert found.find("path", "line")[0]["d"].count("M") == 2  # no line from one phase to the next


def test_a_run_of_one_phase_has_no_marks(run):
    assert page(run).find("line", "phase") == []


def test_one_chart_a_player_with_its_terms_and_one_of_the_speed(run):
    found = page(run)
    assert [chart["aria-label"] for chart in found.find("svg", "plot")] == [
        "generator until step 200. Last values: adversarial 0.7",
        "discriminator until step 200. Last values: r1 0.125",
        "speed until step 200. Last values: samples per second 800",
    ]


def test_a_single_point_is_a_dot(run):
    write_log(run, entry(100))
    dots = page(run).find("circle")
    assert [(dot["cx"], dot["cy"]) for dot in dots][:1] == [("100.00%", "50.00%")]
    assert len(dots) == 2


def test_a_long_log_is_drawn_with_few_points(run):
    write_log(run, *(entry(step) for step in range(5000)))
    path = page(run).find("path", "line")[0]["d"]
    assert path.count("L") == BUCKETS


def test_a_log_larger_than_the_limit_is_read_in_strides(run, monkeypatch):
    write_log(run, *(entry(step) for step in range(100)))
    monkeypatch.setattr(record, "MAX_LOG", (run / "log.jsonl").stat().st_size // 2)
    assert [line.step for line in read_run(run).training] == list(range(0, 100, 3))
    assert "The log is large: one in 3 of its lines was read." in page(run).words


def test_a_log_that_is_read_whole_has_no_note(run):
    assert "The log is large" not in page(run).words


def test_a_figure_is_shown_with_its_unit_and_direction(run):
    figures = {"evaluation/f0_rmse": 12.5, "scale/f0_rmse": "cents, <b>lower is better"}
    write_log(run, entry(100), {"step": 100, "phase": "evaluation", **figures})
    assert "<td>12.5 <small>cents, &lt;b&gt;lower is better</small></td>" in write_report(run).read_text()


def test_steps_that_a_resumed_run_repeats_count_once(run):
    write_log(run, entry(100), entry(200), entry(300), entry(150), entry(200, **{"generator/adversarial": 9.0}))
    assert series(read_run(run).training)["generator"]["adversarial"] == [(100, 0.7, 1), (150, 0.7, 1), (200, 9.0, 1)]


def test_an_evaluation_of_an_earlier_step_leaves_the_training_log_as_it_is(run):
    write_log(run, entry(100), entry(200), {"step": 100, "phase": "evaluation", "evaluation/fid": 12.5})
    assert [line.step for line in read_run(run).training] == [100, 200]
    words = page(run).words
    assert "fid" in words
    assert "12.5" in words


def measured(step: int = 200, **changes: object) -> dict[str, object]:
    """A line of `evaluations.jsonl`."""
    protocol = {"extractor": "classifier", "resize": "none"}
    scales = {"fid": {"unit": "pixels", "better": "lower"}}
    figures = {
        "metrics": {"fid": {"fid": 1.25}},
        "scales": scales,
        "protocol": {"fid": "0a1b2c3d"},
        "protocols": {"0a1b2c3d": protocol},
    }
    return {"step": step, "data": "/srv/someone/secret/fruits", "samples": 500, "seed": 0, **figures, **changes}


def write_measured(run: Path, *lines: object) -> None:
    (run / "evaluations.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def test_figures_of_the_trained_model_are_shown_with_their_protocol_in_words(run):
    write_measured(run, measured())
    shown = page(run)
    for words in ("1.25", "pixels, lower is better", "0a1b2c3d", "fruits", "500", "extractor", "classifier", "resize"):
        assert words in shown.words
    assert "someone" not in (run / "report.html").read_text()
    titles = re.findall("<h2>(.+?)</h2>", (run / "report.html").read_text())
    assert titles.index("Evaluation") < titles.index("Diagnosis")


def test_of_repeated_figures_the_last_is_shown(run):
    write_measured(run, measured(metrics={"fid": {"fid": 9.75}}), measured(metrics={"fid": {"fid": 3.5}}))
    words = page(run).words
    assert "3.5" in words
    assert "9.75" not in words


@pytest.mark.parametrize(
    "damage",
    [
        {"metrics": None},
        {"metrics": {"fid": 3}},
        {"metrics": {"fid": {"fid": "x"}}},
        {"protocol": {}},
        {"protocols": []},
        {"samples": "many"},
        {"data": None, "samples": None},
        {"step": "x"},
        {"scales": []},
        {"scales": {"fid": 3}},
    ],
)
def test_a_damaged_evaluation_leaves_the_others(run, damage):
    write_measured(run, measured(**damage), measured(), 42, None, [])
    assert "1.25" in page(run).words


def test_a_report_with_large_pictures_stays_below_three_megabytes(run):
    for name in ("real", *(f"{step:08d}" for step in range(10, 210, 10))):
        (run / "samples" / f"{name}.png").write_bytes(png(1) + bytes(400_000))
    write_report(run)
    assert (run / "report.html").stat().st_size < 3_000_000
    frames = read_run(run).frames
    assert len(frames) == 4  # real samples and three steps
    assert {max(frames), min(step for step in frames if step >= 0)} == {200, 10}
    assert all(media.data for group in frames.values() for media in group)


@pytest.mark.parametrize("count", [1, 2, 11, 12, 13, 100, 999])
def test_the_choice_of_steps_is_even_and_keeps_first_and_last(count):
    steps = list(range(100, 100 * count + 1, 100))
    chosen = choose(steps)
    assert len(chosen) == min(count, 12)
    assert (chosen[0], chosen[-1]) == (steps[0], steps[-1])
    gaps = [after - before for before, after in pairwise(chosen)]
    assert not gaps or max(gaps) - min(gaps) <= 100


def test_steps_that_are_not_shown_are_counted(run):
    for step in range(1, 51):
        (run / f"samples/{step:08}.png").write_bytes(png(step))
    found = page(run)
    assert "12 of 52 steps" in found.words
    assert len(found.images) == 14


def test_a_file_that_is_too_large_or_has_no_preview_is_named(run, monkeypatch):
    monkeypatch.setattr(record, "MAX_EMBEDDED", 1000)
    (run / "samples/00000100.png").write_bytes(png(2) + bytes(2000))
    (run / "samples/00000200.glb").write_bytes(b"glTF")
    (run / "samples/00000200-b.png").touch()
    found = page(run)
    assert "Step 100" not in found.images
    assert "00000100.png (3 KiB) is not embedded: too large." in found.words
    assert "00000200.glb (1 KiB) is not embedded: this format has no preview." in found.words
    assert "00000200-b.png (0 KiB) is not embedded: empty." in found.words


def test_all_embedded_files_together_are_bounded_and_the_last_comes_first(run, monkeypatch):
    monkeypatch.setattr(record, "MAX_EMBEDDED", 3 * len(png(1)))  # the last picture is shown twice
    assert set(page(run).images) == {"Real", "Generated at step 200", "Step 200"}


def test_sound_video_and_text_are_shown_as_such(run):
    for name, data in {"real.wav": b"RIFF", "00000200.mp4": b"ftyp", "00000200.txt": b"a <b> c"}.items():
        (run / "samples" / name).write_bytes(data)
    found = page(run)
    assert found.find("audio")[0]["src"] == "data:audio/wav;base64,UklGRg=="
    assert found.find("video")[0]["src"] == "data:video/mp4;base64,ZnR5cA=="
    assert "a <b> c" in found.words


def test_a_link_that_leaves_the_run_is_not_followed(run, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (run / "samples/00000200.txt").symlink_to(tmp_path / "secret.txt")
    (run / "recipe.yaml").unlink()
    (run / "recipe.yaml").symlink_to(tmp_path / "secret.txt")
    assert "secret" not in page(run).words


def test_partial_files_are_not_samples(run):
    (run / "samples/00000300.png.tmp").write_bytes(b"")
    (run / "checkpoints/00000300.tmp").mkdir()
    record = read_run(run)
    assert (record.done, list(record.steps)) == (200, [100, 200])


@pytest.mark.parametrize(
    "source",
    ["a: &a [*a]", "a: [", "!!python/object/apply:os.system ['true']", "[" * 9000, "- 1", "\0", "a: 2001-99-99"],
)
def test_a_recipe_that_cannot_be_read_does_not_stop_the_report(run, source):
    (run / "recipe.yaml").write_text(source)
    assert "run" in page(run).words


def test_a_recipe_that_would_grow_without_bound_does_not(run):
    levels = [f"a{level}: &a{level} {{<<: [{', '.join([f'*a{level - 1}'] * 9)}]}}" for level in range(1, 30)]
    (run / "recipe.yaml").write_text("\n".join(["a0: &a0 {x: 1}", *levels, "system: dcgan"]))
    assert read_run(run).title == "dcgan"


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("log.jsonl", "Nothing has been logged yet."),
        ("recipe.yaml", "The run has no recipe.yaml."),
        ("samples/real.png", "The run has no real samples"),
    ],
)
def test_missing_parts_of_a_run_are_noted(run, missing, sentence):
    (run / missing).unlink()
    assert sentence in page(run).words


def test_a_run_that_has_not_started_has_a_report(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(system="dcgan", steps=200))
    words = page(tmp_path).words
    for sentence in ("Not started", "0 of 200", "There are no samples yet.", "Nothing has been logged yet."):
        assert sentence in words
    assert "resume" not in words


def test_commands_fit_the_state_of_the_run(run):
    assert "gan-image resume run --steps 400" in page(run).words
    (run / "recipe.yaml").write_text(RECIPE.format(system="dcgan", steps=1000))
    words = page(run).words
    assert "gan-image resume run " in words
    assert "--steps" not in words
    assert "gan-image generate run -n 64 --out generated" in words
    assert "Run these in the folder that contains the run." in words


PRIVATE = """\
domain: image
system: cyclegan
preset: small
network: {{text_encoder: "/srv/alice/with a space/clip.safetensors"}}
start:
  generator: {{source: '{0}/first:generator'}}
  discriminator: {{source: dcgan/discriminator:/srv/alice/d.pth}}
data:
  source: {{source: "{0}/nuclei:masks", target: ~/alice/nuclei:images}}
  note: >-
    /srv/alice/folded
    text
train: {{steps: 200, weights: [&a /srv/alice/x, *a]}}
"""


def test_a_report_names_no_folder_of_the_machine(run, monkeypatch, tmp_path):
    (run / "recipe.yaml").write_text(PRIVATE.format("/a/very/long/path/of/alice/" + "x" * 100))
    monkeypatch.chdir(tmp_path)
    for folder in (run, Path("run"), Path("run/../run")):
        found = page(folder)
        assert "alice" not in found.source
        assert str(tmp_path) not in found.source
        assert "--data source=nuclei:masks --data target=nuclei:images" in found.words
        assert "dcgan/discriminator:d.pth" in found.words
        assert "first:generator" in found.words
    (run / "recipe.yaml").write_text("data: [/srv/alice/x\nsystem: dcgan\n")
    assert "alice" not in page(run).source


def test_commands_are_quoted_for_the_shell(run):
    (run / "recipe.yaml").write_text("domain: 'image; reboot'\nsystem: a b\npreset: small\ndata:\n  source: it's\n")
    words = page(run).words
    assert "train 'a b' --recipe" in words
    assert "gan-image; reboot" not in words
    assert """--data 'it'"'"'s'""" in words


@pytest.mark.parametrize("name", ["", "missing"])
def test_a_folder_that_is_not_a_run_is_refused_and_not_changed(tmp_path, name):
    folder = tmp_path / name
    with pytest.raises(CheckpointError, match=rf"^{re.escape(str(folder))}: not a run folder \(it has no recipe\.yaml"):
        write_report(folder)
    assert list(tmp_path.iterdir()) == []


def test_a_page_that_cannot_be_written_is_an_error_and_leaves_the_old_one(run, monkeypatch):
    old = write_report(run).read_bytes()

    def full(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(GanError, match=r"report\.html: .*No space left on device"):
        write_report(run)
    assert (run / "report.html").read_bytes() == old
    assert list(run.glob(".*")) == []


def test_a_report_is_refused_where_it_cannot_be_written_before_the_run_is_read(run, monkeypatch):
    monkeypatch.setattr(record, "MAX_LISTED", None)  # reading would fail
    (run / "report.html").mkdir()
    with pytest.raises(InputError, match=r"report\.html: is a folder; rename or remove it$"):
        write_report(run)
    (run / "report.html").rmdir()
    monkeypatch.setattr(
        os, "access", lambda path, mode: not (path == run and mode & os.W_OK)
    )  # root may write anywhere
    with pytest.raises(InputError, match=r"is not writable; copy the run to a folder of your own, and report on the"):
        write_report(run)


def test_the_report_needs_no_torch():
    code = "import sys, gan_core.runs.report; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
