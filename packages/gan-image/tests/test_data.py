import gzip
import io
import logging
import pickle
import re
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import gan_image
from gan_core import draws
from gan_core.data import ArraySpec, ImageSpec, Spec, TensorSource, hold_out, items
from gan_core.data.items import ReadItems
from gan_core.errors import DataError, MissingDependency
from gan_image import data
from gan_image.data import DATASETS, load_digits, load_gaussian, load_grid, load_ring, load_stacked_digits, open_folder

LOOKED_FOR = "(looked for .png, .jpg, .jpeg, .webp, .bmp, .gif, .tif, .tiff, .ppm, .pgm)"


def paint(path, level=0, size=(8, 8), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, (level,) * len(mode) if len(mode) > 1 else level).save(path)


def levels(dataset):
    return [int(dataset[i]["image"].flatten()[0]) for i in range(len(dataset))]


# --- named datasets


def test_listing_the_datasets_imports_no_heavy_library():
    code = "import sys, gan_image.data; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "sklearn", "PIL", "numpy"} & set(answer.stdout.split())


def test_every_card_names_a_loader():
    for card in DATASETS:
        module, _, function = card.load.partition(":")
        assert module == "gan_image.data"
        assert callable(getattr(data, function))
        assert card.origin in ("embedded", "download")
    assert len({card.name for card in DATASETS}) == len(DATASETS)


def test_digits_are_those_of_scikit_learn():
    source = load_digits()
    assert len(source) == 1797
    assert source.facts["shape"] == (1, 8, 8)
    assert source.facts["classes"] == list("0123456789")
    item = source.fit(Spec())[0]
    assert item["image"].dtype == torch.uint8
    assert item["image"][0, 0].tolist() == [0, 0, 80, 207, 143, 16, 0, 0]  # 0 0 5 13 9 1 0 0 of 16
    assert int(item["label"]) == 0


def test_digits_are_enlarged_to_the_specification():
    dataset = load_digits().fit(ImageSpec(image_size=32, channels=3))
    batch = dataset.__getitems__([0, 1, 1796])
    assert batch["image"].shape == (3, 3, 32, 32)
    assert batch["label"].tolist() == [0, 1, 8]
    assert_close(batch["image"][:, 0], batch["image"][:, 2])


@pytest.mark.parametrize(
    ("load", "count", "std"), [(load_gaussian, 1, 0.5), (load_ring, 8, 0.01), (load_grid, 25, 0.05)]
)
def test_a_toy_distribution_has_the_modes_and_deviation_of_its_facts(load, count, std):
    source = load()
    points, modes = source.fit(Spec()).tensors["points"], source.facts["modes"]
    assert points.shape == (100_000, *source.facts["shape"])
    assert (len(modes), source.facts["std"]) == (count, std)
    distance, nearest = torch.cdist(points, modes).min(dim=1)
    assert_close(torch.bincount(nearest) / len(points), torch.full((count,), 1 / count), atol=4e-3, rtol=0)
    rms = (distance.square().mean() / modes.shape[1]).sqrt()
    assert_close(rms, torch.tensor(std), atol=0, rtol=0.01)


def test_the_modes_are_those_of_the_papers():
    assert load_gaussian().facts["modes"].tolist() == [[4.0]]
    assert_close(load_ring().facts["modes"].norm(dim=1), torch.ones(8))
    assert sorted(load_grid().facts["modes"].tolist()) == [[x, y] for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)]


def test_a_toy_distribution_is_reproducible():
    assert_close(load_ring().fit(Spec()).tensors["points"], load_ring().fit(Spec()).tensors["points"], atol=0, rtol=0)


def test_points_reject_a_network_of_another_shape():
    assert len(load_ring().fit(ArraySpec(shape=[2]))) == 100_000
    with pytest.raises(DataError, match=r"^ring holds points of shape \[2\], but `network.shape` is \[3\]; set it"):
        load_ring().fit(ArraySpec(shape=(3,)))
    with pytest.raises(
        DataError, match=r"^ring holds points of shape \[2\], but this game needs images; choose other data$"
    ):
        load_ring().fit(ImageSpec(image_size=32, channels=1))


