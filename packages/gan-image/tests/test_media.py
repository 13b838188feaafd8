import numpy as np
import pytest
import torch
from PIL import Image
from torch.testing import assert_close

import gan_image
from gan_core.data import TensorSource
from gan_core.data.pictures import to_tensor
from gan_core.errors import DataError, InputError
from gan_core.media.pictures import write_gif
from gan_core.media.points import histogram, scatter
from gan_image.media import write_items, write_samples


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def size_of(path):
    with Image.open(path) as image:
        return image.size


def flat(*levels, channels=1, size=4):
    return torch.tensor(levels)[:, None, None, None].expand(-1, channels, size, size)


# --- pictures


def test_samples_are_drawn_in_rows_and_small_ones_are_enlarged(tmp_path):
    path = write_samples({"image": flat(-1.0, 0.0, 1.0)}, tmp_path / "new" / "00001000", columns=2)
    assert path == tmp_path / "new" / "00001000.png"
    picture = pixels(path)
    assert picture.shape == (2 * 256 + 2, 2 * 256 + 2, 3)  # 2 x 4 pixels are enlarged 64 times to 512
    assert picture[0, 0, 0] == 0
    assert picture[0, 258, 0] == 128
    assert picture[258, 0, 0] == 255
    assert (picture[:, 256:258] == 255).all()
    assert (picture[258:, 258:] == 255).all()


def test_values_beyond_the_range_are_clamped(tmp_path):
    picture = pixels(write_samples({"image": flat(-7.0, 7.0, torch.nan, torch.inf)}, tmp_path / "a", columns=4))
    assert [picture[0, k * 130, 0] for k in range(4)] == [0, 255, 128, 255]


def test_the_default_sheet_is_about_square(tmp_path):
    width, height = size_of(write_samples({"image": flat(*[0.0] * 16)}, tmp_path / "a"))
    assert width == height


def test_the_images_of_one_item_are_side_by_side_at_one_size(tmp_path):
    samples = {"source": flat(-1.0, 1.0, size=4), "target": flat(0.0, 0.0, channels=3, size=8), "label": torch.ones(2)}
    picture = pixels(write_samples(samples, tmp_path / "a", columns=1))
    assert picture.shape == (2 * 256 + 8, 2 * 256 + 2, 3)
    assert picture[[0, 0, 264, 264], [0, 258, 0, 258], 0].tolist() == [0, 128, 255, 128]


@pytest.mark.parametrize(
    ("count", "size", "columns"), [(64, 256, None), (4, 1500, None), (1, 3000, None), (300, 16, 1)]
)
def test_the_size_of_a_sheet_is_limited(tmp_path, count, size, columns):
    images = torch.zeros(1, 1, 1, 1).expand(count, 1, size, size)
    assert max(size_of(write_samples({"image": images}, tmp_path / "a", columns=columns))) < 2700


def test_equal_samples_give_equal_bytes_and_no_other_files(tmp_path):
    samples = {"image": torch.linspace(-1, 1, 3 * 3 * 64).reshape(3, 3, 8, 8)}
    first = write_samples(samples, tmp_path / "a").read_bytes()
    assert write_samples(samples, tmp_path / "a").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_low_precision_samples_with_gradients_are_drawn(tmp_path):
    image = torch.zeros(2, 1, 8, 8, dtype=torch.bfloat16, requires_grad=True)
    assert pixels(write_samples({"image": image}, tmp_path / "a"))[0, 0, 0] == 128


def test_the_error_for_unsuitable_samples_lists_their_shapes(tmp_path):
    with pytest.raises(DataError) as error:
        write_samples({"label": torch.zeros(3)}, tmp_path / "a")
    assert str(error.value) == (
        "no samples to write: expected images [N, C, H, W] or points [N, D], got {'label': [3]}"
    )
    with pytest.raises(DataError, match=r"^the samples have different numbers of items: {'source': 2, 'target': 3}$"):
        write_samples({"source": flat(0.0, 0.0), "target": flat(0.0, 0.0, 0.0)}, tmp_path / "a")


# --- points


def dark(path):
    """Returns the rows and columns of the pixels that have the colour of points."""
    return coloured(pixels(path))


def coloured(picture):
    return np.argwhere(picture[..., 2] - picture[..., 0] > 30)


