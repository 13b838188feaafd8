"""Checkpoints: what is written is read back, damage is noticed, and a published file runs no code."""

from __future__ import annotations

import hashlib
import json
import pickle
import random
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan_core.errors import CheckpointError, GanError
from gan_core.models.checkpoint import (
    load_state,
    read_checkpoint,
    read_published,
    read_tensors,
    split_state,
    write_checkpoint,
    write_tensors,
)
from gan_core.play.replay import ReplayPool
from gan_core.recipe import Recipe
from gan_core.runs.run import Run


def odd_tensors() -> dict[str, Tensor]:
    shared = torch.arange(12.0)
    return {
        "tied": shared,
        "tied.again": shared,
        "overlapping": shared[3:],
        "apart": shared[:2],
        "turned": torch.randn(3, 4).t(),
        "strided": torch.randn(6)[::2],
        "expanded": torch.ones(1).expand(5),
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "bf16": torch.tensor([1 / 3, -0.0, float("inf")], dtype=torch.bfloat16),
        "half": torch.tensor(2.5).half(),
        "double": torch.tensor(1 / 3, dtype=torch.float64),
        "count": torch.tensor(2**62),
        "flag": torch.tensor([True]),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "empty": torch.empty(0),
        "none": torch.empty(3, 0, 2),
        "gradient": torch.ones(2, requires_grad=True),
        "a name / with ünïcode": torch.tensor([1e-45]),
    }


def same_bits(one: Tensor, other: Tensor) -> bool:
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and (
            one.detach().contiguous().flatten().view(torch.uint8).tolist()
            == other.detach().contiguous().flatten().view(torch.uint8).tolist()
        )
    )


# There and back.


def test_tensors_of_all_kinds_are_read_back_bit_for_bit(tmp_path: Path) -> None:
    tensors = odd_tensors()
    write_tensors(tmp_path / "odd.safetensors", tensors)
    back = read_tensors(tmp_path / "odd.safetensors")
    assert back.keys() == tensors.keys()
    assert all(same_bits(back[name], tensor) for name, tensor in tensors.items())
    assert all(tensor.is_contiguous() for tensor in back.values())


def test_a_checkpoint_is_read_back_with_its_files_and_plain_values(tmp_path: Path) -> None:
    files = {"game.safetensors": odd_tensors(), "average.safetensors": {"w": torch.ones(2)}, "none.safetensors": {}}
    plain = {"step": 7, "third": 1 / 3, "none": None, "nested": {"ünï": [1, 2.5, "x", True]}}
    write_checkpoint(tmp_path / "checkpoints/00000007", files, plain)
    read, state = read_checkpoint(tmp_path / "checkpoints/00000007")
    assert {name: set(tensors) for name, tensors in read.items()} == {
        name: set(tensors) for name, tensors in files.items()
    }
    assert all(same_bits(read[file][name], t) for file, tensors in files.items() for name, t in tensors.items())
    assert {key: state[key] for key in plain} == plain
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["00000007"]


def test_a_checkpoint_is_replaced_by_one_of_the_same_name(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        write_checkpoint(tmp_path / "00000001", {"w.safetensors": {"w": torch.tensor(value)}}, {"value": value})
    files, state = read_checkpoint(tmp_path / "00000001")
    assert (files["w.safetensors"]["w"].item(), state["value"]) == (2.0, 2.0)


class Extra(nn.Module):
    def __init__(self, value: object = None):
        super().__init__()
        self.value = value
        self.weight = nn.Parameter(torch.zeros(2))

    def get_extra_state(self) -> object:
        return self.value

    def set_extra_state(self, state: object) -> None:
        self.value = state


def test_plain_values_are_split_from_the_weights_and_loaded_again() -> None:
    module, other = nn.Sequential(Extra({"strength": 0.25}), ReplayPool(3)), nn.Sequential(Extra(), ReplayPool(3))
    module[1](torch.ones(2, 4))
    tensors, plain = split_state(module)
    assert set(tensors) == {"0.weight", "1.pool"}
    assert plain == {"0._extra_state": {"strength": 0.25}}
    load_state(other, tensors, plain, "here")
    assert other[0].value == {"strength": 0.25}
    assert other[1].pool.tolist() == [[1.0] * 4] * 2


@pytest.mark.parametrize("missing", ["0.weight", "1.pool"])
def test_missing_weights_are_refused_by_name(missing: str) -> None:
    module = nn.Sequential(nn.Linear(2, 2), ReplayPool(3))
    tensors, plain = split_state(module)
    del tensors[missing]
    with pytest.raises(CheckpointError, match=rf"here: does not fit Sequential: .*Missing key.*{missing}"):
        load_state(module, tensors, plain, "here")


# Damage.


def written(folder: Path) -> Path:
    files = {"a.safetensors": {"w": torch.arange(4.0)}, "b.safetensors": {"w": torch.arange(9.0)}}
    write_checkpoint(folder, files, {"step": 3})
    return folder


@pytest.mark.parametrize("name", ["a.safetensors", "b.safetensors", "state.json"])
def test_a_flipped_bit_anywhere_is_detected(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / "00000003") / name
    whole = file.read_bytes()
    places = range(len(whole)) if name == "state.json" else random.Random(0).sample(range(len(whole)), 40)
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1
        file.write_bytes(damaged)
        if name == "state.json" and _equal_json(damaged, whole):
            continue
        with pytest.raises(CheckpointError, match=rf"{name}: .*damaged"):
            read_checkpoint(file.parent)
    file.write_bytes(whole)
    assert read_checkpoint(file.parent)[1]["step"] == 3


def _equal_json(one: bytes, other: bytes) -> bool:
    """Returns whether two JSON documents have equal values."""
    try:
        return bool(json.loads(one) == json.loads(other))
    except ValueError:
        return False


@pytest.mark.parametrize("name", ["a.safetensors", "b.safetensors", "state.json"])
def test_a_truncated_or_missing_file_is_detected(tmp_path: Path, name: str) -> None:
    file = written(tmp_path / "00000003") / name
    whole = file.read_bytes()
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=rf"{name}: .*damaged"):
            read_checkpoint(file.parent)
    file.unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: missing"):
        read_checkpoint(file.parent)


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"sha256": 3, "state": {}}', '{"state": {"files": {}}}', "[" * 10**5, "\xff"]
)
def test_a_damaged_state_file_is_refused(tmp_path: Path, text: str) -> None:
    folder = written(tmp_path / "00000003")
    (folder / "state.json").write_text(text, encoding="latin-1")
    with pytest.raises(CheckpointError, match=r"state\.json: (missing or )?damaged"):
        read_checkpoint(folder)


