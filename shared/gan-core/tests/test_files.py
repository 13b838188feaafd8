import csv
import io
import os
import pickle
import tarfile
import zipfile
from contextlib import suppress

import pytest

from gan_core.data import files, limits
from gan_core.data.files import FolderFiles, LoneFile, names_ending, open_files, open_member, read_member
from gan_core.data.folders import classes_of, labels_of, natural_order, parts_of, split_part, sub_folder
from gan_core.errors import DataError, InputError, Unreadable
from gan_core.media.writing import refuse_existing, replacing, write_rows


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tarred(path, members, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def content_of(held, name):
    with open_member(held, name, most_bytes=1000) as file:
        return file.read()


# --- folders and archives


MEMBERS = {
    "b/two.png": b"2",
    "a/one.PNG": b"1",
    "a/deep/three.png": b"3",
    "a-b/four.png": b"4",
    "read me.txt": b"words",
}


def folder(path, members):
    for name, content in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def every_form(tmp_path, members):
    yield folder(tmp_path / "folder", members)
    yield zipped(tmp_path / "a.zip", members)
    yield tarred(tmp_path / "a.tar", members)
    for packing in ("gz", "bz2", "xz"):
        yield tarred(tmp_path / f"a.tar.{packing}", members, f"w:{packing}")


def test_all_containers_list_the_same_files_in_order(tmp_path):
    for path in every_form(tmp_path, MEMBERS):
        held = open_files(path)
        assert names_ending(held, (".png",)) == (["a-b/four.png", "a/deep/three.png", "a/one.PNG", "b/two.png"], 5), (
            path
        )
        assert content_of(held, "b/two.png") == b"2"


def test_all_containers_can_be_pickled_for_a_worker(tmp_path):
    for path in every_form(tmp_path, MEMBERS):
        held = pickle.loads(pickle.dumps(open_files(path)))
        assert content_of(held, "b/two.png") == b"2"


def test_each_process_opens_a_zip_archive_anew(tmp_path, monkeypatch):
    held = open_files(zipped(tmp_path / "a.zip", MEMBERS))
    before = held._archive
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert content_of(held, "b/two.png") == b"2"
    assert held._archive is not before


def test_hidden_files_are_ignored(tmp_path):
    members = {"__MACOSX/a/._one.png": b"", ".git/x.png": b"", "a/.hidden.png": b"", "./a/one.png": b"1"}
    for path in (zipped(tmp_path / "a.zip", members), tarred(tmp_path / "a.tar", members)):
        assert names_ending(open_files(path), (".png",)) == (["a/one.png"], 1)


def test_a_name_that_leads_out_of_the_archive_is_rejected(tmp_path):
    members = {"../../out.png": b"out", "/etc/out.png": b"out", "in.png": b"in"}
    for path in (zipped(tmp_path / "a.zip", members), tarred(tmp_path / "a.tar", members)):
        held = open_files(path)
        for name in ("../../out.png", "/etc/out.png"):
            with pytest.raises(Unreadable, match=r"^its name points outside of the archive$"):
                content_of(held, name)
        assert content_of(held, "in.png") == b"in"


def test_a_tar_archive_that_ends_with_a_zip_archive_is_read_as_tar(tmp_path):
    inner = zipped(tmp_path / "inner.zip", {"inside.png": b"1"}).read_bytes()
    path = tarred(tmp_path / "a.tar", {"one.png": b"1", "inner.zip": inner})
    assert list(open_files(path).sizes) == ["inner.zip", "one.png"]


def linked_tar(path, members, links):
    """Writes a tar archive with members, and links `name: (type, target)`."""
    tarred(path, members)
    with tarfile.open(path, "a") as archive:
        for name, (kind, target) in links.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return path


def linked_zip(path, members, links):
    """Writes a zip archive with members, and symbolic links `name: (type, target)` as Info-ZIP stores them."""
    zipped(path, members)
    with zipfile.ZipFile(path, "a") as archive:
        for name, (_, target) in links.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o120777 << 16
            archive.writestr(info, target)
    return path


SYMBOLIC = {
    "b/next.png": (tarfile.SYMTYPE, "../a/one.png"),
    "b/chain.png": (tarfile.SYMTYPE, "next.png"),
    "c": (tarfile.SYMTYPE, "a"),  # a folder
    "d/through.png": (tarfile.SYMTYPE, "../c/deep/two.png"),  # through a linked folder
}


@pytest.mark.parametrize("write", [linked_tar, linked_zip])
def test_links_inside_an_archive_are_followed(tmp_path, write):
    members = {"a/one.png": b"1", "a/deep/two.png": b"22"}
    held = open_files(write(tmp_path / "archive", members, SYMBOLIC))
    targets = {
        "b/next.png": b"1",
        "b/chain.png": b"1",
        "c/one.png": b"1",
        "c/deep/two.png": b"22",
        "d/through.png": b"22",
    }
    assert {name: content_of(held, name) for name in held.sizes} == members | targets
    assert dict(held.sizes) == {name: len(content) for name, content in sorted((members | targets).items())}
    assert list(held.sizes) == sorted(held.sizes)
    assert classes_of(held.sizes).keys() == {"a/", "a/deep/", "b/", "c/", "c/deep/", "d/"}


def test_hard_links_in_a_tar_archive_are_followed_from_its_top(tmp_path):
    hard = {"b/two.png": (tarfile.LNKTYPE, "a/one.png"), "b/three.png": (tarfile.LNKTYPE, "./b/two.png")}
    held = open_files(linked_tar(tmp_path / "a.tar", {"a/one.png": b"1"}, hard))
    assert {name: content_of(held, name) for name in held.sizes} == dict.fromkeys(
        ["a/one.png", "b/two.png", "b/three.png"], b"1"
    )


@pytest.mark.parametrize("write", [linked_tar, linked_zip])
@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("/etc/passwd", r"^a link that leads out of the archive, to /etc/passwd$"),
        ("../../out.png", r"^a link that leads out of the archive, to \.\./out\.png$"),
        ("gone.png", r"^a link to b/gone\.png, which is not in the archive$"),
        ("loop.png", r"^a link to b/loop\.png, which is not in the archive$"),
    ],
)
def test_a_link_to_no_file_in_the_archive_is_reported_when_it_is_read(tmp_path, write, target, reason):
    held = open_files(write(tmp_path / "archive", {"a/one.png": b"1"}, {"b/loop.png": (tarfile.SYMTYPE, target)}))
    assert dict(held.sizes) == {"a/one.png": 1, "b/loop.png": 0}
    with pytest.raises(Unreadable, match=reason):
        content_of(held, "b/loop.png")


