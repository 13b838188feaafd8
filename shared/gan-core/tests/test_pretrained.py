"""Published weights: downloads are checked against their SHA-256 and kept."""

import hashlib

import pytest

from gan_core.errors import CheckpointError
from gan_core.models.pretrained import downloaded


def test_downloads_are_checked_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("GAN_DATA_HOME", str(tmp_path / "home"))
    (tmp_path / "there.pth").write_bytes(b"weights")
    url, digest = (tmp_path / "there.pth").as_uri(), hashlib.sha256(b"weights").hexdigest()[:8]
    file = downloaded(url, digest)
    assert file == tmp_path / "home" / "weights" / f"there-{digest}.pth"
    (tmp_path / "there.pth").unlink()
    assert downloaded(url, digest).read_bytes() == b"weights"  # not downloaded again
    with pytest.raises(CheckpointError, match=r"put there-00000000.pth into .* by hand, or give the path of a file"):
        downloaded(url, "00000000")
