"""The run folder: what is in it, when it is free, and what a rewind forgets."""

import json
import subprocess
import sys

import pytest

from gan_core.errors import CheckpointError, GanError, InputError
from gan_core.recipe import parse
from gan_core.runs.run import Run

RECIPE = parse({"system": "x", "train": {"steps": 7}})


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


# --- samples and checkpoints


def test_samples_and_checkpoints_are_in_the_order_of_their_steps(run):
    for step in (10, 9, 100_000_000, 1):
        run.sample_stem(step).with_suffix(".png").touch()
        run.checkpoint(step).mkdir()
    (run.samples_folder / "real.png").touch()
    (run.checkpoints_folder / ".00000011.42").mkdir()
    (run.checkpoints_folder / "00000012").touch()
    steps = [1, 9, 10, 100_000_000]
    assert [int(path.stem) for path in run.samples()] == steps
    assert [int(path.name) for path in run.checkpoints()] == steps
    assert [int(path.name) for path in run.checkpoints(10)] == [1, 9, 10]


def test_the_newest_checkpoints_up_to_a_step_are_kept_and_leftovers_go(run):
    for step in range(1, 6):
        run.checkpoint(step).mkdir()
    (run.checkpoints_folder / ".00000006.42").mkdir()
    run.keep_checkpoints(2, 4)
    assert [int(path.name) for path in run.checkpoints()] == [3, 4, 5]
    assert not list(run.checkpoints_folder.glob(".*"))


def test_a_rewind_forgets_what_came_later(run):
    for step in (2, 4, 5, 6):
        run.append_log(line(step))
        run.sample_stem(step).with_suffix(".png").touch()
    run.rewind(4, log_every=2, sample_every=2, evaluate_every=None)
    assert [each["step"] for each in run.log()] == [2, 4]
    assert [int(path.stem) for path in run.samples()] == [2, 4]


def test_a_rewind_forgets_what_was_made_because_the_training_ended(run):
    for step in (2, 3):
        run.append_log(line(step))
        run.sample_stem(step).with_suffix(".png").touch()
    run.rewind(3, log_every=2, sample_every=None, evaluate_every=2)
    assert [each["step"] for each in run.log()] == [2]
    assert [int(path.stem) for path in run.samples()] == [2]


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