def test_many_links_to_one_folder_are_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_FILES", 50)
    members = {f"a/{k}.png": b"" for k in range(10)}
    links = {f"{k}": (tarfile.SYMTYPE, "a") for k in range(10)}
    for write in (linked_tar, linked_zip):
        with pytest.raises(DataError, match=r"\(it contains more than 50 files; split it\)$"):
            open_files(write(tmp_path / write.__name__, members, links))


def test_members_of_a_tar_archive_that_are_not_files_are_reported_when_they_are_read(tmp_path):
    held = open_files(linked_tar(tmp_path / "a.tar", {"one.png": b"1"}, {"two.png": (tarfile.FIFOTYPE, "")}))
    with pytest.raises(Unreadable, match=r"^not a regular file$"):
        content_of(held, "two.png")


def test_backslashes_in_a_zip_archive_separate_folders(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("set\\", "set\\cat\\1.png", "set\\dog\\2.png", "..\\..\\out.png"):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, name)
    held = open_files(path)
    assert list(held.sizes) == ["../../out.png", "set/cat/1.png", "set/dog/2.png"]
    assert content_of(held, "set/dog/2.png") == b"set\\dog\\2.png"
    with pytest.raises(Unreadable, match=r"^its name points outside of the archive$"):
        content_of(held, "../../out.png")


def test_a_folder_linked_into_itself_is_read_once(tmp_path):
    folder(tmp_path, {"a/one.png": b"1"})
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    assert list(FolderFiles(tmp_path).sizes) == ["a/one.png"]