def test_a_point_is_drawn_at_its_coordinates():
    picture = scatter(np.tile([1.0, 0.5], (50, 1)), -1.0, 1.0)
    rows, columns = coloured(np.asarray(picture).astype(int)).T
    assert (rows.min(), rows.max()) == (141, 145)  # 32 + 448 * 3/4 = 368 from below
    assert (columns.min(), columns.max()) == (478, 482)


def test_both_axes_have_the_same_scale(tmp_path):
    angle = torch.linspace(0, 2 * torch.pi, 400)
    ring = torch.stack([angle.cos(), angle.sin()], dim=1)
    places = dark(write_samples({"points": ring}, tmp_path / "a"))
    distance = np.linalg.norm(places - places.mean(axis=0), axis=1)
    assert np.ptp(distance) < 8


def test_the_bars_of_a_histogram_are_proportional_to_the_counts():
    values = np.repeat([[0.25], [0.75]], [300, 100], axis=0)
    rows, columns = coloured(np.asarray(histogram(values, 0.0, 1.0)).astype(int)).T
    left, right = ((side(columns, 256)) for side in (np.less, np.greater))
    height = {name: 480 - rows[part].min() for name, part in (("left", left), ("right", right))}
    assert height["left"] == 448
    assert height["right"] == pytest.approx(448 / 3, abs=1)


def test_plots_of_several_names_have_the_same_axes(tmp_path):
    samples = {"real": torch.tensor([[0.0, 0.0], [4.0, 4.0]]), "generated": torch.tensor([[0.0, 0.0]])}
    picture = pixels(write_samples(samples, tmp_path / "a"))
    assert picture.shape == (512, 1024, 3)
    places = {tuple(place) for place in dark(tmp_path / "a.png").tolist()}
    assert {(row, column - 512) for row, column in places if column >= 512} < places


def test_small_changes_of_the_points_keep_the_axes(tmp_path):
    first = write_samples({"generated": torch.tensor([[-1.0, 0.0], [1.0, 0.0]])}, tmp_path / "a")
    second = write_samples({"generated": torch.tensor([[-1.02, 0.0], [1.0, 0.0]])}, tmp_path / "b")
    assert (pixels(first)[485:] == pixels(second)[485:]).all()


@pytest.mark.parametrize("points", [[[torch.nan, 0.0]], [[1.0, 1.0]], [[0.0]], [[1e30, -1e30, 3.0], [0.0, 1.0, 2.0]]])
def test_extreme_points_are_drawn(tmp_path, points):
    assert pixels(write_samples({"points": torch.tensor(points)}, tmp_path / "a")).shape == (512, 512, 3)


# --- items


@pytest.mark.parametrize("channels", [1, 3])
def test_written_images_are_read_back(tmp_path, channels):
    images = torch.rand(3, channels, 6, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    paths = write_items({"image": images}, tmp_path / "new")
    assert [path.name for path in paths] == ["00000.png", "00001.png", "00002.png"]
    read = torch.stack([to_tensor(Image.open(path)) for path in paths]) / 127.5 - 1
    assert_close(read, images, atol=0.5 / 127.5 + 1e-6, rtol=0)


def test_every_grey_level_is_written_exactly(tmp_path):
    levels = torch.arange(256).reshape(1, 1, 16, 16)
    write_items({"image": levels / 127.5 - 1}, tmp_path)
    assert pixels(tmp_path / "00000.png")[..., 0].flatten().tolist() == list(range(256))


def test_points_are_read_back_exactly(tmp_path):
    points = torch.randn(20, 2, generator=torch.Generator().manual_seed(0)) * 1e-3
    assert write_items({"points": points}, tmp_path) == [tmp_path / "points.csv"]
    assert (tmp_path / "points.csv").read_text().startswith("x0,x1\n")
    read = np.loadtxt(tmp_path / "points.csv", delimiter=",", skiprows=1, dtype=np.float32)
    assert torch.equal(torch.from_numpy(read), points)


def test_a_tensor_without_a_name_is_written(tmp_path):
    assert write_items(flat(0.0), tmp_path) == [tmp_path / "00000.png"]
    assert write_items(torch.zeros(3, 2), tmp_path) == [tmp_path / "points.csv"]


def test_labels_are_written_to_a_table(tmp_path):
    labels = {"label": ["7", "red, round"]}
    write_items({"image": flat(0.0, 0.0)}, tmp_path / "images", labels=labels)
    words = 'file,label\n00000.png,7\n00001.png,"red, round"\n'
    assert (tmp_path / "images" / "labels.csv").read_text() == words
    write_items({"points": torch.tensor([[0.5], [1.5]])}, tmp_path / "points", labels=labels)
    assert (tmp_path / "points" / "points.csv").read_text() == 'x0,label\n0.5,7\n1.5,"red, round"\n'


@pytest.mark.parametrize("samples", [torch.rand(7, 1, 4, 4), torch.rand(7, 2)])
def test_samples_in_parts_are_written_like_one_tensor(tmp_path, samples):
    labels = {"label": [str(k % 3) for k in range(7)], "caption": ["a bird"] * 7}
    whole = write_items(samples, tmp_path / "whole", labels=labels)
    parts = write_items(iter(samples.split(3)), tmp_path / "parts", count=7, labels=labels)
    assert [path.name for path in parts] == [path.name for path in whole]
    files = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "parts").iterdir())
    for name in files:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_an_item_of_several_images_has_several_files(tmp_path):
    samples = {"source": flat(0.0, size=4), "target": flat(0.0, size=8)}
    paths = write_items(samples, tmp_path, labels={"label": ["cat"]})
    assert (tmp_path / "labels.csv").read_text() == "file,label\n00000_source.png,cat\n00000_target.png,cat\n"
    assert [path.name for path in paths] == ["00000_source.png", "00000_target.png"]


