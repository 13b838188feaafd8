"""`gan-image translate`: folders, pipes, unusual and large images, and wrong requests."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torch.testing import assert_close

import gan_image
from gan_core.cli import main
from gan_core.data import ImageSpec
from gan_core.data.pictures import MAX_PIXELS, to_tensor
from gan_core.errors import RecipeError
from gan_core.models.card import model_card
from gan_core.models.folder import save_model
from gan_core.play.conditions import Classes, Given
from gan_core.play.game import Game
from gan_image import DOMAIN
from gan_image.pipeline import translate

Call = Callable[..., tuple[int, bytes, str]]


class Painter(Game):
    """Colours a grey image by class."""

    results: ClassVar = {"painted": "source"}

    def __init__(self):
        super().__init__()
        self.num_classes, self.generator = 2, nn.Embedding.from_pretrained(torch.tensor([[1.0, -1, -1], [-1, -1, 1.0]]))

    @property
    def conditions(self):
        return {"source": Given(), "label": Classes(2, ("red", "blue"))}

    def data_spec(self):
        return ImageSpec(channels={"source": 1})

    def players(self):
        return ()

    def apply(self, batch):
        colours = self.generator(batch["label"])[:, :, None, None]
        return {"painted": torch.lerp(-torch.ones_like(colours), colours, (batch["source"] + 1) / 2)}


def test_conditions_other_than_the_image_are_given_by_name(tmp_path: Path) -> None:
    Image.new("L", (6, 5), 255).save(tmp_path / "a.png")
    for label, colour in (("blue", (0, 0, 255)), (0, (255, 0, 0))):
        (file,) = translate(Painter(), [str(tmp_path / "a.png")], str(tmp_path / str(label)), label=label).files
        with Image.open(file) as image:
            assert (image.size, image.getpixel((2, 2))) == ((6, 5), colour)
    for given, words in [
        ({}, "`label` is missing: Painter needs it in addition to `source`"),
        ({"label": "green"}, "unknown label `green`; known: blue, red"),
        ({"label": 0, "lable": 1}, "Painter takes no `lable`; it takes `label`"),
    ]:
        with pytest.raises(RecipeError) as error:
            translate(Painter(), [str(tmp_path / "a.png")], str(tmp_path / "none"), **given)
        assert str(error.value) == words
    assert not (tmp_path / "none").exists()


MEMORY = """
import resource, sys
import gan_image
from gan_image.pipeline import translate

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

game = gan_image.load(sys.argv[1])
before = peak()
translate(game, [sys.argv[2]], sys.argv[3])
print(before, peak())
"""


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folders of untrained networks by system; CycleGAN is for colour, pix2pix from grey to colour."""
    folder = tmp_path_factory.mktemp("models")
    small = {
        "cyclegan": {"width": 4, "blocks": 1},
        "dcgan": {"image_size": 16, "width": 2},
        "batch": {"width": 4, "blocks": 1, "norm": "batch"},
        "pix2pix": {"width": 4, "source_channels": 1, "generator": {"depth": 2}},
    }
    torch.manual_seed(0)
    for name, network in small.items():
        game = gan_image.create("cyclegan" if name == "batch" else name, **network)
        for part in game.modules():
            if isinstance(part, nn.modules.conv._ConvNd):  # so that results differ from place to place
                part.weight.data.mul_(5)
        game.eval().save_pretrained(folder / name)
    return folder


