import io
import json
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from gan_core import draws
from gan_core.data import ArraySpec, BatchStream, Derived, FittedData, ImageSpec, Paired, Spec, folders, items
from gan_core.data.folders import open_place
from gan_core.data.items import ReadItems
from gan_core.errors import DataError

pytest.importorskip("PIL", reason="images need Pillow: pip install gan-core[pictures]")

from PIL import Image

from gan_core.data.images import ImageSource, TensorImages, open_images
from gan_core.data.pictures import SUFFIXES

LOOKED_FOR = f"looked for {', '.join(SUFFIXES)})"


def open_folder(path, *, strict=False):
    return open_images(open_place(path, None, kind="image"), strict=strict)


def paint(path, level=0, size=(8, 8), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (level,) * len(mode) if len(mode) > 1 else level).save(path)


def spoil(path):
    """Writes a file with a valid header and truncated pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:500])


def levels(dataset):
    return [int(dataset[i]["image"].flatten()[0]) for i in range(len(dataset))]


# --- folders


def test_images_in_a_folder_are_unlabelled_and_in_order(tmp_path):
    for k in (2, 0, 1):
        paint(tmp_path / f"{k}.png", level=10 * k)
    source = open_folder(tmp_path)
    assert source.facts == {"channels": 1, "image_size": 8, "shape": (1, 8, 8)}
    assert levels(source.fit(Spec())) == [0, 10, 20]
    assert set(source.fit(Spec())[0]) == {"image"}


def test_sub_folders_are_classes(tmp_path):
    for k, name in enumerate(["pear/x.png", "apple/x.png", "apple/red/y.png"]):
        paint(tmp_path / name, level=k)
    source = open_folder(tmp_path)
    assert (source.facts["num_classes"], source.facts["classes"]) == (2, ["apple", "pear"])
    batch = source.fit(Spec()).__getitems__([0, 1, 2])
    assert batch["image"][:, 0, 0, 0].tolist() == [2, 1, 0]
    assert batch["label"].tolist() == [0, 0, 1]


def test_images_next_to_class_folders_disable_the_labels(tmp_path, caplog):
    paint(tmp_path / "apple" / "x.png")
    paint(tmp_path / "banner.png")
    source = open_folder(tmp_path)
    assert "num_classes" not in source.facts
    assert caplog.messages == [f"{tmp_path}: images are both in the folder and in its sub-folders; labels are ignored"]
    assert set(source.keys) == {"image"}


def test_folders_of_splits_are_not_classes(tmp_path):
    paint(tmp_path / "train" / "x.png")
    paint(tmp_path / "test" / "x.png")
    with pytest.raises(DataError) as error:
        open_folder(tmp_path)
    words = "test, train are splits of a dataset, not classes; give one of them, such as"
    assert str(error.value) == f"{tmp_path}: {words} {tmp_path}:train"


def test_images_of_different_sizes_have_no_size_fact(tmp_path):
    paint(tmp_path / "a.png", size=(8, 8))
    paint(tmp_path / "b.png", size=(8, 6), mode="RGB")
    source = open_folder(tmp_path)
    assert source.facts == {"channels": 3}
    with pytest.raises(DataError, match=r"the images have different sizes; set `data.spec.image_size`$"):
        source.fit(Spec())
    assert source.fit(ImageSpec(image_size=4, channels=1))[1]["image"].shape == (1, 4, 4)


def test_only_one_or_three_channels_are_supported(tmp_path):
    paint(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"`data.spec.channels` is 4; expected 1 or 3$"):
        open_folder(tmp_path).fit(ImageSpec(channels=4))


def test_images_reject_a_game_of_points(tmp_path):
    paint(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"holds images, but this game needs points; choose other data$"):
        open_folder(tmp_path).fit(ArraySpec(shape=[2]))


def test_unreadable_files_are_named_counted_and_skipped(tmp_path, caplog):
    paint(tmp_path / "good.png", level=7)
    paint(tmp_path / "small.png", size=(1, 1))
    (tmp_path / "text.png").write_text("words")
    source = open_folder(tmp_path)
    assert len(source) == 1
    assert caplog.messages == [
        f"{tmp_path}: skipped 2 unreadable images: small.png (1x1 pixels, smaller than the minimum of 4 per side), "
        "text.png (not an image, or damaged at its start)"
    ]
    assert caplog.records[0].name == "gan_core"


def test_damage_found_by_decoding_is_reported_when_the_dataset_is_read(tmp_path, caplog):
    for k in range(3):
        paint(tmp_path / f"{k}.png", level=k)
    spoil(tmp_path / "1.png")
    source = open_folder(tmp_path)
    assert len(source) == 3
    assert levels(source.fit(ImageSpec(image_size=8))) == [0, 2]
    assert list(source.skipped) == ["1.png"]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{tmp_path}: skipped 1 unreadable image: 1.png (image file is truncated")
    source.fit(ImageSpec(image_size=16))
    assert len(caplog.messages) == 1  # reported before


def test_many_skipped_files_are_counted(tmp_path, caplog):
    paint(tmp_path / "good.png")
    for k in range(12):
        (tmp_path / f"{k:02d}.png").write_text("words")
    assert len(open_folder(tmp_path).skipped) == 12
    assert "skipped 12 unreadable images: 00.png" in caplog.messages[0]
    assert caplog.messages[0].endswith("04.png (not an image, or damaged at its start), and 7 more")


@pytest.mark.parametrize("spoiled", ["header", "pixels"])
def test_strict_stops_at_an_unreadable_file(tmp_path, spoiled):
    paint(tmp_path / "a.png")
    spoil(tmp_path / "b.png")
    if spoiled == "header":
        (tmp_path / "b.png").write_text("words")
    with pytest.raises(DataError, match=r"cannot read b.png \(.+\); repair or remove it, or omit `strict` to skip it$"):
        open_folder(tmp_path, strict=True).fit(ImageSpec(image_size=8))


def test_every_file_of_a_folder_is_read_or_named_or_counted(tmp_path, caplog):
    for k, suffix in enumerate((".png", ".jfif", ".JPE", ".avif", ".dib")):
        picture = Image.new("L", (8, 8), 50 * k)
        picture.save(tmp_path / f"{k}{suffix}", {".jfif": "JPEG", ".JPE": "JPEG", ".dib": "BMP"}.get(suffix))
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(50))
    (tmp_path / "scan").write_bytes((tmp_path / "1.jfif").read_bytes())
    for name in ("a.txt", "b.txt", "c.npz", "LICENCE", ".hidden"):
        (tmp_path / name).write_text("words")
    source = open_folder(tmp_path)
    assert levels(source.fit(ImageSpec(image_size=8))) == pytest.approx([0, 50, 100, 150, 200], abs=2)
    assert source.skipped == {
        "IMG_1.HEIC": ".heic files cannot be read; convert it to PNG or JPEG",
        "scan": "looks like image data; rename it to end with .png, .apng, .jpg, .jpeg …",
    }
    assert source.ignored == {".txt": 2, ".npz": 1, "": 1}
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"{tmp_path}: skipped 2 unreadable images: IMG_1.HEIC (.heic files cannot")
    with pytest.raises(DataError, match=r"cannot read IMG_1\.HEIC \(\.heic files cannot be read; convert it"):
        open_folder(tmp_path, strict=True)


def test_the_content_of_few_other_files_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "MAX_SNIFFED", 2)
    paint(tmp_path / "a.png")
    for k in range(4):
        (tmp_path / f"{k}").write_bytes((tmp_path / "a.png").read_bytes())
    source = open_folder(tmp_path)
    assert list(source.skipped) == ["0", "1"]
    assert source.ignored == {"": 2}


def test_the_data_are_described_with_their_conversion_classes_and_ignored_files(tmp_path):
    for k, name in enumerate(("a/1.png", "a/2.png", "b/3.png")):
        paint(tmp_path / name, size=(8 + 4 * k, 10 - k))
    (tmp_path / "a" / "notes.txt").write_text("words")
    data = FittedData(open_folder(tmp_path), ImageSpec(image_size=8, channels=1))
    found = "3 images of 8x8 to 16x10 pixels, scaled and cropped at the centre to 8x8; 2 classes: a, b"
    assert data.in_words(2) == f"{found}; ignored: 1 .txt"
    assert data.in_words(None) == f"{found}, not learnt (set `network.num_classes` to 2); ignored: 1 .txt"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"image_size": (8, 16)}, "2 images of 16x8 pixels"),
        (
            {"image_size": (8, 16), "flip": True},
            "2 images of 16x8 pixels, scaled and cropped at the centre to 16x8, flip",
        ),
        ({"image_size": 4, "crop": "random"}, "2 images of 16x8 pixels, scaled and cropped at random to 4x4"),
        ({"image_size": 4, "resize": "stretch"}, "2 images of 16x8 pixels, stretched to 4x4"),
        ({"image_size": 4, "resize": "none"}, "2 images of 16x8 pixels, cropped at the centre to 4x4"),
        ({}, "2 images of 16x8 pixels, at their own size"),
    ],
)
def test_the_conversion_of_images_is_described(tmp_path, spec, words):
    for name in ("1.png", "2.png"):
        paint(tmp_path / name, size=(16, 8))
    assert open_folder(tmp_path).in_words(ImageSpec(**spec)).startswith(words)
    pair = Paired(source=open_folder(tmp_path), target=open_folder(tmp_path))
    both = pair.in_words(ImageSpec(channels={"source": 1, "target": 1}, image_size=4))
    part = "2 images of 16x8 pixels, scaled and cropped at the centre to 4x4"
    assert both == f"source: {part}; target: {part}"


def stylegan(path, labels):
    """Writes a zip archive as StyleGAN's dataset tool does: shards, and labels in `dataset.json`."""
    with zipfile.ZipFile(path, "w") as archive:
        for k in range(6):
            content = io.BytesIO()
            Image.new("L", (8, 8), 10 * k).save(content, "PNG")
            archive.writestr(f"{k // 3:05d}/img{k:08d}.png", content.getvalue())
        archive.writestr("dataset.json", labels if isinstance(labels, str) else json.dumps({"labels": labels}))
    return path


