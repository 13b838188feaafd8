import io
import pickle
import re
import subprocess
import sys
import tarfile
import zipfile
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import fsspec
import pytest

from gan_core.data import files, limits, remote
from gan_core.data.files import is_url, names_ending, open_files, read_member
from gan_core.data.folders import labels_of, parts_of, sub_folder
from gan_core.errors import DataError, MissingDependency, Unreadable

MEMBERS = {"b/two.png": b"2", "a/one.png": b"1" * 500_000, "a/.hidden.png": b"", "read me.txt": b"words"}


def zipped(members, packing=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(members, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def memory():
    """Stores files under `memory://` and removes them after the test."""
    system = fsspec.filesystem("memory")
    yield lambda members: [system.pipe_file(f"/{name}", content) for name, content in members.items()]
    system.store.clear()
    system.pseudo_dirs[:] = [""]


def every_form(memory, members):
    memory({f"folder/{name}": content for name, content in members.items()})
    memory(
        {
            "set.zip": zipped(members),
            "set.tar": tarred(members),
            "set.tar.gz": tarred(members, "w:gz"),
            "set.tar.xz": tarred(members, "w:xz"),
        }
    )
    return [f"memory://{name}" for name in ("folder", "folder/", "set.zip", "set.tar", "set.tar.gz", "set.tar.xz")]


def test_all_containers_list_the_same_files_in_order(memory):
    for url in every_form(memory, MEMBERS):
        held = open_files(url)
        assert names_ending(held, (".png",)) == (["a/one.png", "b/two.png"], 3), url
        assert held.sizes["a/one.png"] == 500_000
        for name, content in MEMBERS.items():
            assert read_member(held, name, most_bytes=10**6) == content, (url, name)


def test_a_large_file_is_read_from_any_position(memory):
    content = bytes(range(256)) * 5000  # several blocks
    memory({"folder/large.bin": content})
    with open_files("memory://folder").open("large.bin") as file:
        for start in (1_000_000, 3, len(content) - 5):
            file.seek(start)
            assert file.read(300_000) == content[start : start + 300_000]
        assert file.seek(-7, io.SEEK_END) == len(content) - 7
        assert file.read() == content[-7:]


def test_a_folder_is_listed_without_folders_of_the_same_prefix(memory):
    memory({"set/one.png": b"1", "set2/two.png": b"2", "set.png": b"3"})
    assert list(open_files("memory://set").sizes) == ["one.png"]


def test_a_name_that_leads_out_of_the_archive_is_rejected(memory):
    memory({"set.zip": zipped({"../out.png": b"out", "in.png": b"in"}), "folder/in.png": b"in", "out.png": b"out"})
    held = open_files("memory://set.zip")
    assert read_member(held, "in.png", most_bytes=10) == b"in"
    for there in (held, open_files("memory://folder")):
        with pytest.raises(Unreadable, match=r"^its name points outside of the archive$"):
            read_member(there, "../out.png", most_bytes=10)


def test_a_file_that_is_too_large_is_not_read(memory):
    members = {"big.png": bytes(3 * 2**20)}
    for url in every_form(memory, members):
        with pytest.raises(Unreadable, match=r"^3 MiB, more than the maximum of 1$"):
            read_member(open_files(url), "big.png", most_bytes=2**20)


def test_the_limits_of_local_archives_apply(memory, monkeypatch):
    memory({"bomb.tar.gz": tarred({"zeros.bin": bytes(2**21)}, "w:gz"), "many/a": b"", "many/b": b"", "many/c": b""})
    monkeypatch.setattr(files, "MAX_UNPACKED", 2**20)
    with pytest.raises(
        DataError, match=r"^memory://bomb.tar.gz: cannot be read .+ more than 1 MiB; use zip, or tar without"
    ):
        open_files("memory://bomb.tar.gz")
    monkeypatch.setattr(limits, "MAX_FILES", 2)
    with pytest.raises(
        DataError, match=r"^memory://many: cannot be read .+\(it contains more than 2 files; split it\)$"
    ):
        open_files("memory://many")


def test_the_size_of_a_request_is_limited(memory, monkeypatch):
    memory({"a.bin": bytes(1000)})
    monkeypatch.setattr(remote, "MAX_UNPACKED", 500)
    with pytest.raises(OSError, match=r"^a read of 600 bytes is more than the maximum of 500$"):
        remote.RemoteFile("memory://a.bin").read(0, 600)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_a_damaged_archive_is_reported(memory, name):
    memory({name: (zipped(MEMBERS) if name == "a.zip" else tarred(MEMBERS, f"w:{name[6:]}"))[:120]})
    with pytest.raises(DataError, match=rf"^memory://{name}: cannot be read as a folder, zip or tar archive \(.+\)$"):
        open_files(f"memory://{name}")


def test_a_damaged_member_is_unreadable_and_the_others_are_read(memory):
    content = bytearray(zipped(MEMBERS))
    content[content.index(b"2", content.index(b"b/two.png"))] ^= 1
    memory({"a.zip": bytes(content)})
    held = open_files("memory://a.zip")
    with pytest.raises(Unreadable, match="Bad CRC-32"):
        read_member(held, "b/two.png", most_bytes=100)
    assert read_member(held, "read me.txt", most_bytes=100) == b"words"


def test_a_file_that_changed_or_vanished_after_the_listing_is_unreadable(memory):
    memory({"folder/a.png": b"12345", "folder/b.png": b"1"})
    held = open_files("memory://folder")
    fsspec.filesystem("memory").pipe_file("/folder/a.png", b"1")
    fsspec.filesystem("memory").rm("/folder/b.png")
    with pytest.raises(Unreadable, match=r"^received 1 of 5 bytes$"):
        read_member(held, "a.png", most_bytes=10)
    with pytest.raises(Unreadable, match=r"b\.png$"):
        read_member(held, "b.png", most_bytes=10)


def test_a_missing_place_is_reported():
    with pytest.raises(DataError, match=r"^memory://gone/set.zip: there is no such folder or archive$"):
        open_files("memory://gone/set.zip")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file://etc", "`file://` is not supported; give the path of the local folder or archive"),
        ("zip::memory://a.zip", "chained URLs are not supported; give the URL of the folder or archive itself"),
        ("simplecache::https://127.0.0.1/a.zip", "chained URLs are not supported"),
        ("memory://a::file://etc", "chained URLs are not supported"),
        ("reference://a.json", "unknown protocol `reference`; known: abfs, az,"),
        ("htps://host/a.zip", "unknown protocol `htps`; did you mean `https`?"),
    ],
)
def test_unsupported_protocols_are_rejected(url, words):
    with pytest.raises(DataError, match=f"^{re.escape(f'{url}: {words}')}"):
        open_files(url)