# --- stacked digits


def test_a_stacked_image_is_three_digits_of_the_dataset():
    source = load_stacked_digits()
    assert (len(source), source.facts["shape"]) == (128_000, (3, 8, 8))
    digits = load_digits().fit(Spec()).tensors["image"]
    dataset = source.fit(ImageSpec(image_size=8, channels=3))
    batch = dataset.__getitems__([5, 127_999])
    assert batch["image"].dtype == torch.uint8
    for row, index in enumerate((5, 127_999)):
        for channel, digit in enumerate(source.parts[index]):
            assert_close(batch["image"][row, channel], digits[digit, 0], atol=0, rtol=0)
        assert_close(dataset[index]["image"], batch["image"][row], atol=0, rtol=0)


def test_the_channels_of_stacked_digits_are_independent_and_all_modes_occur():
    source = load_stacked_digits()
    labels = load_digits().labels[source.parts]
    mode = torch.bincount((labels * torch.tensor([100, 10, 1])).sum(dim=1), minlength=1000).double()
    frequency = torch.bincount(load_digits().labels).double() / 1797
    expected = 128_000 * torch.einsum("i,j,k->ijk", frequency, frequency, frequency).flatten()
    assert mode.min() > 0
    chi_square = float(((mode - expected).square() / expected).sum())
    assert abs(chi_square - 999) < 4 * (2 * 999) ** 0.5  # mean and deviation of 999 degrees of freedom


def test_stacked_digits_are_reproducible_and_have_the_requested_size():
    assert_close(load_stacked_digits().parts, load_stacked_digits().parts, atol=0, rtol=0)
    batch = load_stacked_digits().fit(ImageSpec(image_size=16, channels=3)).__getitems__([0, 1])
    assert batch["image"].shape == (2, 3, 16, 16)


def test_large_stacked_digits_are_read_on_demand(monkeypatch):
    held = load_stacked_digits().fit(ImageSpec(image_size=16)).__getitems__([3, 4])
    monkeypatch.setattr(items, "MEMORY_BYTES", 0)
    read = load_stacked_digits().fit(ImageSpec(image_size=16))
    assert isinstance(read.single, ReadItems)
    assert_close(read.__getitems__([3, 4]), held, atol=0, rtol=0)


def test_stacked_digits_reject_other_numbers_of_channels():
    with pytest.raises(DataError, match=r"has 3 channels, but the networks have 1; set `network.channels` to 3$"):
        load_stacked_digits().fit(ImageSpec(channels=1))


# --- downloads


def idx(array):
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_existing_files_are_not_downloaded(home, capsys):
    raw = home / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    images = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.array([9, 0, 3], dtype=np.uint8)))
    source = data.load_fashion_mnist()
    assert source.facts["classes"][9] == "Ankle boot"
    batch = source.fit(ImageSpec(image_size=28)).__getitems__([0, 1, 2])
    assert_close(batch["image"], torch.from_numpy(images)[:, None])
    assert batch["label"].tolist() == [9, 0, 3]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("load", "kind", "words"),
    [
        (
            data.load_mnist,
            "MNIST",
            "mnist cannot be downloaded; put train-images-idx3-ubyte.gz, "
            "train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz, t10k-labels-idx1-ubyte.gz into {home}/MNIST/raw "
            "by hand (<urlopen error no network>)",
        ),
        (
            data.load_cifar10,
            "CIFAR10",
            "cifar10 cannot be downloaded; put cifar-10-python.tar.gz into {home} by hand (<urlopen error no network>)",
        ),
    ],
)
def test_a_failed_download_says_which_files_to_put_where(home, monkeypatch, load, kind, words):
    import torchvision.datasets as torchvision_sets

    def no_network(self):
        raise OSError("<urlopen error\n no network>")

    monkeypatch.setattr(getattr(torchvision_sets, kind), "download", no_network)
    with pytest.raises(DataError) as error:
        load()
    assert str(error.value) == words.format(home=home)


