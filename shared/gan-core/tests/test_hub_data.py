import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from gan_core.data.files import names_ending, read_member
from gan_core.data.hub import is_hub_dataset, open_hub_dataset
from gan_core.errors import DataError, MissingDependency, Unreadable

NEEDS = "needs datasets: pip install gan-image[hf]"
CONTENT = [f"picture {k}".encode() * (k + 1) for k in range(5)]


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The library `datasets`, offline and with its cache in a folder of the test."""
    library = pytest.importorskip("datasets", reason=NEEDS)
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    return library


def rows(content=CONTENT):
    return [{"bytes": each, "path": None} for each in content]


def saved(library, folder, columns, features, splits=("train",)):
    """Writes a dataset as Parquet files in a folder; each split is one row shorter than the previous one."""
    from pyarrow import parquet, table

    folder.mkdir()
    whole = table(columns, schema=library.Features(features).arrow_schema)
    for k, split in enumerate(splits):
        parquet.write_table(whole.slice(0, len(whole) - k), folder / f"{split}-00000.parquet")
    return f"hf:{folder}"


@pytest.fixture
def pictures(library, tmp_path):
    classes = library.ClassLabel(names=["10", "9", "1"])
    features = {"caption": library.Value("string"), "image": library.Image(), "label": classes}
    columns = {"caption": list("abcde"), "image": rows(), "label": [2, 0, 1, 1, 0]}
    return saved(library, tmp_path / "set", columns, features, ("train", "test"))


def test_the_rows_of_a_split_are_files_with_labels(pictures):
    files, labels, classes = open_hub_dataset(f"{pictures}:train", kind="image")
    names = [f"00000{k}.png" for k in range(5)]
    assert names_ending(files, (".png",)) == (names, 5)
    assert dict(files.sizes) == {name: len(each) for name, each in zip(names, CONTENT, strict=True)}
    assert [read_member(files, name, most_bytes=100) for name in names] == CONTENT  # not decoded: they are no pictures
    assert (labels, classes) == ([2, 0, 1, 1, 0], ["10", "9", "1"])
    test, labels, _ = open_hub_dataset(f"{pictures}:test", kind="image")
    assert len(test.sizes) == len(labels) == 4


def test_a_row_that_is_too_large_is_not_read(pictures):
    files, _, _ = open_hub_dataset(f"{pictures}:train", kind="image")
    with pytest.raises(Unreadable, match=r"more than the maximum of 0$"):
        read_member(files, "000004.png", most_bytes=len(CONTENT[4]) - 1)


def test_a_dataset_is_read_in_another_process(pictures):
    files, _, _ = open_hub_dataset(f"{pictures}:train", kind="image")
    code = "import pickle, sys; sys.stdout.buffer.write(pickle.load(sys.stdin.buffer).open('000003.png').read())"
    there = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(files), capture_output=True, check=True)
    assert there.stdout == CONTENT[3]


def test_sounds_are_read_without_the_decoder_of_datasets(library, tmp_path):
    text = saved(
        library,
        tmp_path / "set",
        {"audio": rows(), "text": list("abcde")},
        {"audio": library.Audio(sampling_rate=16_000), "text": library.Value("string")},
    )
    files, labels, classes = open_hub_dataset(text, kind="audio")  # one split need not be named
    assert read_member(files, "000001.wav", most_bytes=100) == CONTENT[1]
    assert labels is classes is None


def test_files_of_a_folder_are_read_in_place(library, tmp_path):
    for name in ("train/cat/1.png", "train/dog/2.png"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(name.encode())
    files, labels, classes = open_hub_dataset(f"hf:{tmp_path}/set:train", kind="image")
    assert [read_member(files, name, most_bytes=100) for name in files.sizes] == [
        b"train/cat/1.png",
        b"train/dog/2.png",
    ]
    assert (labels, classes) == ([0, 1], ["cat", "dog"])


def test_a_path_that_leads_out_of_the_dataset_is_not_read(library, tmp_path):
    (tmp_path / "secret.png").write_bytes(b"secret")
    paths = [str(tmp_path / "secret.png"), str(tmp_path / "set" / ".." / "secret.png"), "https://127.0.0.1/a.png"]
    images = [None, *({"bytes": None, "path": path} for path in paths)]
    text = saved(library, tmp_path / "set", {"image": images}, {"image": library.Image()})
    files, _, _ = open_hub_dataset(text, kind="image")
    reasons = []
    for name in files.sizes:
        with pytest.raises(Unreadable) as error:
            read_member(files, name, most_bytes=100)
        reasons.append(str(error.value))
    assert reasons == ["the row is empty"] + ["its path is outside of the dataset's folders"] * 3


def test_the_reason_why_a_dataset_cannot_be_prepared_is_reported(library, tmp_path, monkeypatch):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(DataError, match=r"^hf:\S+set:train: cannot be opened \(Parquet.+\)$"):
        open_hub_dataset(f"hf:{tmp_path}/set:train", kind="image")
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "1.wav").write_bytes(b"1")
    monkeypatch.setitem(sys.modules, "torchcodec", None)  # as if it were not installed
    with pytest.raises(MissingDependency, match=r"^hf:\S+sounds:train: cannot be opened \(.+install 'torchcodec'\.\)$"):
        open_hub_dataset(f"hf:{tmp_path}/sounds:train", kind="audio")


def test_code_of_a_dataset_is_not_run(library, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "set.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(DataError, match=r"^hf:\S+set:train: .*scripts are no longer supported"):
        open_hub_dataset(f"hf:{folder}:train", kind="image")
    assert not (tmp_path / "ran").exists()


def test_missing_labels_disable_the_labels_of_all_rows(library, tmp_path, caplog):
    features = {"image": library.Image(), "kind": library.ClassLabel(names=["a", "b"])}
    text = saved(library, tmp_path / "set", {"image": rows(), "kind": [0, 1, -1, None, 0]}, features)
    _, labels, classes = open_hub_dataset(text, kind="image")
    assert labels is classes is None
    assert "`kind` is missing in 2 rows; labels are ignored" in caplog.text


def test_a_warning_names_the_column_of_classes_that_is_used(library, tmp_path, caplog):
    classes = library.ClassLabel(names=["a", "b"])
    columns = {"image": rows(), "coarse": [0] * 5, "fine": [1] * 5}
    text = saved(library, tmp_path / "set", columns, {"image": library.Image(), "coarse": classes, "fine": classes})
    assert open_hub_dataset(text, kind="image")[1] == [0] * 5
    assert "several columns hold classes (coarse, fine); using `coarse`" in caplog.text


def test_one_of_several_columns_is_chosen_by_name(library, tmp_path):
    columns = {"before": rows(), "after": rows([each[::-1] for each in CONTENT])}
    text = saved(library, tmp_path / "set", columns, dict.fromkeys(columns, library.Image()))
    with pytest.raises(DataError) as error:
        open_hub_dataset(text, kind="image")
    assert (
        str(error.value)
        == f"{text}: several columns hold images (before, after); append one, such as {text}:train:before"
    )
    files, _, _ = open_hub_dataset(f"{text}:train:after", kind="image")
    assert read_member(files, "000001.png", most_bytes=100) == CONTENT[1][::-1]
    with pytest.raises(DataError, match=r"unknown column of images `aftr`; did you mean `after`\?$"):
        open_hub_dataset(f"{text}:train:aftr", kind="image")


def test_missing_splits_and_columns_are_reported(pictures):
    for text, kind, words in [
        (f"{pictures}:trian", "image", "unknown split `trian`; did you mean `train`?"),
        (pictures, "image", f"the splits are train, test; append one, such as {pictures}:train"),
        (f"{pictures}:train", "audio", "no column holds audios; the columns are caption, image, label"),
    ]:
        with pytest.raises(DataError) as error:
            open_hub_dataset(text, kind=kind)
        assert str(error.value) == f"{text}: {words}"


def test_a_missing_dataset_gives_one_line(library, tmp_path):
    with pytest.raises(DataError, match=r"^hf:/gone:train: there is no such dataset \(.+\); check the name, or run"):
        open_hub_dataset("hf:/gone:train", kind="image")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"there is no such dataset \(.+data files\);"):
        open_hub_dataset(f"hf:{tmp_path}/empty:train", kind="image")


@pytest.mark.parametrize("text", ["hf:", "hf:mnist:train", "hf:a/b/c/d:train", "hf:a/b:", "hf:a/b:c:d:e", "hf:a//b:c"])
def test_malformed_names_are_rejected(text):
    with pytest.raises(DataError, match=f"^{text}: expected hf:owner/name:split or hf:owner/name/config:split$"):
        open_hub_dataset(text, kind="image")


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)  # as if it were not installed
    with pytest.raises(MissingDependency, match=r"^hf:a/b:train needs `datasets`: pip install gan-audio\[hf\]$"):
        open_hub_dataset("hf:a/b:train", kind="audio")


def test_dataset_names_are_distinguished_from_urls_and_paths():
    assert is_hub_dataset("hf:owner/name:train")
    assert not any(is_hub_dataset(each) for each in ("hf://datasets/owner/name", "owner/name", Path("hf:a/b")))


def test_usage_statistics_are_disabled(library):
    from huggingface_hub import constants

    library.config.HF_UPDATE_DOWNLOAD_COUNTS = constants.HF_HUB_DISABLE_TELEMETRY = True
    with pytest.raises(DataError):
        open_hub_dataset("hf:/gone:train", kind="image")
    assert not library.config.HF_UPDATE_DOWNLOAD_COUNTS
    assert constants.HF_HUB_DISABLE_TELEMETRY
