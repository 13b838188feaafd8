"""The run folder: what is in it, when it is free, and what a rewind forgets."""

import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from gan_core.errors import CheckpointError, GanError, InputError
from gan_core.recipe import parse
from gan_core.runs.run import Run

RECIPE = parse({"system": "x", "train": {"steps": 7}})
NOBODY = 2**22 + 1
"""A process id that no process has."""


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "runs" / "first", RECIPE)


def line(step, **values):
    return {"step": step, "phase": "adversarial", "generator/adversarial": 0.5, **values}


def test_a_new_run_has_its_folders_and_its_recipe(run):
    assert sorted(path.name for path in run.path.iterdir()) == ["checkpoints", "recipe.yaml", "samples"]
    assert Run.open(run.path).recipe == RECIPE


def test_an_empty_folder_is_free(tmp_path):
    Run.create(tmp_path, RECIPE)


def test_the_check_writes_nothing(tmp_path):
    Run(tmp_path / "a" / "b").check_free()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_refused(run, tmp_path):
    run.checkpoint(1).mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for path, words in (
        (run.path, "holds a run already; resume it, or choose another `--out`"),
        (tmp_path / "file", "is a file; choose another `--out`"),
        (tmp_path / "full", "is not empty; choose another `--out`"),
        (tmp_path / "file" / "x", f"cannot be written ({tmp_path / 'file'} is not writable); choose another `--out`"),
    ):
        with pytest.raises(InputError) as error:
            Run.create(path, RECIPE)
        assert str(error.value) == f"{path}: {words}"


def test_a_place_that_the_system_refuses_is_one_line():
    with pytest.raises(InputError, match=r"^/proc/none: cannot be written \(.*\); choose another place$"):
        Run.create("/proc/none", RECIPE)


def test_a_folder_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(CheckpointError) as error:
        Run.open(tmp_path / "none")
    assert str(error.value) == f"{tmp_path / 'none'}: no such folder"
    with pytest.raises(CheckpointError) as error:
        Run.open(tmp_path)
    assert str(error.value) == f"{tmp_path}: not a run folder (it has no recipe.yaml)"


# --- a start that left no checkpoint


def test_a_run_without_a_checkpoint_is_replaced(run, caplog):
    run.append_log(line(1))
    for name in ("real.png", "00000001.png", "00000001-a.wav", f".{NOBODY}-0123456789abcdef.partial"):
        (run.samples_folder / name).touch()
    (run.checkpoints_folder / f".00000002.{NOBODY}").mkdir()
    (run.path / ".lock").write_text(f"{NOBODY} elsewhere\n")
    run.report_file.write_text("of a run that was not finite, or by `report`")
    run.check_free()
    assert len(run.log()) == 1
    again = Run.create(run.path, RECIPE.but({"train.steps": 9}))
    assert (again.log(), again.samples(), again.recipe.train.steps) == ([], [], 9)
    assert caplog.messages == [f"{run.path}: an earlier run ended before its first checkpoint; it is replaced"]


@pytest.mark.parametrize(
    "name",
    [
        "notes.txt",
        "samples/notes.txt",
        "samples/.hidden",
        "samples/real-photos/x",
        "checkpoints/old/x",
        "checkpoints/.notes.1x/x",
        "model/config.json",
    ],
)
def test_what_no_start_writes_is_never_replaced(run, name):
    (run.path / name).parent.mkdir(exist_ok=True, parents=True)
    (run.path / name).touch()
    with pytest.raises(InputError, match="holds a run already; resume it, or choose another"):
        Run.create(run.path, RECIPE)
    assert (run.path / name).exists()


def test_a_folder_of_pictures_is_not_a_start(tmp_path):
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "1.png").touch()
    with pytest.raises(InputError, match="is not empty; choose another"):
        Run.create(tmp_path, RECIPE)


# --- the owner