def test_the_size_of_a_compressed_tar_archive_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_UNPACKED", 2**20)
    path = tarred(tmp_path / "bomb.tar.gz", {"one.png": b"1", "zeros.bin": bytes(2**21)}, "w:gz")
    assert path.stat().st_size < 2**14
    with pytest.raises(DataError) as error:
        open_files(path)
    assert str(error.value) == (
        f"{path}: cannot be read as a folder, zip or tar archive "
        "(it unpacks to more than 1 MiB; use zip, or tar without compression)"
    )


@pytest.mark.parametrize("packing", ["gz", "bz2", "xz"])
def test_a_small_compressed_archive_cannot_unpack_to_much(tmp_path, monkeypatch, packing):
    monkeypatch.setattr(files, "_UNSUSPICIOUS", 2**19)
    path = tarred(tmp_path / "bomb", {"zeros.bin": bytes(2**20)}, f"w:{packing}")
    assert path.stat().st_size < 2**20 / 101
    with pytest.raises(DataError, match=r"\(it unpacks to more than 100 times its size; use zip, or tar without compr"):
        open_files(path)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz", "a.tar.xz"])
def test_a_damaged_archive_is_reported(tmp_path, name):
    whole = zipped(tmp_path / name, MEMBERS) if name == "a.zip" else tarred(tmp_path / name, MEMBERS, f"w:{name[6:]}")
    content = whole.read_bytes()
    whole.write_bytes(content[:120])
    with pytest.raises(DataError, match=r"cannot be read as a folder, zip or tar archive \(.+\)$"):
        open_files(whole)


def test_a_missing_folder_is_reported(tmp_path):
    with pytest.raises(DataError, match=r"gone: there is no such folder or archive$"):
        open_files(tmp_path / "gone")


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (["a/x", "b/y"], ["a", "b"]),
        (["a/x", "a/deep/y", "b/z"], ["a", "a", "b"]),
        (["photos/a/x", "photos/b/y"], ["a", "b"]),  # an archive often wraps all in one folder
        (["x", "y"], None),
        (["a/x", "a/y"], None),
        (["a/x", "y"], None),
        (["photos/x", "photos/a/y"], None),
        (["photos/x", "photos-a/y", "photos/b/z"], ["photos", "photos-a", "photos"]),
        (["ab/x", "ac/y", "a/z"], ["ab", "ac", "a"]),
        ([], None),
    ],
)
def test_the_first_folder_below_the_shared_ones_is_the_class(names, classes):
    found = classes_of(names)
    assert (found and [found[name.removesuffix(name.split("/")[-1])] for name in names]) == classes


def test_names_are_sorted_in_natural_order():
    assert natural_order(["10", "9", "2", "010", "1"]) == ["1", "2", "9", "010", "10"]
    assert natural_order(["class10", "Class2", "class2", "class1a", "class1"]) == [
        "class1",
        "class1a",
        "Class2",
        "class2",
        "class10",
    ]
    assert natural_order(["b", "A", "a", "B", "", "7"]) == ["", "7", "A", "a", "B", "b"]
    assert natural_order(["9" * 5000, "1" + "0" * 5000]) == [
        "9" * 5000,
        "1" + "0" * 5000,
    ]  # more digits than int() takes
    assert natural_order(["²", "2"]) == ["2", "²"]


def labels(path, names):
    return labels_of(path, names, names[:2], thing="image")


def test_classes_are_numbered_in_natural_order(tmp_path):
    names = [f"{k}/{k}.png" for k in range(1, 13)]
    assert labels(tmp_path, names) == ([0, 1], [str(k) for k in range(1, 13)])
    assert labels(tmp_path, ["b/x.png", "a/deep/y.png", "a/z.png"]) == ([1, 0], ["a", "b"])


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        ("test train", "test, train are splits of a dataset, not classes; give one of them, such as {}:train"),
        ("Test val", "Test, val are splits of a dataset, not classes; give one of them, such as {}:Test"),
        (
            "images masks",
            "images, masks are parts of each item, not classes; "
            "give them as --data source={0}/masks --data target={0}/images, or one of them alone, --data {0}/masks",
        ),
        (
            "A B",
            "A, B are parts of each item, not classes; give them as --data source={0}/A "
            "--data target={0}/B, or one of them alone, --data {0}/A",
        ),
        (
            "testA testB trainA trainB",
            "testA, testB, trainA, trainB are parts of each item, not classes; "
            "give them as --data source={0}/trainA --data target={0}/trainB, "
            "or one of them alone, --data {0}/trainA",
        ),
        (
            "image imgs",
            "image, imgs are parts of each item, not classes; "
            "give them as --data source={0}/image --data target={0}/imgs, or one of them alone, --data {0}/image",
        ),
    ],
)
def test_parts_of_a_dataset_and_of_items_are_not_classes(tmp_path, folders, words):
    names = [f"{name}/{k}.png" for name in folders.split() for k in range(2)]
    folder(tmp_path, dict.fromkeys(names, b""))
    with pytest.raises(DataError) as error:
        labels(tmp_path, names)
    assert str(error.value) == f"{tmp_path}: {words.format(tmp_path)}"