NAMES = [f"{k // 3:05d}/img{k:08d}.png" for k in range(6)]


def test_labels_in_dataset_json_replace_those_of_the_folders(tmp_path):
    path = stylegan(tmp_path / "set.zip", [[name, k % 2] for k, name in enumerate(NAMES)])
    source = open_folder(path)
    assert (source.labels.tolist(), source.facts["classes"]) == ([0, 1, 0, 1, 0, 1], ["0", "1"])
    assert source.ignored == {}
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked" / "below")
    assert open_folder(tmp_path / "unpacked").labels.tolist() == [0, 1, 0, 1, 0, 1]


def test_dataset_json_without_labels_means_no_classes(tmp_path):
    source = open_folder(stylegan(tmp_path / "set.zip", None))
    assert source.labels is None
    assert "classes" not in source.facts


def test_a_dataset_json_of_another_program_is_ignored(tmp_path):
    source = open_folder(stylegan(tmp_path / "set.zip", '{"images": []}'))
    assert source.facts["classes"] == ["00000", "00001"]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([[name, 0] for name in NAMES[1:]], f"has no label for {NAMES[0]}; add it, or remove dataset.json"),
        ([[name, 0.5] for name in NAMES], f"the label of {NAMES[0]} is 0.5; expected an integer from 0 to 1,048,575"),
        ([[name, 1 << 80] for name in NAMES], f"the label of {NAMES[0]} is 1208925819614629174706176; expected an int"),
        ([[name, [0, 1]] for name in NAMES], f"the label of {NAMES[0]} is [0, 1]; expected an integer"),
        (NAMES, "damaged, or not of the form"),
        ("{", "damaged, or not of the form"),
        ("[" * 100_000, "damaged, or not of the form"),
    ],
)
def test_odd_labels_in_dataset_json_are_reported(tmp_path, labels, words):
    with pytest.raises(DataError, match=rf"^{re.escape(f'{tmp_path}/set.zip: dataset.json: {words}')}"):
        open_folder(stylegan(tmp_path / "set.zip", labels))