def test_a_password_in_a_url_is_rejected_and_not_printed():
    with pytest.raises(
        DataError, match=r"^https://…: a password in a URL would be written to recipes and logs;"
    ) as error:
        open_files("https://me:secret@127.0.0.1/a.zip")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "library", "package"),
    [
        ("s3://bucket/set.zip", "s3fs", "s3fs"),
        ("gs://bucket/set", "gcsfs", "gcsfs"),
        ("memory://set.zip", "fsspec.core", "gan-core[remote]"),
        ("https://127.0.0.1/set.zip", "aiohttp", "gan-core[remote]"),
    ],
)
def test_a_missing_library_is_named(url, library, package):
    without = (
        f"import sys; sys.modules[{library!r}] = None; from gan_core.data.files import open_files; open_files({url!r})"
    )
    there = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True)
    words = f"{url} needs `{library.partition('.')[0]}`: pip install {package}"
    assert there.stderr.splitlines()[-1] == f"{MissingDependency.__module__}.{MissingDependency.__name__}: {words}"


def test_a_local_folder_is_opened_without_fsspec(tmp_path):
    code = f"import sys; from gan_core.data.files import open_files; open_files({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", f"{code}; assert 'fsspec' not in sys.modules"], check=True)


def test_urls_are_distinguished_from_paths(tmp_path):
    assert is_url("s3://bucket/set.zip")
    assert not any(is_url(each) for each in ("s3:/bucket", "C:\\data", "fruits:test", tmp_path))