# --- photographs, faces, bedrooms


def test_photographs_are_crops_of_the_pictures_that_the_libraries_ship():
    skimage = pytest.importorskip("skimage.data")
    source = data.load_photographs()
    assert (len(source), source.facts["shape"], source.facts["num_classes"]) == (10_000, (3, 128, 128), 8)
    assert source.facts["classes"][0] == "astronaut"
    astronaut = torch.as_tensor(skimage.astronaut())
    detail = source.items(Spec()).read(8)  # every eighth crop is from the first photograph
    assert int(detail["label"]) == 0
    corners = astronaut.unfold(0, 128, 1).unfold(1, 128, 1)[:, :, :, 0, 0]
    places = torch.nonzero((corners == detail["image"][:, 0, 0]).all(dim=2)).tolist()
    found = [astronaut[top : top + 128, left : left + 128].permute(2, 0, 1) for top, left in places]
    assert any(torch.equal(each, detail["image"]) for each in found)
    assert not torch.equal(detail["image"], source.items(Spec()).read(16)["image"])
    assert torch.equal(detail["image"], data.load_photographs().items(Spec()).read(8)["image"])
    _, held_out = hold_out(source.fit(ImageSpec(image_size=16)), 0.1)
    assert len(set(source.labels[held_out.indices].tolist())) == 1  # all squares of one photograph
    assert source.items(ImageSpec(image_size=32, channels=1)).read(0)["image"].shape == (1, 32, 32)


def test_crops_of_one_photograph_are_held_out_together():
    pytest.importorskip("skimage")
    training, held_out = hold_out(data.load_photographs().fit(ImageSpec(image_size=8)), 0.1)
    seen, unseen = ({int(side[index]["label"]) for index in range(len(side))} for side in (training, held_out))
    assert (len(seen), len(unseen), seen & unseen) == (7, 1, set())


def test_photographs_without_scikit_image_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    with pytest.raises(MissingDependency, match=r"pip install gan-image\[photographs\]"):
        data.load_photographs()


def test_existing_faces_are_read_from_a_folder_or_an_archive(home):
    faces = home / "celeba"
    paint(faces / "img_align_celeba" / "000001.jpg", 9, (178, 218), "RGB")
    paint(faces / "img_align_celeba" / "000002.jpg", 90, (178, 218), "RGB")
    source = data.load_celeba()
    assert (len(source), source.facts["channels"]) == (2, 3)
    batch = source.fit(ImageSpec(image_size=8, channels=3)).__getitems__([0, 1])
    assert batch["image"][:, 0, 0, 0].tolist() == [9, 90]
    shutil.make_archive(str(faces / "img_align_celeba"), "zip", faces, "img_align_celeba")
    shutil.rmtree(faces / "img_align_celeba")
    assert len(data.load_celeba()) == 2


def test_missing_faces_say_which_archive_to_put_where(home, monkeypatch):
    from torchvision.datasets import CelebA

    def fails(self):
        raise OSError("no network")

    monkeypatch.setattr(CelebA, "download", fails)
    with pytest.raises(DataError, match=f"put img_align_celeba.zip into {re.escape(str(home / 'celeba'))} by hand"):
        data.load_celeba()
    (home / "celeba" / "img_align_celeba").mkdir(parents=True)
    with pytest.raises(DataError, match="contains no images"):
        data.load_celeba()


@pytest.fixture
def bedrooms(home):
    """Writes a database like that of LSUN: three images under arbitrary keys."""
    lmdb = pytest.importorskip("lmdb")
    folder = home / "lsun" / "bedroom_train_lmdb"
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), map_size=2**24) as database, database.begin(write=True) as transaction:
        for level in (10, 20, 30):
            file = io.BytesIO()
            Image.new("RGB", (300, 256), (level,) * 3).save(file, "WEBP", lossless=True)
            transaction.put(f"key/{level}".encode(), file.getvalue())
    return folder