def test_advice_for_an_archive_names_its_parts(tmp_path):
    path = zipped(tmp_path / "a.zip", {"images/a.png": b"", "masks/a.png": b""})
    with pytest.raises(
        DataError,
        match=r"--data source=\S+a\.zip:masks --data target=\S+a\.zip:images, or one of them alone, --data \S+:masks$",
    ):
        labels(path, ["images/a.png", "masks/a.png"])


def test_the_part_proposed_by_an_error_can_be_opened(tmp_path):
    held = open_files(folder(tmp_path, {"read me.txt": b"", "set/images/a.png": b"1", "set/masks/a.png": b"2"}))
    with pytest.raises(DataError) as error:
        labels(tmp_path, ["set/images/a.png", "set/masks/a.png"])
    proposed = str(error.value).partition("--data source=")[2].split()[0]
    place, part = split_part(proposed)
    assert (place, part) == (str(tmp_path), "masks")
    assert content_of(sub_folder(held, part, place=place), "a.png") == b"2"


def test_folders_that_could_be_classes_are_classes(tmp_path):
    for folders in (["a", "b"], ["train", "cat"], ["images", "cat"], ["A", "B", "C"]):
        assert labels(tmp_path, [f"{name}/1.png" for name in folders])[1] == natural_order(folders)


def test_a_part_of_any_container_can_be_opened(tmp_path):
    members = {"set/train/1/a.png": b"train", "set/test/1/a.png": b"test", "set/read me.txt": b"words", ".git/x": b""}
    for path in every_form(tmp_path, members):
        held = open_files(path)
        assert parts_of(held) == {"test": "set/test", "train": "set/train"}
        for part in ("train", "set/train"):
            below = pickle.loads(pickle.dumps(sub_folder(held, part, path)))
            assert dict(below.sizes) == {"1/a.png": 5}
            assert content_of(below, "1/a.png") == b"train"
        with pytest.raises(DataError) as error:
            sub_folder(held, "trian", path)
        assert str(error.value) == f"{path}: unknown part `trian`; did you mean `train`?"


def test_a_part_cannot_lead_out_of_the_folder(tmp_path):
    folder(tmp_path, {"out.png": b"", "set/in.png": b"", "set/a/in.png": b""})
    for part in ("..", "../set", "/etc", "", "."):
        with pytest.raises(DataError, match=r"unknown part"):
            sub_folder(open_files(tmp_path / "set"), part, tmp_path)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("fruits:test", ("fruits", "test")),
        ("set.zip:photos/train", ("set.zip", "photos/train")),
        ("set.zip", ("set.zip", None)),
        ("set:", ("set:", None)),
        ("C:\\sets\\a.zip", ("C:\\sets\\a.zip", None)),
        ("C:\\sets\\a.zip:train", ("C:\\sets\\a.zip", "train")),
        ("memory://set:train", ("memory://set", "train")),
        ("s3://bucket/set.zip", ("s3://bucket/set.zip", None)),
        ("http://127.0.0.1:80/a.zip", ("http://127.0.0.1:80/a.zip", None)),
        ("http://127.0.0.1:80/a.zip:train", ("http://127.0.0.1:80/a.zip", "train")),
        ("https://host:443", ("https://host:443", None)),
    ],
)
def test_a_part_follows_a_colon(text, parts):
    assert split_part(text) == parts


def test_a_colon_in_a_file_name_is_not_a_part(tmp_path):
    folder(tmp_path, {"12:30/a.png": b""})
    assert split_part(f"{tmp_path}/12:30") == (f"{tmp_path}/12:30", None)