OWN = """
import sys, time
from gan_core.runs.run import Run
with Run(sys.argv[1]).owned():
    print("owned", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(run):
    """Another process that trains the run."""
    with subprocess.Popen([sys.executable, "-c", OWN, run.path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "owned\n"
        yield process
        process.kill()


def test_a_run_that_is_being_trained_is_refused_until_its_owner_ends(run, owner):
    words = f"{run.path}: is being trained by process {owner.pid} on {socket.gethostname()}; wait until it ends"
    for call in (run.owned().__enter__, run.check_free):
        with pytest.raises(InputError) as error:
            call()
        assert str(error.value) == f"{words}, or stop it"
    assert run.recipe == RECIPE  # reading is free
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    run.check_free()
    with run.owned():
        assert (run.path / ".lock").read_text() == f"{os.getpid()} {socket.gethostname()}\n"
    assert not (run.path / ".lock").exists()


def test_a_run_has_one_owner_within_a_process(run):
    with run.owned(), pytest.raises(InputError, match=f"is being trained by process {os.getpid()} on"):
        run.owned().__enter__()
    with run.owned():
        pass


def test_an_owner_without_a_name_is_another_process(run, owner):
    (run.path / ".lock").write_bytes(b"\xff\x1b[31m nobody")
    with pytest.raises(InputError, match=r"first: is being trained by another process; wait"):
        run.owned().__enter__()


def test_a_lock_that_leads_out_of_the_run_is_not_followed(run, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (run.path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match=r"\.lock: cannot be written \(Too many levels of symbolic links\)"):
        run.owned().__enter__()
    assert (tmp_path / "precious").read_text() == "precious"


def test_folders_that_were_made_for_nothing_are_removed(tmp_path):
    with Run(tmp_path / "a" / "b").owned():
        assert (tmp_path / "a" / "b").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_run_may_lie_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Run.create("~/runs/a", RECIPE).path == tmp_path / "runs" / "a"
    assert Run.open("~/runs/a").recipe == RECIPE
    assert str(Run("~nobody-of-that-name/a").path) == "~nobody-of-that-name/a"


# --- the log


def test_log_lines_are_read_back(run):
    assert run.log() == []
    lines = [line(1), line(2, note=float("inf"))]
    for each in lines:
        run.append_log(each)
    assert run.log() == lines


def test_a_line_that_a_kill_cut_short_is_left_out(run):
    run.append_log(line(1))
    with run.log_file.open("a") as file:
        file.write('{"step": 2, "gene')
    assert run.log() == [line(1)]


def test_a_log_that_cannot_be_written_is_one_line(run):
    run.log_file.mkdir()
    with pytest.raises(GanError) as error:
        run.append_log(line(1))
    assert str(error.value) == f"{run.log_file}: cannot be written (Is a directory); choose another place"


def test_damaged_lines_anywhere_are_skipped_and_a_rewind_removes_them(run):
    damaged = b'[]\n{"step": 2, "gene\n\xff\xfe\x00\n3\n{"phase": "a"}\n{"step": "soon"}\n{"step": 2, "phase": []}\n'
    run.log_file.write_bytes(damaged + json.dumps(line(1)).encode() + b"\n" + damaged)
    run.append_log(line(3))
    run.append_log({"step": 3, "phase": "evaluation", "evaluation/fid": 1.0})
    assert [each["step"] for each in run.log()] == [2, 1, 2, 3]
    assert [each["step"] for each in run.evaluations()] == [3]
    run.rewind(3, log_every=3, sample_every=None, evaluate_every=3)
    assert len(run.log_file.read_text().splitlines()) == 5
    assert [each["step"] for each in run.log()] == [2, 1, 2, 3]


@pytest.mark.parametrize(
    "damaged",
    [
        b"null",
        b"42",
        b"NaN",
        b"Infinity",
        b'{"step": NaN}',
        b'{"step": Infinity}',
        b'{"step": 1' + b"0" * 400 + b"}",
        b"9" * 5000,
        b'{"step": null, "phase": null}',
        b"[" * 100_000,
        b'{"step": 1, "a": ' + b"[" * 100_000,
        b'{"a":' * 5000,
        b"\xff\xfe",
        b"\x00" * 100,
        b"x" * (3 << 20),
    ],
    ids=lambda damaged: ascii(damaged[:12]),
)
def test_no_line_stops_reading_or_a_rewind(run, damaged):
    run.append_log(line(1))
    for path in (run.log_file, run.rollbacks_file):
        with path.open("ab") as file:
            file.write(damaged + b"\n")
    run.append_rollback(5, 1, "x")
    run.append_log(line(2))
    assert [each["step"] for each in run.log()] == [1, 2]
    assert [each["step"] for each in run.rollbacks()] == [5]
    run.rewind(2, log_every=1, sample_every=None, evaluate_every=None)
    assert run.log_file.read_text() == "".join(json.dumps(line(step)) + "\n" for step in (1, 2))


# --- samples and checkpoints


def test_samples_and_checkpoints_are_in_the_order_of_their_steps(run):
    for step in (10, 99_999_999, 9, 100_000_000, 1):
        run.sample_stem(step).with_suffix(".png").touch()
        run.checkpoint(step).mkdir()
    (run.samples_folder / "real.png").touch()
    (run.checkpoints_folder / ".00000011.42").mkdir()
    (run.checkpoints_folder / "00000012").touch()
    steps = [1, 9, 10, 99_999_999, 100_000_000]
    assert [int(path.stem) for path in run.samples()] == steps
    assert [int(path.name) for path in run.checkpoints()] == steps
    assert [int(path.name) for path in run.checkpoints(10)] == [1, 9, 10]


def test_the_newest_checkpoints_up_to_a_step_are_kept_and_leftovers_go(run):
    for step in range(1, 6):
        run.checkpoint(step).mkdir()
    (run.checkpoints_folder / f".00000006.{NOBODY}").mkdir()
    run.keep_checkpoints(2, 4)
    assert [int(path.name) for path in run.checkpoints()] == [3, 4, 5]
    assert not list(run.checkpoints_folder.glob(".*"))


def test_only_what_interrupted_writers_of_a_run_have_left_is_removed(run):
    gone = [
        run.samples_folder / f".{NOBODY}-0123456789abcdef.partial",
        run.samples_folder / f".{os.getpid()}-0123456789abcdef.partial",  # a container was started again
        run.path / f".{NOBODY}-0123456789abcdef.partial",
        run.path / f".model.{NOBODY}" / "config.json",
        run.path / f".model.{NOBODY}.old" / "config.json",
        run.checkpoints_folder / f".00000006.{NOBODY}" / "state.json",
    ]
    kept = [
        run.samples_folder / f".{os.getppid()}-0123456789abcdef.partial",
        run.path / f".model.{os.getppid()}" / "config.json",
        run.checkpoints_folder / f".00000006.{os.getppid()}" / "state.json",
        run.path / ".notes",
        run.path / f".notes.{NOBODY}" / "x",
        run.checkpoints_folder / ".directory",
        run.samples_folder / ".1.png",
    ]
    for path in gone + kept:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    run.tidy()
    assert [path for path in gone if path.exists() or (path.parent.name.startswith(".") and path.parent.exists())] == []
    assert [path for path in kept if not path.exists()] == []


def test_a_rewind_forgets_what_came_later(run):
    for step in (2, 4, 5, 6):
        run.append_log(line(step))
        run.sample_stem(step).with_suffix(".png").touch()
    run.rewind(4, log_every=2, sample_every=2, evaluate_every=None)
    assert [each["step"] for each in run.log()] == [2, 4]
    assert [int(path.stem) for path in run.samples()] == [2, 4]


def test_a_rewind_removes_the_line_of_an_incomplete_interval_but_no_picture(run):
    for step in (2, 3):
        run.append_log(line(step))
        run.sample_stem(step).with_suffix(".png").touch()
    run.rewind(3, log_every=2, sample_every=None, evaluate_every=2)
    assert [each["step"] for each in run.log()] == [2]
    assert [int(path.stem) for path in run.samples()] == [2, 3]


def test_diagnostics_and_evaluations_are_rewound_by_their_own_intervals(run):
    for step in (2, 3, 4):
        run.append_log(line(step))
        run.append_log({"step": step, "phase": "diagnostics", "samples/spread": 1.0})
        run.append_log({"step": step, "phase": "evaluation", "evaluation/fid": 1.0})
    run.rewind(3, log_every=1, sample_every=2, evaluate_every=3)
    kept = [(each["step"], each["phase"]) for each in map(json.loads, run.log_file.read_text().splitlines())]
    assert kept == [(2, "adversarial"), (2, "diagnostics"), (2, "evaluation"), (3, "adversarial"), (3, "evaluation")]
    assert [each["step"] for each in run.log()] == [2, 3]


def test_a_rollback_is_recorded_with_the_last_removed_lines(run):
    assert run.rollbacks() == []
    for step in range(1, 51):
        run.append_log(line(step))
    run.append_rollback(51, 10, "generator/adversarial is nan")
    run.append_rollback(60, None, "generator/adversarial is inf")
    first, second = run.rollbacks()
    assert (first["step"], first["to"], first["what"]) == (51, 10, "generator/adversarial is nan")
    assert [each["step"] for each in first["log"]] == list(range(31, 51))
    assert second == {"step": 60, "to": None, "what": "generator/adversarial is inf", "log": []}


def test_a_run_is_read_without_torch(run):
    read = f"from gan_core.runs.run import Run; Run.open({str(run.path)!r}).recipe"
    code = f"import sys; {read}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
