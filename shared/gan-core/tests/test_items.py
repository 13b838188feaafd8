import pickle

import pytest
import torch

from gan_core.data import Items, ItemSource, Spec, TensorDataset, items
from gan_core.data.files import FileKind, FolderFiles, SomeFiles, open_files, read_member
from gan_core.data.folders import Listing, Opened, list_files, open_place
from gan_core.data.items import HeldItems, ReadItems
from gan_core.errors import DataError, Unreadable

NUMBERS = FileKind("number", (".txt",))


class Texts(ItemSource):
    """Numbers in text files; `widths` makes items of different lengths."""

    key, kind = "points", NUMBERS

    def __init__(self, files, names, *, widths=False, **options):
        super().__init__(name="texts", facts={"digits": 1}, names=names, **options)
        self.files, self.widths = files, widths

    def __len__(self):
        return len(self.names)

    def read(self, index):
        number = read_number(self.files, self.names[index])
        points = torch.full((1 + index if self.widths else 1,), number)
        return {"points": points} | ({} if self.labels is None else {"label": self.labels[index]})

    def items(self, spec):
        return TextItems(self)


class TextItems(Items):
    pixels = frozenset()
    memory = values = 1

    def __init__(self, source):
        self.source, self.groups = source, torch.arange(len(source)) // 2

    def __len__(self):
        return len(self.source)

    def read(self, index):
        return self.source.read(index)


def read_number(files, name):
    try:
        return float(read_member(files, name, most_bytes=100))
    except ValueError as error:
        raise Unreadable("not a number") from error


@pytest.fixture
def folder(tmp_path):
    """Six files with the numbers 0 to 5."""
    for k in range(6):
        (tmp_path / f"{k}.txt").write_text(str(k))
    return tmp_path


def texts(folder, **options):
    return Texts(FolderFiles(folder), [f"{k}.txt" for k in range(6)], **options)


def numbers(dataset):
    return [float(dataset[index]["points"][0]) for index in range(len(dataset))]


@pytest.fixture(params=["memory", "files"])
def memory(request, monkeypatch):
    if request.param == "files":
        monkeypatch.setattr(items, "MEMORY_VALUES", 0)
    return request.param == "memory"


def test_a_source_has_the_facts_of_its_classes(folder):
    source = texts(folder, labels=[0, 1, 0, 1, 0, 1], classes=("even", "odd"))
    assert source.facts == {"digits": 1, "num_classes": 2, "classes": ["even", "odd"]}
    assert source.keys == ("points", "label")
    assert (source.labels.dtype, source.labels.tolist()) == (torch.int64, [0, 1, 0, 1, 0, 1])
    assert (texts(folder).keys, texts(folder).facts) == (("points",), {"digits": 1})


def test_items_are_held_in_memory_or_read_on_demand(folder, memory):
    dataset = texts(folder).fit(Spec())
    assert isinstance(dataset, TensorDataset if memory else ReadItems)
    assert numbers(dataset) == [0, 1, 2, 3, 4, 5]
    (folder / "3.txt").write_text("9")
    assert numbers(dataset)[3] == (3 if memory else 9)


def test_items_of_different_shapes_are_held_one_by_one(folder):
    dataset = texts(folder, widths=True).fit(Spec())
    assert isinstance(dataset, HeldItems)
    assert [len(dataset[index]["points"]) for index in range(len(dataset))] == [1, 2, 3, 4, 5, 6]


def test_an_unreadable_item_is_left_out_or_replaced_by_the_next_one(folder, memory, caplog):
    for k in (2, 5):
        (folder / f"{k}.txt").write_text("words")
    source = texts(folder, labels=range(6))
    dataset = source.fit(Spec())
    assert numbers(dataset) == ([0, 1, 3, 4] if memory else [0, 1, 3, 3, 4, 0])
    labels = [int(dataset[index]["label"]) for index in range(len(dataset))]
    assert labels == ([0, 1, 3, 4] if memory else [0, 1, 3, 3, 4, 0])
    assert dataset.groups.tolist() == ([0, 0, 1, 2] if memory else [0, 0, 1, 1, 2, 2])
    assert source.skipped == {"2.txt": "not a number", "5.txt": "not a number"}
    expected = (
        ["texts: skipped 2 unreadable numbers: 2.txt (not a number), 5.txt (not a number)"]
        if memory
        else [f"texts: skipped 1 unreadable number: {k}.txt (not a number)" for k in (2, 5)]
    )
    assert caplog.messages == expected
    numbers(source.fit(Spec()))
    assert caplog.messages == expected  # each item is reported once


