import io
import struct
import zipfile
import zlib
from contextlib import suppress

import numpy as np
import pytest

from gan_core.data import ImageSpec
from gan_core.data.files import FolderFiles, names_ending, open_files
from gan_core.errors import Unreadable

pytest.importorskip("PIL", reason="images need Pillow: pip install gan-core[pictures]")

from PIL import Image

from gan_core.data import pictures
from gan_core.data.pictures import SUFFIXES, essential_chunks, read_image


def encoded(image, format="PNG", **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


PICTURE = Image.fromarray(np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3))
PNG = encoded(PICTURE)


def read(tmp_path, content, *, suffix=".png", **wanted):
    (tmp_path / f"a{suffix}").write_bytes(content)
    return read_image(FolderFiles(tmp_path), f"a{suffix}", spec=ImageSpec(**wanted))


def claim(png, width, height):
    """Returns a PNG file with another width and height in its header, and the matching checksum."""
    header = struct.pack(">4sII", b"IHDR", width, height) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


def zipped(path, members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


# --- what is decoded


@pytest.mark.parametrize(
    ("format", "suffix", "options"),
    [
        ("PNG", ".png", {}),
        ("BMP", ".bmp", {}),
        ("PPM", ".ppm", {}),
        ("TIFF", ".tif", {}),
        ("WEBP", ".webp", {"lossless": True}),
    ],
)
def test_a_lossless_format_gives_its_pixels(tmp_path, format, suffix, options):
    image = read(tmp_path, encoded(PICTURE, format, **options), suffix=suffix)
    assert image.mode == "RGB"
    assert image.tobytes() == PICTURE.tobytes()


def test_a_jpeg_gives_approximately_its_pixels(tmp_path):
    flat = Image.new("RGB", (64, 48), (200, 100, 50))
    image = read(tmp_path, encoded(flat, "JPEG", quality=95), suffix=".jpeg")
    assert np.abs(np.asarray(image, dtype=int) - (200, 100, 50)).max() <= 2


def test_a_palette_gives_its_colours(tmp_path):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 250, 128, 3])
    assert read(tmp_path, encoded(palette)).getpixel((0, 0)) == (250, 128, 3)


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    red, blue = Image.new("RGB", (4, 4), "red"), Image.new("RGB", (4, 4), "blue")
    content = encoded(red, "GIF", save_all=True, append_images=[blue])
    assert read(tmp_path, content, suffix=".gif").getpixel((0, 0)) == (255, 0, 0)


def test_transparent_pixels_become_white(tmp_path):
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    half.putpixel((0, 0), (255, 0, 0, 255))
    image = read(tmp_path, encoded(half))
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_a_transparent_palette_entry_becomes_white(tmp_path):
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 250, 128, 3])
    assert read(tmp_path, encoded(palette, transparency=1)).getpixel((0, 0)) == (255, 255, 255)


def test_16_bit_grey_is_scaled_to_8_bits(tmp_path):
    deep = Image.fromarray(np.array([[0, 257, 32896, 65535]] * 4, dtype=np.uint16))
    image = read(tmp_path, encoded(deep))
    assert image.mode == "L"
    assert [image.getpixel((x, 0)) for x in range(4)] == [0, 1, 128, 255]


def test_16_bit_grey_in_pgm_is_scaled_to_8_bits(tmp_path):
    content = b"P5 4 4 65535\n" + struct.pack(">4H", 0, 257, 32896, 65535) * 4
    image = read(tmp_path, content, suffix=".pgm")
    assert [image.getpixel((x, 0)) for x in range(4)] == [0, 1, 128, 255]


def test_cmyk_is_converted_to_rgb(tmp_path):
    cyan = Image.new("CMYK", (8, 8), (255, 0, 0, 0))
    assert read(tmp_path, encoded(cyan, "TIFF"), suffix=".tiff").getpixel((0, 0)) == (0, 255, 255)


def test_images_are_rotated_according_to_exif(tmp_path):
    image = Image.new("RGB", (8, 4), "black")
    image.putpixel((0, 0), (255, 255, 255))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    upright = read(tmp_path, encoded(image, exif=exif))
    assert upright.size == (4, 8)
    assert upright.getpixel((3, 0)) == (255, 255, 255)


def test_grey_and_colour_are_converted_on_request(tmp_path):
    assert read(tmp_path, PNG, channels=1).mode == "L"
    assert read(tmp_path, encoded(PICTURE.convert("L")), channels=3).mode == "RGB"


@pytest.mark.parametrize("size", [(12, 4), (4, 12)])
def test_squares_are_cropped_at_the_centre(tmp_path, size):
    image = Image.new("L", size, 0)
    image.paste(255, (4, 0, 8, 4) if size[0] > size[1] else (0, 4, 4, 8))
    square = read(tmp_path, encoded(image), image_size=4)
    assert set(square.tobytes()) == {255}