@pytest.mark.parametrize("strict", [False, True])
def test_the_error_for_a_folder_without_images_lists_the_suffixes(tmp_path, strict):
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "b.txt").write_text("words")
    with pytest.raises(DataError) as error:
        open_folder(tmp_path, strict=strict)
    assert str(error.value) == f"{tmp_path}: no readable images among 2 files (found 2 .txt; {LOOKED_FOR}"


def test_the_error_for_a_folder_gives_the_reason_of_the_first_file(tmp_path, caplog):
    paint(tmp_path / "wide.png", size=(50_000, 4), mode="1")
    with pytest.raises(DataError) as error:
        open_folder(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: no readable images among 1 file ({LOOKED_FOR}; "
        "wide.png: 50000x4 pixels; the maximum is 89 million pixels and 20,000 per side"
    )
    assert not caplog.messages


@pytest.mark.parametrize("memory", [2**31, 0])
def test_a_dataset_without_a_readable_image_fails_before_training(tmp_path, monkeypatch, memory):
    monkeypatch.setattr(items, "MEMORY_BYTES", memory)
    for k in range(3):
        spoil(tmp_path / f"{k}.png")
    with pytest.raises(DataError, match=r"no readable images among 3 files .*; 0.png: image file is truncated"):
        open_folder(tmp_path).fit(ImageSpec(image_size=8))


# --- datasets too large for memory


@pytest.fixture
def large(tmp_path, monkeypatch):
    monkeypatch.setattr(items, "MEMORY_BYTES", 0)
    for k in range(4):
        paint(tmp_path / f"{'ab'[k % 2]}/{k}.png", level=k)
    return tmp_path


def test_a_large_dataset_is_decoded_on_demand(large):
    dataset = open_folder(large).fit(ImageSpec(image_size=8))
    assert isinstance(dataset, ReadItems)
    assert levels(dataset) == [0, 2, 1, 3]
    assert [int(dataset[i]["label"]) for i in range(4)] == [0, 0, 1, 1]


def test_a_damaged_image_of_a_large_dataset_is_replaced_by_the_next_one(large, caplog):
    source = open_folder(large)
    dataset = source.fit(ImageSpec(image_size=8))
    caplog.clear()
    spoil(large / "a" / "2.png")
    spoil(large / "b" / "3.png")
    assert levels(dataset) == [0, 1, 1, 0]
    assert [int(dataset[i]["label"]) for i in range(4)] == [0, 1, 1, 0]  # the label is that of the image that was read
    assert len(caplog.messages) == 2
    assert list(source.skipped) == ["a/2.png", "b/3.png"]


def test_strict_stops_in_a_large_dataset(large):
    dataset = open_folder(large, strict=True).fit(ImageSpec(image_size=8))
    spoil(large / "a" / "2.png")
    with pytest.raises(DataError, match=r"cannot read a/2.png \("):
        dataset[1]


def test_a_large_dataset_can_be_pickled_for_workers(large):
    dataset = pickle.loads(pickle.dumps(open_folder(large).fit(ImageSpec(image_size=8))))
    assert levels(dataset) == [0, 2, 1, 3]


def test_images_in_memory_and_read_on_demand_are_the_same(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for k in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / f"{k}.png")
    source = open_folder(tmp_path)
    held = source.fit(ImageSpec(image_size=16))
    monkeypatch.setattr(items, "MEMORY_VALUES", 0)
    read = open_folder(tmp_path).fit(ImageSpec(image_size=16))
    assert type(held) is not type(read)
    for i in range(3):
        assert_close(held[i], read[i], atol=0, rtol=0)


def test_tensors_and_files_give_the_same_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 30, 3), dtype=np.uint8)
    for k, array in enumerate(pixels):
        Image.fromarray(array).save(tmp_path / f"{k}.png")
    in_memory = ImageSource(TensorImages(torch.from_numpy(pixels).permute(0, 3, 1, 2)), name="memory")
    for spec in (ImageSpec(image_size=16), ImageSpec(image_size=(48, 20), channels=1)):
        assert_close(in_memory.fit(spec)[2], open_folder(tmp_path).fit(spec)[2], atol=0, rtol=0)