def test_labels_and_parts_are_found_as_in_a_local_archive(memory, caplog):
    names = ["train/10/a.png", "train/2/b.png", "test/10/c.png", "test/2/d.png"]
    memory({f"folder/{name}": name.encode() for name in names})
    memory({"set.zip": zipped({name: name.encode() for name in names})})
    for url in ("memory://folder", "memory://set.zip"):
        held = open_files(url)
        assert parts_of(held) == {"test": "test", "train": "train"}
        part = sub_folder(held, "train", url)
        assert read_member(part, "2/b.png", most_bytes=100) == b"train/2/b.png"
        found = labels_of(url, list(part.sizes), list(part.sizes), thing="image")
        assert found == ([1, 0], ["2", "10"])


# --- over a real connection


class Server(BaseHTTPRequestHandler):
    """Serves the bytes in `content`, by ranges unless `ranges` is off; drops every connection while `broken`."""

    content: dict[str, bytes]
    ranges, broken = True, False

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        whole = self.content.get(self.path)
        if whole is None:
            self.send_error(404)
            return
        asked = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.ranges else None
        start, end = (int(asked[1]), min(int(asked[2]), len(whole) - 1)) if asked else (0, len(whole) - 1)
        self.send_response(206 if asked else 200)
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(whole)}")
        self.send_header("Content-Length", str(end + 1 - start))
        self.end_headers()
        if body:
            self.wfile.write(whole[start : start + 1 if self.broken else end + 1])

    def log_message(self, *arguments):
        pass


@contextmanager
def served(content, *, ranges=True):
    handler = type("Handler", (Server,), {"content": content, "ranges": ranges})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler
        finally:
            server.shutdown()


READ = (
    "import pickle, sys; held = pickle.load(sys.stdin.buffer); sys.stdout.buffer.write(held.open(sys.argv[1]).read())"
)


def test_an_archive_on_a_web_server_is_read_in_place_here_and_in_another_process():
    pytest.importorskip("aiohttp", reason="fsspec reads http through aiohttp: pip install gan-core[remote]")
    content = {"/set.zip": zipped(MEMBERS), "/set.tar": tarred(MEMBERS), "/set.tar.gz": tarred(MEMBERS, "w:gz")}
    with served(content) as (host, _):
        for path in content:
            held = open_files(host + path)
            assert read_member(held, "a/one.png", most_bytes=10**6) == MEMBERS["a/one.png"]
            there = subprocess.run(
                [sys.executable, "-c", READ, "b/two.png"], input=pickle.dumps(held), capture_output=True, check=True
            )
            assert there.stdout == b"2"


def test_a_broken_connection_makes_one_file_unreadable():
    pytest.importorskip("aiohttp", reason="fsspec reads http through aiohttp: pip install gan-core[remote]")
    members = {name: bytes([k]) * 600_000 for k, name in enumerate(["a.png", "b.png", "c.png"])}
    with served({"/set.zip": zipped(members)}) as (host, handler):
        held = open_files(f"{host}/set.zip")
        assert read_member(held, "a.png", most_bytes=10**6) == members["a.png"]
        handler.broken = True
        with pytest.raises(Unreadable):
            read_member(held, "b.png", most_bytes=10**6)
        handler.broken = False
        assert read_member(held, "b.png", most_bytes=10**6) == members["b.png"]


def test_a_web_server_that_cannot_list_or_seek_gives_one_line():
    pytest.importorskip("aiohttp", reason="fsspec reads http through aiohttp: pip install gan-core[remote]")
    page = {
        "/set.zip": zipped({f"{k}.png": bytes(9_000_000) for k in "ab"}),
        "/folder/": b"<a href='http://elsewhere/x.png'>",
    }
    with served(page, ranges=False) as (host, _):
        for path, words in {
            "/set.zip": "range",
            "/folder/": ".",
            "/gone.zip": "no such folder or archive .*404",
        }.items():
            with pytest.raises(DataError, match=f"^{re.escape(host + path)}: .*{words}"):
                open_files(host + path)
    with pytest.raises(DataError, match=r"^http://127.0.0.1:\d+/a.zip: there is no such folder or archive \(.*onnect"):
        open_files(f"{host}/a.zip")