def test_the_sizes_of_a_folder_are_a_mapping(tmp_path):
    sizes = open_files(folder(tmp_path, {"b.png": b"22", "a/c.png": b""})).sizes
    assert dict(sizes) == {"a/c.png": 0, "b.png": 2}
    assert "b.png" in sizes
    assert "c.png" not in sizes


def test_the_number_of_files_is_limited(tmp_path, monkeypatch):
    paths = list(every_form(tmp_path, MEMBERS))
    monkeypatch.setattr(limits, "MAX_FILES", len(MEMBERS))
    for path in paths:
        assert len(open_files(path).sizes) == len(MEMBERS)
    monkeypatch.setattr(limits, "MAX_FILES", len(MEMBERS) - 1)
    for path in paths:
        with pytest.raises(DataError, match=r"\(it contains more than 4 files; split it\)$"):
            open_files(path)


def test_a_circular_link_is_reported_when_it_is_read(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    held = open_files(tmp_path)
    assert list(held.sizes) == ["a.png"]
    with pytest.raises(OSError, match="symbolic links"):
        content_of(held, "a.png")


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    folder(tmp_path, {"a.bin": bytes(3 * 2**20)})
    with (
        pytest.raises(Unreadable, match=r"^3 MiB, more than the maximum of 1$"),
        open_member(open_files(tmp_path), "a.bin", most_bytes=2**20),
    ):
        pass


def test_pipes_and_broken_links_are_reported_when_they_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    held = FolderFiles(tmp_path)
    assert names_ending(held, (".png",)) == (["link.png", "pipe.png"], 2)
    with pytest.raises(FileNotFoundError):
        content_of(held, "link.png")
    with pytest.raises(OSError, match=r"^it is not a regular file$"):
        content_of(held, "pipe.png")


@pytest.mark.parametrize("held", [FolderFiles, lambda path: LoneFile(path / "a.png")])
def test_a_file_that_has_become_a_pipe_is_unreadable_and_nobody_waits_for_a_writer(tmp_path, held):
    (tmp_path / "a.png").write_bytes(b"x")
    files = held(tmp_path)
    (tmp_path / "a.png").unlink()
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(Unreadable, match=r"^it is not a regular file$"):
        read_member(files, "a.png", most_bytes=10)


def test_a_pipe_given_as_an_archive_is_refused(tmp_path):
    os.mkfifo(tmp_path / "set.zip")
    with pytest.raises(DataError, match=r"set.zip: cannot be read as .* \(it is not a regular file\)$"):
        open_files(tmp_path / "set.zip")


# --- writing


def test_a_file_is_replaced_completely_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with replacing(path) as partial:
        partial.write_text("first")
    with suppress(KeyboardInterrupt), replacing(path) as partial:
        partial.write_text("seco")
        raise KeyboardInterrupt
    assert [file.name for file in path.parent.iterdir()] == ["a.txt"]
    assert path.read_text() == "first"


def test_two_writers_of_one_path_do_not_mix_their_content(tmp_path):
    path = tmp_path / "a.csv"
    with replacing(path) as first:
        first.write_text("first")
        write_rows([("second",)], path)
        assert path.read_text() == "second\n"
        assert first.read_text() == "first"
    assert path.read_text() == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


def test_names_of_the_maximum_length_can_be_written(tmp_path):
    write_rows([("a",)], tmp_path / ("a" * 251 + ".csv"))
    assert [len(file.name) for file in tmp_path.iterdir()] == [255]


def test_a_failure_to_write_gives_one_line(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(InputError, match=r"file/a.txt: cannot be written \(.+\); choose another place$"):
        write_rows([], tmp_path / "file" / "a.txt")


def test_written_rows_are_read_back(tmp_path):
    write_rows([("item", "label"), ("a, b", 3)], tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["item", "label"], ["a, b", "3"]]


def test_no_file_is_overwritten(tmp_path):
    (tmp_path / "b.txt").touch()
    refuse_existing(tmp_path, ["a.txt"])
    with pytest.raises(InputError, match=r"already contains b.txt; choose another folder, or empty this one$"):
        refuse_existing(tmp_path, ["a.txt", "b.txt"])
