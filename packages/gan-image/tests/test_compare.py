"""The command `gan-image compare`."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gan_core.cli import main
from gan_image import DOMAIN


@pytest.fixture
def compare(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gan-image", "compare", *words])
        with pytest.raises(SystemExit) as end:
            main(DOMAIN)
        return end.value.code, *capsys.readouterr()

    return call


def flat(path: str, level: int, size: int = 16, mode: str = "L") -> None:
    Path(path).parent.mkdir(exist_ok=True)
    Image.fromarray(np.full((size, size), level, np.uint8)).convert(mode).save(path)


def test_two_files(compare):
    flat("a.png", 0)
    flat("b.png", 51)  # 1/5 of the range: 10 log₁₀ 25 dB
    code, out, _ = compare("a.png", "b.png", "--metrics", "psnr", "--json")
    found = json.loads(out)
    assert code == 0
    assert found["pairs"]["psnr"] == {"a.png": pytest.approx(13.9794, abs=1e-4)}
    assert "mean squared error" in found["protocol"]["psnr"]


def test_two_folders_are_paired_by_name_without_suffix(compare):
    flat("a/x.png", 0)
    flat("a/y.png", 0)
    flat("b/x.bmp", 51, mode="RGB")
    flat("b/y.png", 51)
    code, out, _ = compare("a", "b", "--json")
    found = json.loads(out)
    assert code == 0
    assert set(found["pairs"]["ssim"]) == {"x", "y"}
    assert found["mean"]["psnr"] == pytest.approx(13.9794, abs=1e-4)
    assert found["mean"]["ssim"] == pytest.approx(0.0001 / (0.04 + 0.0001), abs=1e-6)
    assert "mean of 2" in compare("a", "b")[1]


def test_an_infinite_value_is_null_in_json(compare):
    flat("a.png", 7)
    _, out, _ = compare("a.png", "a.png", "--json")
    assert json.loads(out)["mean"] == {"psnr": None, "ssim": pytest.approx(1.0)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "b"], "b: has no counterpart for 1 image of a (y.png …); give the images of a pair the same name"),
        (["a/x.png", "none.png"], "none.png: no such file or folder"),
        (["a", "a/x.png"], "give two image files, or two folders"),
        (
            ["a/x.png", "large.png"],
            "the images are 16x16 and 32x32 pixels; the images of a pair must have the same size",
        ),
        (["a/x.png", "b/x.png", "--metrics", "sim"], "unknown metric `sim`; did you mean `ssim`?"),
        (["a/x.png", "b/x.png", "--metrics", "ms_ssim"], "`ms_ssim` needs images of at least 176x176 pixels"),
        (["a/x.png", "b/x.png", "--weights", "a/x.png"], "`--weights` has no effect without the metric `lpips`"),
        (["a/x.png", "b/x.png", "--metrics", "lpips"], "lpips needs its linear heads"),
        (["a/x.png", "torn.png"], "torn.png: not an image"),
    ],
)
def test_images_that_cannot_be_compared_give_one_line(compare, words, message):
    flat("a/x.png", 0)
    flat("a/y.png", 0)
    flat("b/x.png", 9)
    flat("large.png", 0, size=32)
    Path("torn.png").write_bytes(b"nothing")
    code, out, err = compare(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