def test_a_database_is_read_in_place(bedrooms):
    before = sorted(path.name for path in bedrooms.iterdir())
    source = data.load_lsun_bedroom()
    assert levels(source.fit(ImageSpec(image_size=64, channels=3))) == [10, 20, 30]
    assert levels(open_folder(bedrooms).fit(ImageSpec(image_size=64))) == [10, 20, 30]
    assert open_folder(bedrooms).facts["channels"] == 3
    again = pickle.loads(pickle.dumps(source))  # as for worker processes
    assert levels(again.fit(ImageSpec(image_size=32, channels=3))) == [10, 20, 30]
    assert sorted(path.name for path in bedrooms.iterdir()) == before


def test_a_damaged_database_is_reported(bedrooms):
    (bedrooms / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(DataError, match="cannot be read as a folder"):
        open_folder(bedrooms)


def test_missing_bedrooms_say_where_to_unpack_them(home):
    with pytest.raises(DataError, match=r"unpack the published bedroom_train_lmdb.zip to .*bedroom_train_lmdb"):
        data.load_lsun_bedroom()


# --- pairs


def test_the_halves_of_a_picture_are_two_images(tmp_path):
    both = np.concatenate([np.full((10, 12, 3), 10), np.full((10, 12, 3), 200)], axis=1).astype(np.uint8)
    Image.fromarray(both).save(tmp_path / "1.png")
    where = {"source": f"{tmp_path}:left", "target": f"{tmp_path}:right"}
    source = gan_image.open_data(where)
    assert source.facts["source_image_size"] == source.facts["image_size"] == (10, 12)
    item = source.fit(ImageSpec())[0]
    assert (item["source"].unique().tolist(), item["target"].unique().tolist()) == ([10], [200])


def test_unpaired_datasets_are_combined_at_random(tmp_path):
    for side, count in (("a", 3), ("b", 5)):
        (tmp_path / side).mkdir()
        for level in range(count):
            Image.new("L", (8, 8), level + 100 * (side == "b")).save(tmp_path / side / f"{level}.png")
    where = {"source": str(tmp_path / "a"), "target": str(tmp_path / "b")}
    dataset = gan_image.open_data(where, paired=False).fit(ImageSpec(flip=True))
    assert len(dataset) == 5
    with draws.reading(0, 0):
        batch = dataset.__getitems__([0, 1, 2, 3, 4] * 20)
    assert batch["source"][:5, 0, 0, 0].tolist() == [0, 1, 2, 0, 1]
    assert set(batch["target"][:, 0, 0, 0].tolist()) == {100, 101, 102, 103, 104}
    with draws.reading(0, 3):
        assert torch.equal(
            dataset.__getitems__([3])["target"][0], batch["target"][3]
        )  # its position determines its partner


# --- real data


def test_fruits_have_three_classes(shared_data):
    source = open_folder(shared_data("fruits"))
    assert (len(source), source.facts["image_size"], source.facts["channels"]) == (1320, 100, 3)
    assert source.facts["classes"] == ["apple", "cherry", "tomato"]
    dataset = source.fit(ImageSpec(image_size=32))
    assert dataset.tensors["image"].shape == (1320, 3, 32, 32)
    assert torch.bincount(dataset.tensors["label"]).tolist() == [440, 440, 440]
    corners = dataset.tensors["image"][:, :, 0, 0].float()
    assert corners.mean() > 240  # photographed on white


def test_kodak_is_cropped_to_squares(shared_data):
    source = open_folder(shared_data("kodak"), strict=True)
    assert source.facts == {"channels": 3}
    assert source.fit(ImageSpec(image_size=64)).tensors["image"].shape == (12, 3, 64, 64)


def test_an_archive_of_class_folders_is_read_in_place(shared_data, tmp_path, caplog):
    import zipfile

    folder = shared_data("fashion_mnist")
    raw = gzip.decompress((folder / "train-images-idx3-ubyte.gz").read_bytes())
    images = np.frombuffer(raw, dtype=np.uint8, offset=16).reshape(-1, 28, 28)[:40]
    labels = gzip.decompress((folder / "train-labels-idx1-ubyte.gz").read_bytes())[8:48]
    with zipfile.ZipFile(tmp_path / "fashion.zip", "w") as archive:
        for k, (image, label) in enumerate(zip(images, labels, strict=True)):
            with archive.open(f"fashion/{label}/{k:02d}.png", "w") as file:
                Image.fromarray(image).save(file, "PNG")
    source = open_folder(tmp_path / "fashion.zip")
    assert source.facts["classes"] == sorted({str(label) for label in labels})
    order = sorted(range(40), key=lambda k: (labels[k], k))
    assert_close(source.fit(Spec()).tensors["image"][:, 0], torch.from_numpy(images[order].copy()), atol=0, rtol=0)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


# --- remote data


def test_an_archive_and_a_sub_folder_are_read_through_fsspec(tmp_path):
    fsspec = pytest.importorskip("fsspec")
    for name, level in (("train/1/x.png", 10), ("train/10/x.png", 30), ("train/2/x.png", 20), ("test/1/x.png", 40)):
        paint(tmp_path / "set" / name, level)
    shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path / "set")
    with fsspec.open("memory://pictures/set.zip", "wb") as file:
        file.write((tmp_path / "set.zip").read_bytes())
    source = gan_image.open_data("memory://pictures/set.zip:train")
    assert source.facts["classes"] == ["1", "2", "10"]
    assert levels(source.fit(Spec())) == [10, 30, 20]
    assert source.fit(Spec())[1]["label"] == 2
    with pytest.raises(DataError, match=r"memory://pictures/none\.zip"):
        gan_image.open_data("memory://pictures/none.zip")


