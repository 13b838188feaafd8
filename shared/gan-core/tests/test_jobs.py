"""Tasks on files, with a task that converts notes (`.txt`, `.note.txt`) to capitals (`.up`)."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated

import pytest
import typer

from gan_core.cli import Answer, Out, Part, made
from gan_core.data.files import FileKind
from gan_core.errors import DataError, InputError, Unreadable
from gan_core.jobs import Input, Job, Outcome, Shard, Show, refuse_file, send, standard_input
from gan_core.media.writing import replacing

NOTES = FileKind("note", (".txt", ".note.txt"))


def opened(one: Input) -> bytes:
    data = standard_input().read() if one.path is None else one.path.read_bytes()
    if not data:
        raise Unreadable("is empty")
    return data


def shout(given: Sequence[object], out: object, shard: Shard | None = None) -> Outcome:
    job = Job([str(one) for one in given], str(out), kind=NOTES, suffix=".up", shard=shard)

    def make(data: bytes, target: Path | None, show: Show) -> None:
        show(f"{len(data)} letters")
        if target is None:
            send(data.upper())
            return
        with replacing(target) as partial:
            partial.write_bytes(data[:1])
            if b"!" in data:
                raise DataError("ends with a bang")
            partial.write_bytes(data.upper())

    return job.run(job.open(opened), make)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with seven notes, two of which cannot be read, and a file of another kind."""
    monkeypatch.chdir(tmp_path)
    texts = {
        "a.txt": "a",
        "sub/b.txt": "b",
        "sub/deep/c.TXT": "c",
        "d.note.txt": "d",
        "e.txt": "e",
        "empty.txt": "",
        "sub/bang.txt": "x!",
        "picture.png": "p",
    }
    for name, text in texts.items():
        Path("notes", name).parent.mkdir(parents=True, exist_ok=True)
        Path("notes", name).write_text(text)
    return tmp_path


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


WHOLE = {"a.up": "A", "sub/b.up": "B", "sub/deep/c.up": "C", "d.up": "D", "e.up": "E"}


def test_folders_keep_their_structure_and_unreadable_files_are_named_and_skipped(
    notes: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outcome = shout(["notes"], "out")
    assert contents(notes / "out") == WHOLE  # nothing half-written
    assert {str(path) for path in outcome.files} == {f"out/{name}" for name in WHOLE}
    assert outcome.skipped == {"notes/empty.txt": "is empty", "notes/sub/bang.txt": "ends with a bang"}
    assert caplog.messages == [
        "notes: skipped 2 unreadable files: notes/empty.txt (is empty), notes/sub/bang.txt (ends with a bang)"
    ]


@pytest.mark.parametrize(("name", "reason"), [("empty.txt", "is empty"), ("sub/bang.txt", "ends with a bang")])
def test_an_unreadable_file_that_was_named_is_an_error(notes: Path, name: str, reason: str) -> None:
    with pytest.raises(DataError, match=f"^notes/{name}: {reason}$"):
        shout([f"notes/{name}"], "out")
    assert not contents(notes / "out")


@pytest.mark.parametrize("total", [1, 2, 3, 7, 20])
def test_shards_are_disjoint_and_cover_the_job_in_any_order_of_the_inputs(notes: Path, total: int) -> None:
    (notes / "single.txt").write_text("s")
    given, made = ["notes", "single.txt"], list[Path]()
    for number in range(1, total + 1):
        outcome = shout(given if number % 2 else given[::-1], "out", Shard(number, total))  # into one folder
        assert 5 // total <= len(outcome.files) + len(outcome.skipped) <= -(-8 // total)
        made += outcome.files
    assert len(made) == len(set(made))
    assert contents(notes / "out") == WHOLE | {"single.up": "S"}


def test_a_shard_of_unreadable_files_is_done_and_a_whole_job_of_them_is_an_error(notes: Path) -> None:
    (notes / "bad").mkdir()
    for name in "12":
        (notes / "bad" / f"{name}.txt").touch()
    assert shout(["bad"], "out", Shard(2, 2)) == Outcome([], {"bad/2.txt": "is empty"})
    with pytest.raises(
        DataError, match=r"^bad: no readable notes among 2 files \(looked for .*\); bad/1.txt: is empty$"
    ):
        shout(["bad"], "out")


def test_existing_targets_of_the_shard_are_refused_before_anything_is_written(notes: Path) -> None:
    shout(["notes"], "out", Shard(1, 2))
    before = contents(notes / "out")
    assert 0 < len(before) < len(WHOLE)
    for shard in (None, Shard(1, 2)):
        with pytest.raises(InputError, match=r"^out already contains .*\.up; choose another folder"):
            shout(["notes"], "out", shard)
    assert contents(notes / "out") == before
    shout(["notes"], "out", Shard(2, 2))
    assert contents(notes / "out") == WHOLE


@pytest.mark.parametrize("shard", [None, Shard(1, 2), Shard(2, 2)])
def test_two_inputs_with_one_target_are_refused_in_every_shard(notes: Path, shard: Shard | None) -> None:
    (notes / "a.txt").write_text("other")
    with pytest.raises(InputError, match=r"^notes/a.txt and a.txt would both be written to out/a.up; use two"):
        shout(["notes", "a.txt"], "out", shard)
    assert not (notes / "out").exists()


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "/2", "a/b", "1/2/3", "-1/2", "1/0", ""])
def test_a_malformed_shard_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=rf"^`--shard` is {text}; expected K/N with K from 1 to N, for example 1/4$"):
        Shard.parse(text)