def test_a_strict_source_stops_at_an_unreadable_item(folder, memory):
    (folder / "2.txt").write_text("words")
    with pytest.raises(DataError, match=r"^texts: cannot read 2.txt \(not a number\); repair or remove it, or omit"):
        numbers(texts(folder, strict=True).fit(Spec()))


def test_a_source_without_a_readable_item_fails_when_it_is_fitted(folder, memory):
    for path in folder.iterdir():
        path.write_text("words")
    with pytest.raises(DataError) as error:
        texts(folder).fit(Spec())
    assert str(error.value) == "texts: no readable numbers among 6 files (looked for .txt); 0.txt: not a number"


def test_items_that_are_known_to_be_unreadable_are_not_reported_again(folder, caplog):
    (folder / "2.txt").write_text("words")
    source = texts(folder, skipped={"2.txt": "not a number"}, strict=True)
    assert numbers(source.fit(Spec())) == [0, 1, 3, 4, 5]
    assert caplog.messages == []


def test_the_first_item_is_the_first_readable_one(folder):
    (folder / "0.txt").write_text("words")
    assert float(texts(folder).first()["points"]) == 1


def test_a_dataset_that_is_read_on_demand_can_be_sent_to_a_worker(folder, monkeypatch):
    monkeypatch.setattr(items, "MEMORY_BYTES", 0)
    assert numbers(pickle.loads(pickle.dumps(texts(folder).fit(Spec())))) == [0, 1, 2, 3, 4, 5]


# --- listing a folder


def listed(folder, *, strict=False, **options):
    return list_files(Opened("texts", FolderFiles(folder), **options), NUMBERS, read_number, strict=strict)


def test_a_listing_has_names_headers_classes_and_skipped_files(tmp_path, caplog):
    for name, content in (("b/1.txt", "1"), ("a/2.txt", "2"), ("a/3.txt", "words"), ("a/4.png", "4")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert listed(tmp_path) == Listing(
        names=["a/2.txt", "b/1.txt"],
        headers={"a/2.txt": 2.0, "b/1.txt": 1.0},
        labels=[0, 1],
        classes=["a", "b"],
        skipped={"a/3.txt": "not a number"},
        ignored={".png": 1},
    )
    assert caplog.messages == ["texts: skipped 1 unreadable number: a/3.txt (not a number)"]
    with pytest.raises(DataError, match=r"^texts: cannot read a/3.txt \(not a number\)"):
        listed(tmp_path, strict=True)


def test_given_labels_replace_those_of_the_sub_folders(folder):
    (folder / "1.txt").write_text("words")
    found = listed(folder, labelled=([5, 4, 3, 2, 1, 0], list("abcdef")))
    assert (found.names, found.labels) == (["0.txt", "2.txt", "3.txt", "4.txt", "5.txt"], [5, 3, 2, 1, 0])
    assert found.classes == list("abcdef")
    unlabelled = listed(folder, labelled=(None, None))
    assert (unlabelled.labels, unlabelled.classes) == (None, None)


def test_evenly_spaced_headers_are_read_of_a_large_folder(folder):
    opened = Opened("texts", FolderFiles(folder))
    found = list_files(opened, NUMBERS, read_number, strict=False, max_headers=4)
    assert list(found.headers) == ["0.txt", "2.txt", "4.txt"]
    assert len(found.names) == 6
    assert len(list_files(opened, NUMBERS, read_number, strict=False, max_headers=6).headers) == 6


@pytest.mark.parametrize("strict", [False, True])
def test_a_folder_without_files_of_the_kind_is_an_error(tmp_path, strict):
    (tmp_path / "a.png").write_text("")
    with pytest.raises(DataError, match=r"^texts: no readable numbers among 1 file \(found 1 .png; looked for .txt\)$"):
        listed(tmp_path, strict=strict)


def test_a_place_is_opened_with_the_name_of_its_part(folder):
    (folder / "part").mkdir()
    (folder / "part" / "7.txt").write_text("7")
    assert open_place(folder, None, kind="image").name == str(folder)
    opened = open_place(str(folder), "part", kind="image")
    assert (opened.name, list(opened.files.sizes), opened.labelled) == (f"{folder}:part", ["7.txt"], None)


def test_some_files_are_a_subset_in_sorted_order(folder):
    chosen = SomeFiles(open_files(folder), ["4.txt", "2.txt"])
    assert dict(chosen.sizes) == {"2.txt": 1, "4.txt": 1}
    assert read_member(chosen, "4.txt", most_bytes=1) == b"4"
    assert "0.txt" not in chosen.sizes