def test_folders_of_parts_are_not_classes(tmp_path):
    for side in ("images", "masks"):
        paint(tmp_path / side / "1.png")
    with pytest.raises(DataError, match=r"images, masks .*--data source=.*masks --data target=.*images"):
        open_folder(tmp_path)


def test_a_hub_dataset_is_read_with_its_classes(tmp_path):
    datasets = pytest.importorskip("datasets")
    pictures = [Image.new("L", (8, 8), level) for level in (10, 20, 30)]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
    made = datasets.Dataset.from_dict({"image": pictures, "label": [1, 0, 1]}, features=features)
    (tmp_path / "pets").mkdir()
    made.to_parquet(tmp_path / "pets" / "train.parquet")
    source = gan_image.open_data(f"hf:{tmp_path}/pets:train")
    assert source.facts["classes"] == ["cat", "dog"]
    dataset = source.fit(Spec())
    assert (levels(dataset), dataset.tensors["label"].tolist()) == ([10, 20, 30], [1, 0, 1])


def test_advice_about_parts_can_be_copied(tmp_path):
    for folder in ("masks", "images"):
        paint(tmp_path / "my data" / folder / "0.png")
    with pytest.raises(DataError, match=r"--data source='.*my data/masks' --data target='.*my data/images', or"):
        open_folder(tmp_path / "my data")


def test_a_part_cannot_have_the_name_of_a_setting(tmp_path):
    paint(tmp_path / "0.png")
    with pytest.raises(DataError) as error:
        gan_image.open_data({"strict": tmp_path, "image": tmp_path})
    assert str(error.value) == "`strict` cannot be the name of a part; use a key that the system reads"


class Ragged(torch.utils.data.Dataset):
    """Pairs of images of different widths."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return {key: torch.zeros(1, 16, 16 + 16 * index) for key in ("source", "target")}


@pytest.mark.parametrize(
    ("pairs", "changes", "words"),
    [
        (
            TensorSource(dict.fromkeys(("source", "target"), torch.zeros(6, 1, 32, 32))),
            {"data.held_out": 0.97},
            "which leaves none of 6 items",
        ),
        (Ragged(), {"data.spec.image_size": None}, "has items of different shapes"),
    ],
)
def test_unsuitable_data_leave_no_run_folder(tmp_path, pairs, changes, words):
    with pytest.raises(DataError, match=words):
        gan_image.train("pix2pix", data=pairs, out=tmp_path / "run", steps=2, changes=changes, shown=False)
    assert not (tmp_path / "run").exists()