def test_a_shard_is_read() -> None:
    assert Shard.parse("2/10") == Shard(2, 10)


def test_standard_input_and_output_take_one_item(
    notes: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"piped")))
    assert shout(["-"], "out").files == [Path("out/stdin.up")]
    assert shout(["notes/a.txt"], "-").files == [Path("-")]
    assert capfdbinary.readouterr().out == b"A"
    with pytest.raises(InputError, match=r"^`-` is given twice"):
        shout(["-", "-"], "out")
    with pytest.raises(InputError, match=r"^`--out -` takes one input, but there are 7; choose an output folder$"):
        shout(["notes"], "-")
    for given, out in ((["-"], "out"), (["notes/a.txt"], "-")):
        with pytest.raises(InputError, match=r"^`--shard` applies to files"):
            shout(given, out, Shard(1, 2))


def test_missing_inputs_are_refused(notes: Path) -> None:
    (notes / "notes" / "pictures").mkdir()
    (notes / "notes" / "pictures" / "a.png").touch()
    with pytest.raises(DataError, match=r"^missing: no such file or folder$"):
        shout(["missing"], "out")
    with pytest.raises(
        DataError, match=r"^notes/pictures: no readable notes among 1 file \(looked for .txt, .note.txt\)"
    ):
        shout(["notes/pictures"], "out")
    refuse_file(notes / "new")
    with pytest.raises(InputError, match=r"already exists; choose another name, or remove it$"):
        refuse_file(notes / "notes")


def test_a_command_lists_the_written_and_the_skipped_files(notes: Path) -> None:
    app = typer.Typer()

    @app.command()
    def command(inputs: Annotated[list[str], typer.Argument()], out: Out = None, shard: Part = None) -> Answer | None:
        return made(out, lambda place: shout(inputs, place, shard))

    def run(*words: str) -> Answer | None:
        return typer.main.get_command(app)(words, standalone_mode=False)

    answer = run("notes", "--out", "out", "--shard", "1/2")
    assert answer is not None
    assert answer.status == 0
    assert answer.text == f"{len(answer.document['files'])} files in out"
    assert len(answer.document["files"]) + len(answer.document["skipped"]) == 4
    with pytest.raises(InputError, match=r"^`--out` is missing: name a folder, or - for standard output$"):
        run("notes")
    with pytest.raises(InputError, match=r"^`--shard` is 3/2; "):
        run("notes", "--out", "out", "--shard", "3/2")


def test_a_closed_pipe_ends_the_task_without_a_message(notes: Path) -> None:
    code = (
        "from gan_core.cli import made; from gan_core.jobs import Outcome, send\n"
        "def work(out):\n    while True: send(bytes(2**16))\n"
        "assert made('-', work) is None"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=dict(os.environ)
    )
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert (process.stderr.read(), process.wait()) == (b"", 0)


def test_jobs_load_no_torch() -> None:
    code = "import sys, gan_core.jobs; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