# --- sizes, crops and flips


def gradient(path, height=40, width=60):
    """Writes an image whose red value is the row and whose green value is the column."""
    rows, columns = np.mgrid[:height, :width]
    Image.fromarray(np.stack([rows, columns, 0 * rows], axis=2).astype(np.uint8)).save(path)


def test_sizes_are_height_and_width(tmp_path):
    gradient(tmp_path / "a.png")
    source = open_folder(tmp_path)
    assert source.facts["image_size"] == (40, 60)
    assert source.fit(Spec())[0]["image"].shape == (3, 40, 60)
    assert source.fit(ImageSpec(image_size=(20, 30)))[0]["image"].shape == (3, 20, 30)
    covered = source.fit(ImageSpec(image_size=(20, 10)))[0]["image"]  # the middle 10 of 30 columns
    stretched = source.fit(ImageSpec(image_size=(20, 10), resize="stretch"))[0]["image"]
    assert (covered.shape, stretched.shape) == ((3, 20, 10), (3, 20, 10))
    assert int(covered[1].min()) > 15
    assert int(stretched[1].min()) < 6


def test_images_are_cropped_without_resizing_on_request(tmp_path):
    gradient(tmp_path / "a.png")
    gradient(tmp_path / "b.png", height=50)
    dataset = open_folder(tmp_path).fit(ImageSpec(image_size=16, resize="none"))
    image = dataset[0]["image"]  # the middle
    assert image[0, :, 0].tolist() == list(range(12, 28))
    assert image[1, 0].tolist() == list(range(22, 38))
    paint(tmp_path / "c.png", size=(8, 8), mode="RGB")
    with pytest.raises(DataError, match=r"cannot read c.png \(8x8 pixels, smaller than the crop of 16x16\)"):
        open_folder(tmp_path, strict=True).fit(ImageSpec(image_size=16, resize="none"))