@pytest.mark.parametrize(
    ("samples", "there"), [({"image": flat(0.0, 0.0)}, "00001.png"), ({"points": torch.zeros(2, 2)}, "points.csv")]
)
def test_no_file_is_overwritten(tmp_path, samples, there):
    (tmp_path / there).write_text("mine")
    with pytest.raises(InputError) as error:
        write_items(samples, tmp_path)
    assert str(error.value) == f"{tmp_path} already contains {there}; choose another folder, or empty this one"
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


# --- animations


def test_a_gif_has_the_pictures_in_order_and_the_last_one_for_a_second(tmp_path):
    frames = [
        write_samples({"image": flat(level, size=size)}, tmp_path / f"{k}")
        for k, (level, size) in enumerate([(-1.0, 4), (0.0, 8), (1.0, 300)])
    ]
    path = write_gif(frames, tmp_path / "training.gif", milliseconds=50)
    shown, times = [], []
    with Image.open(path) as animation:
        assert animation.size == size_of(frames[-1])
        for k in range(animation.n_frames):
            animation.seek(k)
            shown.append(animation.convert("L").getpixel((0, 0)))
            times.append(animation.info["duration"])
    assert shown == [0, 128, 255]
    assert times == [50, 50, 1000]


def test_a_gif_of_no_or_damaged_pictures_is_rejected(tmp_path):
    with pytest.raises(
        InputError, match=r"there are no pictures to animate; train with a smaller `train.sample_every`$"
    ):
        write_gif([], tmp_path / "a.gif")
    (tmp_path / "a.png").write_text("words")
    with pytest.raises(DataError, match=r"a.png: cannot be read as a picture \("):
        write_gif([tmp_path / "a.png"], tmp_path / "a.gif")


@pytest.mark.parametrize("counts", [(30, 30, 30), (90, 1, 1)], ids=["enough of each class", "few of two classes"])
def test_real_images_of_a_conditional_run_have_a_column_for_each_class(tmp_path, counts):
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    images = (100 * labels).byte()[:, None, None, None].expand(-1, 1, 16, 16).contiguous()
    run = gan_image.train(
        gan_image.create("cgan-pd", image_size=16, channels=1, num_classes=3),
        data=TensorSource({"image": images, "label": labels}, classes=["a", "b", "c"]),
        out=tmp_path / "run",
        steps=1,
        show=9,
        batch_size=4,
        device="cpu",
        shown=False,
    )
    sheet = pixels(run.path / "samples" / "real.png")[:, :, 0]
    width = sheet.shape[1] // 3
    centres = sheet[-width // 2 :: -width, width // 2 :: width][:3]  # of the images, from the bottom up
    if counts == (30, 30, 30):
        assert centres.tolist() == [[0, 100, 200]] * 3
    else:
        assert centres.tolist() == [[0, 0, 0]] * 3  # the first items that were read