@pytest.mark.parametrize("state", ['{"step": 1}', '{"files": [], "extra": {}}', '{"files": {}, "extra": 3}', "[]"])
def test_a_state_that_names_no_files_is_refused(tmp_path: Path, state: str) -> None:
    folder = written(tmp_path / "00000003")
    body = json.dumps(json.loads(state), sort_keys=True)
    sealed = {"sha256": hashlib.sha256(body.encode()).hexdigest(), "state": json.loads(state)}
    (folder / "state.json").write_text(json.dumps(sealed))
    with pytest.raises(CheckpointError, match=r"state\.json: is not the state of a checkpoint \(it lists no files\)"):
        read_checkpoint(folder)


def test_state_that_could_not_be_read_again_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = written(tmp_path / "00000001")
    for name in ("a:b", "a\\b"):
        with pytest.raises(GanError, match="without `:` and"):
            write_checkpoint(before, {}, {}, save_files=lambda folder, name=name: (folder / name).touch())
    monkeypatch.setattr("gan_core.models.checkpoint.STATE_BYTES", 1000)
    with pytest.raises(
        GanError, match=r"extra state would make state.json 1,\d+ characters long; the maximum is 1,000"
    ):
        write_checkpoint(before, {}, {"game": {"words": "x" * 1000}})
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
    read_checkpoint(before)


def test_empty_folders_are_not_files_of_a_game(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "00000001", {}, {}, save_files=lambda folder: (folder / "empty").mkdir())
    assert not (tmp_path / "00000001" / "files").exists()


def test_state_that_is_not_json_is_refused_in_one_line_and_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(GanError, match=r"00000001: the checkpoint could not be written .*Tensor is not JSON") as error:
        write_checkpoint(tmp_path / "00000001", {}, {"game": {"_extra_state": torch.zeros(1)}})
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


FULL = """
import resource, signal, sys
from pathlib import Path
import torch
from gan_core.models.checkpoint import write_checkpoint
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
small, large = {"w": torch.zeros(10)}, {"w": torch.zeros(100_000)}
for step, tensors in ((1, small), (2, large), (1, large)):
    try:
        write_checkpoint(Path(sys.argv[1], f"{step:08d}"), {"game.safetensors": tensors}, {"step": step})
    except Exception as error:
        print(type(error).__name__, str(error).count("\\n"), error)
"""


def test_a_full_disk_is_reported_in_one_line_and_keeps_older_checkpoints(tmp_path: Path) -> None:
    """A limit on the size of files (RLIMIT_FSIZE) stands for a full disk."""
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert [line.split(" ", 2)[:2] for line in lines] == [["GanError", "0"]] * 2
    assert "00000002: the checkpoint could not be written" in lines[0]
    assert "File too large" in lines[0]
    assert [path.name for path in tmp_path.iterdir()] == ["00000001"]
    assert read_checkpoint(tmp_path / "00000001")[0]["game.safetensors"]["w"].numel() == 10  # not replaced either


# Retention.


