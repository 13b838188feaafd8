import errno

import pytest

from gan_core.errors import (
    CheckpointError,
    DataError,
    GanError,
    InputError,
    MissingDependency,
    NonFiniteError,
    RecipeError,
    unknown,
    writing,
)


def test_exit_status_is_2_for_wrong_requests_and_1_for_failed_work():
    assert {kind.exit_status for kind in (InputError, RecipeError, DataError, CheckpointError, MissingDependency)} == {
        2
    }
    assert {kind.exit_status for kind in (GanError, NonFiniteError)} == {1}


def test_a_missing_library_can_be_caught_as_an_import_error():
    with pytest.raises(ImportError):
        raise MissingDependency("reading DICOM needs `pydicom`: pip install gan-medical")


@pytest.mark.parametrize(
    ("name", "known", "words"),
    [
        ("cylcegan", ["cyclegan", "dcgan"], "unknown system `cylcegan`; did you mean `cyclegan`?"),
        ("x", ["b", "a"], "unknown system `x`; known: a, b"),
        ("x", [], "unknown system `x`; there are none"),
        ("", ["a"], "unknown system ``; known: a"),
        ("train.zzz", ["train.ema", "train.seed"], "unknown system `train.zzz`; known: train.ema, train.seed"),
        ("train.sede", ["train.ema", "train.seed"], "unknown system `train.sede`; did you mean `train.seed`?"),
        ("trian", ["train"], "unknown system `trian`; did you mean `train`?"),
    ],
)
def test_an_unknown_name_is_shown_with_the_nearest_or_with_all(name, known, words):
    error = unknown("system", name, known)
    assert isinstance(error, RecipeError)
    assert str(error) == words


def test_an_unknown_name_can_be_any_error():
    assert isinstance(unknown("metric", "x", [], InputError), InputError)


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EACCES, InputError, "out: cannot be written (Permission denied); choose another place"),
        (errno.ENOTDIR, InputError, "out: cannot be written (Not a directory); choose another place"),
        (errno.ENOSPC, GanError, "out: cannot be written (No space left on device); free some space and try again"),
    ],
)
def test_errors_of_the_operating_system_are_one_line(number, kind, words):
    import os

    with pytest.raises(GanError) as error, writing("out"):
        raise OSError(number, os.strerror(number))
    assert type(error.value) is kind
    assert str(error.value) == words
    assert isinstance(error.value.__cause__, OSError)


def test_writing_without_an_error_changes_nothing(tmp_path):
    with writing(tmp_path):
        (tmp_path / "a").touch()
    with pytest.raises(ValueError, match="mine"), writing(tmp_path):
        raise ValueError("mine")