@pytest.mark.parametrize("size", [4, 16, 31, 64])
def test_resizing_keeps_a_constant_colour(tmp_path, size):
    square = read(tmp_path, encoded(Image.new("RGB", (40, 32), (9, 80, 200))), image_size=size)
    assert square.size == (size, size)
    assert set(square.get_flattened_data()) == {(9, 80, 200)}


def test_downscaling_a_checkerboard_gives_grey(tmp_path):
    board = Image.fromarray((np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8))
    levels = np.asarray(read(tmp_path, encoded(board), image_size=16))[2:-2, 2:-2]
    assert np.abs(levels.astype(int) - 127).max() <= 2


def test_upscaling_does_not_ring(tmp_path):
    edge = Image.fromarray(np.repeat([[60] * 4 + [190] * 4], 8, axis=0).astype(np.uint8))
    levels = np.asarray(read(tmp_path, encoded(edge), image_size=32))
    assert (levels.min(), levels.max()) == (60, 190)


def test_a_large_jpeg_is_downscaled_like_a_png(tmp_path):
    wave = np.indices((256, 256)).sum(axis=0) // 2
    image = Image.fromarray(wave.astype(np.uint8))
    from_jpeg = read(tmp_path, encoded(image, "JPEG", quality=98), suffix=".jpg", image_size=32)
    from_png = read(tmp_path, encoded(image), image_size=32)
    assert np.abs(np.asarray(from_jpeg, dtype=int) - np.asarray(from_png)).max() <= 3


# --- what is refused, and how


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"this is a text\n", "not an image, or damaged at its start"),
        (b"", "not an image, or damaged at its start"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "not an image, or damaged at its start"),
        (encoded(Image.new("L", (1, 1))), "1x1 pixels, smaller than the minimum of 4 per side"),
        (encoded(Image.new("1", (20_001, 4))), "20001x4 pixels; the maximum is 89 million pixels and 20,000 per side"),
        (claim(PNG, 50_000, 50_000), "too many pixels; the maximum is 89 million pixels and 20,000 per side"),
        (claim(PNG, 9_500, 9_500), "too many pixels; the maximum is 89 million pixels and 20,000 per side"),
    ],
)
def test_unsuitable_files_are_rejected_before_decoding(tmp_path, content, reason):
    with pytest.raises(Unreadable) as error:
        read(tmp_path, content)
    assert str(error.value) == reason


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


BOMB = zlib.compress(bytes(3 * 2**20))


@pytest.mark.parametrize("after", [False, True], ids=["before the pixels", "after the pixels"])
@pytest.mark.parametrize(
    "metadata",
    [
        chunk(b"zTXt", b"workflow\0\0" + BOMB),
        chunk(b"iTXt", b"workflow\0\1\0\0\0" + BOMB),
        chunk(b"iCCP", b"profile\0\0" + BOMB),
        chunk(b"iCCP", b"profile\0\7" + BOMB),  # an unknown compression
        chunk(b"zTXt", b"workflow\0\7" + BOMB),
        chunk(b"tEXt", b"note\0words")[:-4] + b"oops",  # a wrong checksum
    ],
    ids=["text", "international text", "profile", "odd profile", "odd text", "checksum"],
)
def test_metadata_never_cost_an_image(tmp_path, metadata, after):
    place = PNG.index(b"IEND" if after else b"IDAT") - 4
    assert read(tmp_path, PNG[:place] + metadata + PNG[place:]).tobytes() == PICTURE.tobytes()


def test_a_damaged_png_file_is_searched_for_pixels_only_to_the_damage(tmp_path):
    assert essential_chunks(PNG) == PNG
    assert essential_chunks(PNG[:33] + bytes(10_000_000) + PNG[33:]) == PNG[:33]
    with pytest.raises(Unreadable):
        read(tmp_path, PNG[:8] + bytes(10_000_000))


def test_pixels_are_needed_and_their_checksum_is_verified(tmp_path):
    place = PNG.index(b"IDAT")
    damaged = PNG[: place + 10] + bytes([PNG[place + 10] ^ 255]) + PNG[place + 11 :]
    with pytest.raises(Unreadable):
        read(tmp_path, damaged)


def test_a_long_header_of_a_ppm_file_is_rejected(tmp_path):
    pixels = bytes(range(192))
    assert read(tmp_path, b"P6\n# GIMP\n8 8\n255\n" + pixels, suffix=".ppm").tobytes() == pixels
    assert read(tmp_path, b"P6\n# a\n# b\n8 # width\n 8\n255\n" + pixels, suffix=".ppm").tobytes() == pixels
    for start in (b"P6\n#" + bytes(5000) + b"\n", b"P6" + b" " * 5000):
        with pytest.raises(Unreadable, match=r"^its header is longer than 4,096 bytes$"):
            read(tmp_path, start + b"8 8\n255\n" + pixels, suffix=".ppm")


