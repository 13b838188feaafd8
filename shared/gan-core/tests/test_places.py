"""Paths as they are typed, and as they are shown to others."""

from pathlib import Path

import pytest

from gan_core.places import all_without_folders, expanded, name_of, without_folders


def test_home_folders_are_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/srv/alice")
    for path, found in (
        ("~", "/srv/alice"),
        ("~/a", "/srv/alice/a"),
        ("a/~", "a/~"),
        ("~nobody-here/a", "~nobody-here/a"),
    ):
        assert expanded(path) == expanded(Path(path)) == Path(found)


@pytest.mark.parametrize(
    ("place", "shown"),
    [
        ("digits", "digits"),
        ("photos/fruits:train", "photos/fruits:train"),
        ("/srv/alice/fruits", "fruits"),
        ("/srv/alice/fruits/", "fruits"),
        ("/srv/alice/fruits:photos/train", "fruits:photos/train"),
        ("~/fruits.zip", "fruits.zip"),
        ("~alice/fruits.zip", "fruits.zip"),
        ("dcgan/generator:/srv/alice/g.pth", "dcgan/generator:g.pth"),
        ("https://example.org/a/b.zip", "https://example.org/a/b.zip"),
        ("s3://bucket/a", "s3://bucket/a"),
        ("file:" + 3 * "/" + "srv/alice/b.zip", "file:b.zip"),
        ("C:\\data\\alice\\fruits", "C:fruits"),
        ("", ""),
    ],
)
def test_absolute_paths_lose_their_folders(place, shown):
    assert without_folders(place) == shown
    assert all_without_folders({"a": [place, 1], "b": {"c": place}}) == {"a": [shown, 1], "b": {"c": shown}}


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("digits", "digits"),
        ("mnist:test", "mnist:test"),
        ("fruits", "fruits"),
        ("photos/fruits:train", "fruits:train"),
        ("/srv/alice/photos/fruits:train/a", "fruits:train/a"),
        ("../a + /srv/b", "a + b"),
        ("hf:owner/name:train", "hf:owner/name:train"),
        ("s3://bucket/a", "s3://bucket/a"),
    ],
)
def test_data_have_the_same_name_wherever_their_path_begins(place, name):
    assert name_of(place) == name