def test_random_crops_reach_every_position_and_are_reproducible(tmp_path):
    gradient(tmp_path / "a.png")
    dataset = open_folder(tmp_path).fit(ImageSpec(image_size=30, resize="none", crop="random", flip=True))

    def corners(seed):
        with draws.reading(seed, 0):
            images = dataset.__getitems__([0] * 200)["image"]
        flipped = images[:, 1, 0, 0] > images[:, 1, 0, -1]
        return (
            images[:, 0, 0, 0].tolist(),
            torch.where(flipped, images[:, 1, 0, -1], images[:, 1, 0, 0]).tolist(),
            flipped,
        )

    top, left, flipped = corners(seed=1)
    assert set(top) == set(range(11))
    assert {0, 30} <= set(left) <= set(range(31))
    assert 70 < int(flipped.sum()) < 130
    assert corners(seed=1)[:2] == (top, left)
    assert corners(seed=2)[:2] != (top, left)


def test_enlarged_images_are_cropped_at_random(tmp_path):
    gradient(tmp_path / "a.png", height=60)
    spec = ImageSpec(image_size=30, enlarge=1.2, crop="random")
    with draws.reading(0, 0):
        images = open_folder(tmp_path).fit(spec).__getitems__([0] * 100)["image"]
    assert images.shape == (100, 3, 30, 30)
    assert len(set(images[:, 0, 0, 0].tolist())) == 7  # 36 rows allow seven positions
    assert torch.equal(
        open_folder(tmp_path).fit(spec.plain())[0]["image"],
        open_folder(tmp_path).fit(ImageSpec(image_size=30))[0]["image"],
    )