@pytest.fixture
def gan(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Call:
    """Runs `gan-image WORDS…` in an empty folder; returns the exit status, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object, stdin: bytes = b"") -> tuple[int, bytes, str]:
        monkeypatch.setattr(sys, "argv", ["gan-image", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as end:
            main(DOMAIN)
        out, err = capfdbinary.readouterr()
        return int(end.value.code or 0), out, err.decode()

    return call


def pixels(height: int, width: int, channels: int = 3) -> NDArray[np.uint8]:
    array = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return array[..., 0] if channels == 1 else array


def save(path: Path, image: Image.Image | NDArray[np.uint8], **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, **options)
    return path


def read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


@torch.no_grad()
def translated(model: Path, image: NDArray[np.uint8], result: str = "to_target") -> NDArray[np.uint8]:
    """Returns the result for the whole image, whose sides are multiples that the networks accept."""
    game = gan_image.load(model)
    array = to_tensor(Image.fromarray(image))[None] / 127.5 - 1
    made = game.apply({game.results[result]: array})[result][0]
    levels = made.add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
    return levels[..., 0] if levels.shape[2] == 1 else levels


def assert_alike(found: NDArray[np.uint8], wanted: NDArray[np.uint8]) -> None:
    """Compares pixels up to one level, for rounding."""
    assert wanted.std() > 2
    assert_close(torch.tensor(found).int(), torch.tensor(wanted).int(), atol=1, rtol=0)


def test_a_folder_keeps_its_structure_and_a_bad_file_is_named_and_skipped(
    gan: Call, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path / "in/a.png", pixels(16, 24))
    save(tmp_path / "in/sub/b.jpg", pixels(20, 12))
    save(tmp_path / "in/sub/deep/odd.webp", pixels(13, 11), lossless=True)
    whole = save(tmp_path / "in/sub/bad.png", pixels(64, 64)).read_bytes()
    (tmp_path / "in/sub/bad.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in/no.png").write_bytes(b"no picture")
    (tmp_path / "in/link.png").symlink_to("nowhere")
    (tmp_path / "in/notes.txt").touch()
    status, out, _ = gan("translate", models / "cyclegan", "in", "--out", "out", "--json")
    assert status == 0
    document = json.loads(out)
    assert sorted(document["files"]) == ["out/a.png", "out/sub/b.png", "out/sub/deep/odd.png"]
    assert sorted(document["skipped"]) == ["in/link.png", "in/no.png", "in/sub/bad.png"]
    (said,) = caplog.messages
    assert said.startswith("in: skipped 3 unreadable files: in/link.png (")
    found = sorted(str(path.relative_to(tmp_path)) for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert found == sorted(document["files"])  # nothing half-written
    assert_alike(read(tmp_path / "out/a.png"), translated(models / "cyclegan", pixels(16, 24)))
    assert_alike(read(tmp_path / "out/sub/b.png"), translated(models / "cyclegan", read(tmp_path / "in/sub/b.jpg")))
    assert read(tmp_path / "out/sub/deep/odd.png").shape == (13, 11, 3)
    status, out, err = gan("translate", models / "cyclegan", "in/sub/bad.png", "--out", "other")
    assert (status, out) == (2, b"")
    assert err.startswith("gan-image: in/sub/bad.png: ")
    assert err.count("\n") == 1


def test_two_shards_write_the_files_of_the_whole_job(gan: Call, models: Path, tmp_path: Path) -> None:
    for number in range(5):
        save(tmp_path / f"in/{number % 2}/{number}.png", pixels(16, 16 + 4 * number))
    gan("translate", models / "cyclegan", "in", "--out", "whole")
    made = [
        json.loads(gan("translate", models / "cyclegan", "in", "--out", "parts", "--shard", f"{k}/2", "--json")[1])
        for k in (1, 2)
    ]
    assert [len(document["files"]) for document in made] == [3, 2]
    files = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("*.png"))
    assert len(files) == 5
    assert files == sorted(path.relative_to(tmp_path / "parts") for path in (tmp_path / "parts").rglob("*.png"))
    for file in files:
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "parts" / file).read_bytes()


def test_images_are_rotated_converted_and_keep_their_transparency(gan: Call, models: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    colour, grey = pixels(16, 24), pixels(16, 24, 1)
    save(tmp_path / "turned.png", colour, exif=exif)
    save(tmp_path / "grey.png", grey)
    alpha = np.zeros((16, 24), np.uint8)
    alpha[:, 8:16], alpha[:, 16:] = 128, 255
    save(tmp_path / "alpha.png", np.dstack([colour, alpha]))
    save(tmp_path / "fine.png", Image.fromarray(grey.astype(np.uint16) * 257))
    palette = Image.fromarray(pixels(16, 24) // 64 * 64).quantize(8)
    save(tmp_path / "palette.png", palette, transparency=0)
    names = ["turned.png", "grey.png", "alpha.png", "fine.png", "palette.png"]
    assert gan("translate", models / "cyclegan", *names, "--out", "out") == (0, b"5 files in out\n", "")
    model = models / "cyclegan"
    assert_alike(read(tmp_path / "out/turned.png"), translated(model, np.rot90(colour, -1)))
    assert_alike(read(tmp_path / "out/grey.png"), translated(model, np.dstack([grey] * 3)))
    assert_alike(read(tmp_path / "out/fine.png"), translated(model, np.dstack([grey] * 3)))
    shown = read(tmp_path / "out/alpha.png")
    assert np.array_equal(shown[..., 3], alpha)
    with Image.open(tmp_path / "alpha.png") as image:
        white = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    assert_alike(shown[..., :3], translated(model, np.asarray(white)))
    with Image.open(tmp_path / "palette.png") as image:
        assert np.array_equal(read(tmp_path / "out/palette.png")[..., 3], np.asarray(image.convert("RGBA"))[..., 3])
    assert gan("translate", models / "pix2pix", "grey.png", "--out", "colour")[0] == 0
    assert_alike(read(tmp_path / "colour/grey.png"), translated(models / "pix2pix", grey, "translated"))


def test_16_bit_grey_images_may_be_transparent_and_have_either_byte_order(
    gan: Call, models: Path, tmp_path: Path
) -> None:
    grey = pixels(16, 24, 1)
    grey[:, :8] = 77
    fine = Image.fromarray(grey.astype(np.uint16) * 257)
    save(tmp_path / "fine.png", fine, transparency=77 * 257)
    big = (
        b"MM\0*\0\0\0\x08\0\x08"
        + b"".join(
            struct.pack(">HHIHH" if kind == 3 else ">HHII", tag, kind, 1, value, *[0] * (kind == 3))
            for tag, kind, value in (
                (256, 3, 24),
                (257, 3, 16),
                (258, 3, 16),
                (259, 3, 1),
                (262, 3, 1),
                (273, 4, 110),
                (278, 3, 16),
                (279, 4, 768),
            )
        )
        + bytes(4)
    )
    (tmp_path / "big.tiff").write_bytes(big + (grey.astype(">u2") * 257).tobytes())
    assert gan("translate", models / "cyclegan", "fine.png", "big.tiff", "--out", "out")[0] == 0
    made, shown = read(tmp_path / "out/fine.png"), np.where(grey == 77, 255, grey).astype(np.uint8)
    assert np.array_equal(made[..., 3], np.where(grey == 77, 0, 255))
    assert_alike(made[..., :3], translated(models / "cyclegan", np.dstack([shown] * 3)))
    assert_alike(read(tmp_path / "out/big.png"), translated(models / "cyclegan", np.dstack([grey] * 3)))


def test_each_direction_is_a_result(gan: Call, models: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", pixels(16, 16))
    gan("translate", models / "cyclegan", "a.png", "--out", "there")
    gan("translate", models / "cyclegan", "a.png", "--out", "back", "--result", "to_source")
    there, back = read(tmp_path / "there/a.png"), read(tmp_path / "back/a.png")
    assert_alike(back, translated(models / "cyclegan", pixels(16, 16), "to_source"))
    assert not np.array_equal(there, back)


def test_a_model_of_one_direction_offers_only_that_one(gan: Call, models: Path, tmp_path: Path) -> None:
    save_model(gan_image.load(models / "cyclegan"), tmp_path / "back", networks=["b_to_a"])
    save(tmp_path / "a.png", pixels(16, 16))
    assert gan("translate", "back", "a.png", "--out", "out")[0] == 0
    assert_alike(read(tmp_path / "out/a.png"), translated(models / "cyclegan", pixels(16, 16), "to_source"))
    status, _, err = gan("translate", "back", "a.png", "--out", "other", "--result", "to_target")
    assert (status, err) == (2, "gan-image: this model of cyclegan has no weights for to_target; it offers to_source\n")


def test_an_image_is_read_from_and_written_to_pipes(gan: Call, models: Path, tmp_path: Path) -> None:
    sent = save(tmp_path / "a.png", pixels(16, 16)).read_bytes()
    status, out, err = gan("translate", models / "cyclegan", "-", "--out", "-", "--json", stdin=sent)
    assert (status, err) == (0, "")
    with Image.open(io.BytesIO(out)) as image:
        assert image.format == "PNG"
        assert_alike(np.asarray(image), translated(models / "cyclegan", pixels(16, 16)))
    assert gan("translate", models / "cyclegan", "-", "--out", "out", stdin=sent)[0] == 0
    assert (tmp_path / "out/stdin.png").read_bytes() == out
    status, _, err = gan("translate", models / "cyclegan", "-", "--out", "more", stdin=b"text")
    assert (status, err) == (2, "gan-image: standard input: not an image, or damaged at its start\n")


def test_tiles_equal_the_whole_image_or_a_warning_says_why_not(
    gan: Call, models: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    image = pixels(152, 100)
    save(tmp_path / "a.png", image)
    reach = ["batch", "pix2pix"]
    for model, tile in zip(reach, (64, 32), strict=True):
        assert gan("translate", models / model, "a.png", "--out", model, "--tile", tile)[0] == 0
    assert not caplog.messages
    assert_alike(read(tmp_path / "batch/a.png"), translated(models / "batch", image))
    grey = np.asarray(Image.fromarray(image).convert("L"))
    assert_alike(read(tmp_path / "pix2pix/a.png"), translated(models / "pix2pix", grey, "translated"))

    assert gan("translate", models / "cyclegan", "a.png", "--out", "instance", "--tile", 64)[0] == 0
    assert caplog.messages == [
        "1 image larger than a tile of 64 pixels: the tiles are blended, and the result differs from that of the "
        "whole, because its networks have no finite `receptive_radius` (instance and layer normalization depend on the "
        "whole input)"
    ]
    caplog.clear()
    assert gan("translate", models / "batch", "a.png", "--out", "small", "--tile", 32)[0] == 0
    assert caplog.messages == [
        "1 image larger than a tile of 32 pixels: the tiles are blended, and the result differs from that of the "
        "whole, because outputs depend on inputs up to 20 pixels away; set `--tile 56` or more"
    ]
    sentence = (
        "Items larger than a tile are transformed in tiles that are blended. The result (to_target, to_source) then"
    )
    assert sentence in model_card(gan_image.load(models / "cyclegan"))
    for model in reach:
        assert "tile" not in model_card(gan_image.load(models / model))


def test_a_large_image_needs_the_memory_of_one_tile_and_its_pixels(models: Path, tmp_path: Path) -> None:
    peaks, more = {}, {}
    for name, (width, height) in {"tile": (512, 512), "large": (4000, 3000)}.items():
        save(tmp_path / f"{name}.png", Image.linear_gradient("L").resize((width, height)).convert("RGB"))
        words = [str(models / "pix2pix"), str(tmp_path / f"{name}.png"), str(tmp_path / "out")]
        done = subprocess.run([sys.executable, "-c", MEMORY, *words], capture_output=True, text=True, check=True)
        before, peaks[name] = map(int, done.stdout.split())
        more[name] = peaks[name] - before
    assert read(tmp_path / "out/large.png").shape == (3000, 4000, 3)
    picture = 4000 * 3000
    assert peaks["large"] <= 1.3 * (peaks["tile"] + 3 * picture)
    assert more["large"] <= 1.3 * (more["tile"] + 2 * 4 * picture)  # Pillow holds 4 bytes a pixel, before and after


def test_wrong_requests_are_rejected_in_one_line_and_write_nothing(gan: Call, models: Path, tmp_path: Path) -> None:
    save(tmp_path / "a.png", pixels(128, 128))
    save(tmp_path / "in/a.jpg", pixels(16, 16))
    save(tmp_path / "there/a.png", pixels(16, 16))
    side = int(MAX_PIXELS**0.5) + 1
    save(tmp_path / "bomb.png", Image.new("1", (side, side)))
    (tmp_path / "empty").mkdir()

    def refused(*words: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        status, out, err = gan("translate", *words)
        assert (status, out) == (2, b""), err
        assert err.count("\n") == 1, err
        assert sorted(tmp_path.rglob("*")) == before
        return err.removeprefix("gan-image: ").removesuffix("\n")

    model = models / "cyclegan"
    assert refused(models / "dcgan", "a.png", "--out", "out") == (
        "dcgan does not translate images (it declares no `results`); use the model of a translator"
    )
    assert refused(model, "a.png", "--out", "out", "--result", "to_sauce") == (
        "unknown result `to_sauce`; did you mean `to_source`?"
    )
    assert refused(model, "a.png", "--out", "out", "--result", "blue").endswith("; known: to_source, to_target")
    assert refused(model, "a.png").startswith("`--out` is missing: name a folder")
    assert refused(model, "b.png", "--out", "out") == "b.png: no such file or folder"
    assert refused(model, "empty", "--out", "out").startswith("empty: no readable images among 0 files (looked for .p")
    assert refused(model, "a.png", "in", "--out", "out").startswith(
        "a.png and in/a.jpg would both be written to out/a.png; "
    )
    assert refused(model, "a.png", "--out", "there").startswith("there already contains a.png; ")
    assert refused(model, "a.png", "in", "--out", "-").startswith("`--out -` takes one input")
    assert refused(model, "a.png", "--out", "out", "--shard", "0/2").startswith("`--shard` is 0/2; expected K/N ")
    assert refused(model, "bomb.png", "--out", "out").startswith(
        "bomb.png: too many pixels; the maximum is 89 million "
    )
    assert refused(model, "a.png", "--out", "out", "--tile", 16) == (
        "a tile of 16 is too small for a margin of 1, an overlap of 2 and multiples of 4; make it 24 or more"
    )


def test_translate_accepts_a_game_of_ones_own_in_python(tmp_path: Path) -> None:
    from gan_core.data import Batch, ImageSpec
    from gan_core.play.game import Game
    from gan_core.play.player import Player

    class Doubled(Game):
        results = {"large": "sketch"}  # noqa: RUF012

        def __init__(self) -> None:
            super().__init__()
            self.generator = nn.Upsample(scale_factor=2)
            self.register_parameter("unused", nn.Parameter(torch.zeros(1)))

        def data_spec(self) -> ImageSpec:
            return ImageSpec(channels={"sketch": 1})

        def players(self) -> list[Player]:
            return []

        def apply(self, batch: Batch) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {"large": self.generator(batch["sketch"])}

    array = pixels(40, 70, 1)
    array[:, :35] //= 2
    save(tmp_path / "a.png", np.dstack([array, array.T.reshape(40, 70)]))  # grey with transparency
    outcome = translate(Doubled(), [str(tmp_path / "a.png")], str(tmp_path / "out"), tile=32)
    assert outcome.files == [tmp_path / "out/a.png"]
    with Image.open(tmp_path / "out/a.png") as image:
        assert (image.mode, image.size) == ("LA", (140, 80))
    white = 255 - (255 - array.astype(float)) * array.T.reshape(40, 70) / 255
    assert np.abs(read(tmp_path / "out/a.png")[::2, ::2, 0] - white).max() <= 2  # pixels of any key are scaled