def test_a_large_image_in_a_tiny_file_is_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "UNSUSPICIOUS", 2**16)
    content = encoded(Image.new("RGBA", (600, 600)), "WEBP", lossless=True)
    assert len(content) < 600 * 600 / 500
    words = rf"^600x600 pixels in a file of {len(content)} bytes: a decompression bomb$"
    with pytest.raises(Unreadable, match=words):
        read(tmp_path, content, suffix=".webp")
    monkeypatch.setattr(pictures, "UNSUSPICIOUS", 2**20)
    assert read(tmp_path, content, suffix=".webp").size == (600, 600)


def test_scans_of_a_progressive_jpeg_are_limited(tmp_path):
    content = encoded(PICTURE, "JPEG", progressive=True)
    assert read(tmp_path, content, suffix=".jpg").size == (8, 8)
    start = content.rindex(b"\xff\xda")
    with pytest.raises(Unreadable, match=r"^has 1[0-9]{2} scans; the maximum is 100$"):
        read(tmp_path, content[:start] + 100 * content[start:-2] + content[-2:], suffix=".jpg")


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["RGBA", "LA", "I;16"])
def test_an_image_is_converted_in_bands_as_in_one_piece(tmp_path, monkeypatch, kind, channels):
    noise = np.random.default_rng(0).integers(0, 256, (31, 7, 4), dtype=np.uint8)
    if kind == "I;16":
        picture = Image.fromarray(noise.view(np.uint16)[:, :, 0].copy())
    else:
        picture = Image.fromarray(noise).convert(kind)
    content = encoded(picture)
    whole = read(tmp_path, content, channels=channels)
    monkeypatch.setattr(pictures, "BAND", 20)
    assert read(tmp_path, content, channels=channels).tobytes() == whole.tobytes()


def test_every_level_of_16_bits_is_rounded_to_the_nearest_of_8(tmp_path):
    levels = np.arange(2**16, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(levels / 257).astype(np.uint8)
    assert np.array_equal(np.asarray(read(tmp_path, encoded(Image.fromarray(levels)))), expected)


@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_file_is_rejected(tmp_path, format, kept):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8))
    content = encoded(noise, format)
    with pytest.raises(Unreadable):
        read(tmp_path, content[: int(kept * len(content))])


def test_the_reason_for_a_damaged_file_comes_from_pillow(tmp_path):
    noise = encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)))
    with pytest.raises(Unreadable, match=r"^image file is truncated"):
        read(tmp_path, noise[:2000])


@pytest.mark.parametrize("seed", range(50))
def test_corrupted_bytes_give_an_image_or_a_reason(tmp_path, seed):
    rng = np.random.default_rng(seed)
    format, suffix = [("PNG", ".png"), ("JPEG", ".jpg"), ("WEBP", ".webp"), ("GIF", ".gif"), ("TIFF", ".tif")][seed % 5]
    content = np.frombuffer(encoded(PICTURE, format), dtype=np.uint8).copy()
    content[rng.integers(0, len(content), 4)] = rng.integers(0, 256, 4)
    with suppress(Unreadable):  # and no other error
        assert read(tmp_path, content.tobytes(), suffix=suffix, image_size=8).size == (8, 8)


def test_pixels_without_a_defined_range_are_rejected(tmp_path):
    with pytest.raises(
        Unreadable, match=r"^floating-point pixels have no defined range; save the image with 8 or 16 bits$"
    ):
        read(tmp_path, encoded(Image.new("F", (4, 4), 0.5), "TIFF"), suffix=".tif")
    with pytest.raises(Unreadable, match=r"^32-bit pixels have no defined range; save the image with 8 or 16 bits$"):
        read(tmp_path, encoded(Image.new("I", (4, 4), 70_000), "TIFF"), suffix=".tif")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "MAX_BYTES", 2**20)
    with pytest.raises(Unreadable, match=r"^3 MiB, more than the maximum of 1$"):
        read(tmp_path, PNG + bytes(3 * 2**20))


def test_a_broken_link_is_reported(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    assert names_ending(FolderFiles(tmp_path), SUFFIXES) == (["a.png"], 1)
    with pytest.raises(Unreadable, match="No such file"):
        read_image(FolderFiles(tmp_path), "a.png")


# --- archives


def test_images_in_an_archive_are_found_and_read(tmp_path):
    members = {"b/two.png": PNG, "a/one.PNG": PNG, "a/.hidden.png": b"", "read me.txt": b"words"}
    held = open_files(zipped(tmp_path / "a.zip", members))
    assert names_ending(held, SUFFIXES) == (["a/one.PNG", "b/two.png"], 3)
    assert read_image(held, "a/one.PNG").tobytes() == PICTURE.tobytes()


def test_a_name_that_leads_out_of_the_archive_is_rejected(tmp_path):
    held = open_files(zipped(tmp_path / "a.zip", {"../../out.png": PNG}))
    with pytest.raises(Unreadable, match=r"^its name points outside of the archive$"):
        read_image(held, "../../out.png")


def test_an_encrypted_zip_member_is_reported(tmp_path):
    content = bytearray(zipped(tmp_path / "a.zip", {"one.png": PNG}).read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(Unreadable, match="encrypted"):
        read_image(open_files(tmp_path / "a.zip"), "one.png")