def test_images_read_on_demand_are_cropped_like_those_in_memory(tmp_path, monkeypatch):
    for name in "abc":
        gradient(tmp_path / f"{name}.png", width=40 + 10 * ord(name) % 30)
    spec = ImageSpec(image_size=20, crop="random", flip=True)
    held = open_folder(tmp_path).fit(spec)
    monkeypatch.setattr(items, "MEMORY_VALUES", 0)
    read = open_folder(tmp_path).fit(spec)
    assert isinstance(read.dataset, ReadItems)
    with draws.reading(3, 0):
        assert_close(held.__getitems__([0, 1, 2]), read.__getitems__([0, 1, 2]), atol=0, rtol=0)


# --- pairs


def test_pairs_of_folders_are_matched_by_name_and_augmented_alike(tmp_path, caplog):
    for side in ("photos", "drawings"):
        (tmp_path / side).mkdir()
    for name in ("1", "2", "10"):
        gradient(tmp_path / "photos" / f"{name}.png")
        gradient(tmp_path / "drawings" / f"{name}.bmp")
    gradient(tmp_path / "drawings" / "alone.bmp")
    pairs = Paired(source=open_folder(tmp_path / "drawings"), target=open_folder(tmp_path / "photos"))
    assert len(pairs) == 3
    assert "left out 1 item of 4 without a counterpart: alone" in caplog.text
    dataset = pairs.fit(ImageSpec(image_size=16, resize="none", crop="random", flip=True))
    with draws.reading(0, 0):
        batch = dataset.__getitems__([0, 1, 2, 0])
    assert torch.equal(batch["source"], batch["target"])
    assert len(set(batch["source"][:, 0, 0, 0].tolist())) > 1


def test_a_pair_with_a_damaged_part_is_skipped_as_a_whole(tmp_path, monkeypatch):
    for side in "ab":
        (tmp_path / side).mkdir()
        for level in range(4):
            Image.new("L", (8, 8), level).save(tmp_path / side / f"{level}.png")
    spoil(tmp_path / "b" / "2.png")
    for limit in (10**9, 0):  # held in memory, and read item by item
        monkeypatch.setattr(items, "MEMORY_VALUES", limit)
        pairs = Paired(source=open_folder(tmp_path / "a"), target=open_folder(tmp_path / "b"))
        dataset = pairs.fit(ImageSpec(image_size=8, channels=1))
        found = [
            (int(item["source"][0, 0, 0]), int(item["target"][0, 0, 0]))
            for item in map(dataset.__getitem__, range(len(dataset)))
        ]
        assert found == ([(0, 0), (1, 1), (3, 3)] if limit else [(0, 0), (1, 1), (3, 3), (3, 3)])
        assert list(pairs.skipped) == ["2.png"]
        strict = Paired(strict=True, source=open_folder(tmp_path / "a"), target=open_folder(tmp_path / "b"))
        with pytest.raises(DataError, match=r"cannot read 2\.png"):
            strict.fit(ImageSpec(image_size=8, channels=1))[2]