def test_the_latest_checkpoints_are_kept_and_temporary_files_removed(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", Recipe(system="toy"))
    for step in (1, 5, 10, 20):
        written(run.checkpoint(step))
    (run.checkpoints_folder / ".00000030.4711").mkdir()
    (run.path / ".model.4711").mkdir()
    run.keep_checkpoints(2, step=10)  # 20 is damaged, says the caller: it does not count
    assert sorted(path.name for path in run.checkpoints_folder.iterdir()) == ["00000005", "00000010", "00000020"]
    assert not (run.path / ".model.4711").exists()
    run.keep_checkpoints(1, step=20)
    assert [path.name for path in run.checkpoints()] == ["00000020"]


# Published files.


class Bomb:
    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("form", ["pickle", "torch", "legacy"])
def test_a_pickle_with_code_is_refused_without_running_it(tmp_path: Path, form: str) -> None:
    ran, file = tmp_path / "ran", tmp_path / "weights.pt"
    content = {"weight": torch.ones(2), "bomb": Bomb(ran)}
    if form == "pickle":
        file.write_bytes(pickle.dumps({"bomb": Bomb(ran)}, protocol=2))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "torch")
    with pytest.raises(
        CheckpointError, match=r"weights\.pt: not a torch file, or it has objects besides tensors"
    ) as error:
        read_published(file)
    assert "\n" not in str(error.value)
    assert not ran.exists()
    shutil.copy(file, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match=r"cannot be read as safetensors"):
        read_published(tmp_path / "weights.safetensors")
    assert not ran.exists()


def test_the_pickle_would_run_code_if_it_were_loaded(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "ran")))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_mappings_of_tensors_may_be_wrapped(tmp_path: Path, legacy: bool) -> None:
    weights = {"w": torch.arange(3.0), "n": torch.tensor(3)}
    module = nn.Linear(2, 1)
    contents: dict[str, tuple[Any, set[str]]] = {
        "plain": (weights, {"w", "n"}),
        "module": (module.state_dict(), {"weight", "bias"}),
        "wrapped": ({"state_dict": weights, "epoch": 3}, {"w", "n"}),
        "with a tensor beside": ({"accuracy": torch.tensor(0.9), "state_dict": weights}, {"w", "n"}),
        "deeply": ({"a": {"b": {"c": weights}}}, {"w", "n"}),
        "of many": ({"opt": {"lr": 0.1}, "g_ema": weights}, {"w", "n"}),
    }
    for name, (content, keys) in contents.items():
        torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
        assert set(read_published(tmp_path / "x.pt")) == keys, name
    assert torch.equal(read_published(tmp_path / "x.pt")["w"], weights["w"])


def test_published_safetensors_are_read(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x.safetensors", {"w": torch.arange(3.0)})
    assert read_published(tmp_path / "x.safetensors")["w"].tolist() == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("content", [[torch.ones(1)], {"lr": 0.1}, torch.ones(2), {"a": {1: {"w": torch.ones(1)}}}])
def test_a_file_without_a_mapping_of_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt: contains no mapping from names to tensors"):
        read_published(tmp_path / "x.pt")


def test_a_torch_file_with_compressed_records_is_refused_before_they_are_read(tmp_path: Path) -> None:
    torch.save({"w": torch.zeros(2**20)}, tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "x.pt", "w") as packed:
        for record in plain.infolist():
            packed.writestr(record.filename, plain.read(record), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "x.pt").stat().st_size < 20_000
    with pytest.raises(CheckpointError, match=r"x\.pt: has compressed records, which torch does not write"):
        read_published(tmp_path / "x.pt")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_with_megabytes_of_plain_values_is_refused(tmp_path: Path, legacy: bool) -> None:
    content = {"w": torch.ones(2), "history": [[] for _ in range(800_000)]}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    began = time.process_time()
    with pytest.raises(CheckpointError, match=r"x\.pt: has more than 1,048,576 bytes of values besides tensors"):
        read_published(tmp_path / "x.pt")
    assert time.process_time() - began < 20


@pytest.mark.parametrize("legacy", [False, True])
def test_a_training_history_beside_the_weights_is_read(tmp_path: Path, legacy: bool) -> None:
    content = {"losses": [0.5] * 10_000, "model": {"w": torch.arange(3.0)}}
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not legacy)
    assert read_published(tmp_path / "x.pt")["w"].tolist() == [0, 1, 2]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pt: no such file"):
        read_published(tmp_path / "none.pt")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's, over a byte that was changed
@pytest.mark.parametrize("form", ["torch", "legacy", "safetensors"])
def test_damaged_published_files_are_refused_in_one_line(tmp_path: Path, form: str) -> None:
    file = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pt")
    weights = {"a": torch.randn(4, 3), "b": torch.zeros(2, dtype=torch.int64)}
    if form == "safetensors":
        write_tensors(file, weights)
    else:
        torch.save({"state_dict": weights, "epoch": 3}, file, _use_new_zipfile_serialization=form == "torch")
    whole, chance, refusals = file.read_bytes(), random.Random(0), []
    for number in range(300):
        damaged = bytearray(whole[: chance.randrange(len(whole))] if number % 3 == 0 else whole)
        for _ in range(number % 3 * 2 if damaged else 0):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        file.write_bytes(damaged)
        try:
            read_published(file)
        except CheckpointError as error:
            refusals.append(str(error))
    assert len(refusals) > 150
    assert all(line.startswith(f"{file}: ") and "\n" not in line for line in refusals)