def test_masks_keep_their_values_and_are_not_interpolated(tmp_path):
    for side in ("images", "masks"):
        (tmp_path / side).mkdir()
    gradient(tmp_path / "images" / "a.png", height=40, width=40)
    classes = np.random.default_rng(0).choice(np.array([0, 1, 17, 255], dtype=np.uint8), (40, 40))
    Image.fromarray(classes).save(tmp_path / "masks" / "a.png")
    pairs = Paired(image=open_folder(tmp_path / "images"), mask=open_folder(tmp_path / "masks"))
    dataset = pairs.fit(ImageSpec(image_size=23))
    assert set(dataset[0]["mask"].unique().tolist()) <= {0, 1, 17, 255}
    batch = next(BatchStream(dataset, 1, seed=0))
    assert (batch["mask"].dtype, batch["image"].dtype) == (torch.uint8, torch.float32)
    palette = Image.fromarray(classes).convert("P")
    palette.putpalette([255 - value // 3 for value in range(768)])
    palette.save(tmp_path / "masks" / "a.png")  # colours unrelated to the classes
    again = Paired(image=open_folder(tmp_path / "images"), mask=open_folder(tmp_path / "masks")).fit(
        ImageSpec(image_size=40)
    )
    assert torch.equal(again[0]["mask"][0], torch.from_numpy(classes))


def test_a_derived_part_is_computed_from_the_cropped_image(tmp_path):
    gradient(tmp_path / "a.png")

    def darken(image, numbers):
        return (image[:1].float() * numbers[0]).byte()

    source = Derived(open_folder(tmp_path), darken, draws=1)
    assert (source.facts["source_channels"], source.facts["target_channels"]) == (1, 3)
    dataset = source.fit(ImageSpec(image_size=16, crop="random", resize="none"))
    assert dataset.pixels == {"source", "target"}
    with draws.reading(0, 0):
        batch = dataset.__getitems__([0] * 8)
    shares = batch["source"].float().sum(dim=(1, 2, 3)) / batch["target"][:, 0].float().sum(dim=(1, 2))
    assert len({round(share, 1) for share in shares.tolist()}) > 3
    assert shares.max() <= 1
    assert batch["source"].shape == (8, 1, 16, 16)


def test_of_files_with_the_same_name_only_the_first_is_used(tmp_path, caplog):
    for file in ("a/0.jpg", "a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        paint(tmp_path / file)
    pairs = Paired(source=open_folder(tmp_path / "a"), target=open_folder(tmp_path / "b"))
    assert [pairs.parts["source"].names[place] for place in pairs.indices[:, 0].tolist()] == ["0.jpg", "1.png"]
    assert pairs.skipped == {f"{tmp_path / 'a'}/0.png": "has the same name as 0.jpg"}


# --- rotation, interpolation and names


def test_the_size_of_rotated_images_is_that_after_rotation(tmp_path):
    turn = Image.Exif()
    turn[0x0112] = 6
    Image.new("RGB", (64, 32)).save(tmp_path / "0.jpg", exif=turn)
    source = open_folder(tmp_path)
    assert source.facts["image_size"] == (64, 32)
    assert source.fit(ImageSpec())[0]["image"].shape == (3, 64, 32)


def test_a_rotated_jpeg_is_decoded_large_enough(tmp_path):
    turn = Image.Exif()
    turn[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (200, 800), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "turned.jpg", exif=turn, quality=95)
    Image.fromarray(np.rot90(noise, -1)).save(tmp_path / "upright.png")  # [800, 200]
    files = open_folder(tmp_path).fit(ImageSpec(image_size=(48, 192), resize="stretch"))
    turned, upright = (files[index]["image"].float() for index in (0, 1))
    assert (turned - upright).abs().mean() < 5


def test_derived_images_may_have_different_sizes(tmp_path):
    paint(tmp_path / "0.png", size=(8, 8))
    paint(tmp_path / "1.png", size=(16, 8))
    pairs = Derived(open_folder(tmp_path), lambda image, numbers: 255 - image)
    assert pairs.fit(ImageSpec(image_size=8))[1]["source"].unique().tolist() == [255]


def test_grey_images_without_interpolation_are_scaled_as_pixels(tmp_path):
    paint(tmp_path / "0.png", level=255)
    batch = next(BatchStream(open_folder(tmp_path).fit(ImageSpec(interpolate=False)), 1, seed=0))
    assert float(batch["image"].mean()) == 1.0


def test_names_of_classes_are_printable(tmp_path):
    for folder in ("apple", "line\nbreak", b"\xff".decode(errors="surrogateescape")):
        paint(tmp_path / folder / "0.png")
    assert open_folder(tmp_path).facts["classes"] == ["apple", "'line\\nbreak'", "'\\udcff'"]
