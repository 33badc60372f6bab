"""``adlbench data prepare`` and ``verify``: files are fetched, noted, and named when they change; fingerprints follow bytes."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests_support import toy

from adlbench.benchmark.api import ArraySplit, DataError, Dataset, Split
from adlbench.benchmark.cell import load_data
from adlbench.benchmark.cli.main import main
from adlbench.benchmark.config import Catalog, build_dataset
from adlbench.benchmark.leaderboard.board import boards
from adlbench.benchmark.plan import CellSpec
from adlbench.benchmark.prepare.manifest import Manifest
from adlbench.benchmark.prepare.prepare import prepare, verify
from adlbench.benchmark.specs import DatasetSpec, DownloadSpec
from adlbench.datasets.classification.image_folder import ImageFolder
from adlbench.datasets.generated import cache


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data root with a folder of pictures, and a cache of our own."""
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            for number in range(3):
                write(tmp_path / "data" / "images" / split / name / f"{number}.png", number)
    return tmp_path / "data"


def write(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (value, 10, 20)).save(path)


def spec(**changes: Any) -> DatasetSpec:
    base = Catalog().spec("dataset", "image_folder")
    return replace(base, parameters={**base.parameters, "size": 0}, **changes)


def dataset(**changes: Any) -> ImageFolder:
    return ImageFolder(path="images", **changes)


# ------------------------------------------------------------------------------------------------------------- manifest
def test_a_damaged_file_is_named(root: Path) -> None:
    assert "no sha256 is noted yet" in verify(spec(), dataset()).notes[0]
    prepare(spec(), dataset())
    assert verify(spec(), dataset()).notes == []
    write(root / "images" / "train" / "dog" / "1.png", 99)
    for call in (partial(verify, spec(), dataset()), partial(prepare, spec(), dataset())):
        with pytest.raises(DataError, match=r"train/dog/1.png has changed since it was prepared.*--renew") as error:
            call()
        assert "0.png" not in str(error.value)
    prepare(spec(), dataset(), renew=True)
    verify(spec(), dataset())


def test_a_change_that_keeps_size_and_time_is_found(root: Path) -> None:
    import os

    prepare(spec(), dataset())
    path = root / "images" / "test" / "cat" / "0.png"
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1  # past the checksum of the last chunk: Pillow does not mind
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError, match=r"test/cat/0.png has changed"):
        verify(spec(), dataset())


def test_a_file_that_is_gone_is_named(root: Path) -> None:
    prepare(spec(), dataset())
    (root / "images" / "train" / "dog" / "1.png").unlink()
    with pytest.raises(DataError, match=r"train/dog/1.png is gone"):
        verify(spec(), dataset())


def test_notes_belong_to_one_data_root(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(spec(), dataset())
    other = tmp_path / "other"
    for split in ("train", "test"):
        write(other / "images" / split / "cat" / "0.png", 77)
        write(other / "images" / split / "dog" / "0.png", 78)
    monkeypatch.setenv("ADLBENCH_DATA", str(other))
    prepare(spec(), dataset())
    verify(spec(), dataset())
    assert len(list((tmp_path / "cache" / "adlbench" / "manifests").iterdir())) == 2


def test_notes_that_cannot_be_read(root: Path) -> None:
    prepare(spec(), dataset())
    Manifest(spec().name).path.write_text('{"a": 1}')
    with pytest.raises(DataError, match="delete it"):
        Manifest(spec().name)


# --------------------------------------------------------------------------------------------------------- fingerprints
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_changed_byte_is_another_fingerprint(root: Path, in_memory: bool) -> None:
    before = dataset(in_memory=in_memory).fingerprint()
    assert dataset(in_memory=in_memory).fingerprint() == before
    write(root / "images" / "test" / "dog" / "2.png", 3)  # one grey level more
    assert dataset(in_memory=in_memory).fingerprint() != before


def test_decoding_otherwise_is_another_fingerprint(root: Path) -> None:
    assert dataset(in_memory=False).fingerprint() != dataset(in_memory=False, grey=True).fingerprint()


def test_both_ways_of_loading_give_the_same_items(root: Path) -> None:
    for split in ("train", "test"):
        now, later = (dataset(in_memory=flag).load("all", split).all() for flag in (True, False))
        assert now.keys() == later.keys()
        assert all((now[name] == later[name]).all() for name in now)


def test_a_cell_reads_its_data_once(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = toy()
    kind = type(build_dataset(cell.dataset))
    loaded: list[str] = []
    load = kind.load

    def counting(self: Dataset, instance: str, split: str) -> Split:
        loaded.append(split)
        return load(self, instance, split)

    monkeypatch.setattr(kind, "load", counting)
    data = load_data(cell)
    assert sorted(loaded) == ["test", "train"]
    assert data.fingerprint == build_dataset(cell.dataset).fingerprint()


def test_the_fingerprint_is_of_names_types_shapes_and_bytes() -> None:
    class Two(ImageFolder):
        def load(self, instance: str, split: str) -> Split:
            return ArraySplit(label=np.arange(3), image=np.zeros((3, 2), np.uint8))

    expected = hashlib.sha256()
    for split in ("train", "test"):
        expected.update(f"{split}/image torch.uint8 (3, 2)".encode() + b"\0" * 6)
        expected.update(f"{split}/label torch.int64 (3,)".encode() + np.arange(3).tobytes())
    assert Two().fingerprint() == expected.hexdigest()


def test_leaderboards_split_by_fingerprint_and_say_so(root: Path) -> None:
    """From a changed byte in a file to two boards: the fingerprints of ``load_data`` are what a record carries."""
    import pandas as pd

    cell = replace(toy(), dataset=spec())
    rows = []
    for method in ("before", "after"):
        rows.append(_row(cell, method, load_data(cell).fingerprint))
        write(root / "images" / "train" / "cat" / "0.png", 50)
    found = boards(pd.DataFrame(rows))
    assert [[row.method for row in board.rows] for board in found] == [["before"], ["after"]]
    assert all(board.split_because.startswith("not comparable: cells differ in fingerprint (") for board in found)
    assert found[0].fingerprint != found[1].fingerprint
    rows.append(_row(cell, "also after", rows[1]["fingerprint"]))
    assert sorted(len(board.rows) for board in boards(pd.DataFrame(rows))) == [1, 2]


def _row(cell: CellSpec, method: str, fingerprint: str) -> dict[str, Any]:
    metrics = {"top1": {"direction": "up", "unit": "", "primary": True, "margin": None}}
    return {
        "task": cell.task.name,
        "protocol": cell.task.protocol,
        "dataset": cell.dataset.name,
        "instance": "all",
        "fidelity": "short",
        "hardware": "cpu",
        "precision": "fp32",
        "seed": 0,
        "method": method,
        "fingerprint": fingerprint,
        "status": "done",
        "trivial": False,
        "metric.top1": 0.5,
        "cell_key": method,
        "metric_specs": json.dumps(metrics),
        "references": "[]",
        "absent": "{}",
        "throughput_unit": "items",
    }


# ------------------------------------------------------------------------------------------------------------ downloads
@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server on loopback and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", folder
    server.shutdown()
    thread.join()
    server.server_close()


def archive_of(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, path.relative_to(folder.parent))
    return buffer.getvalue()


def test_what_is_missing_is_downloaded_and_unpacked(
    root: Path, served: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, folder = served
    content = archive_of(root / "images")
    (folder / "images.zip").write_bytes(content)
    item = DownloadSpec(
        url=f"{url}/images.zip",
        sha256=hashlib.sha256(content).hexdigest(),
        path="images.zip",
        size=len(content),
        unpack=".",
        gives="images/test/dog/2.png",
    )
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path / "empty"))
    assert dataset().missing() is not None
    assert prepare(spec(downloads=(item,)), dataset()) == []
    assert verify(spec(), dataset()).instances["all"]["train"] == 6
    fingerprint = dataset().fingerprint()
    monkeypatch.setenv("ADLBENCH_DATA", str(root))
    assert dataset().fingerprint() == fingerprint
    damaged = replace(item, sha256="0" * 64)
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path / "nothing"))
    with pytest.raises(DataError, match="gave a file with sha256"):
        prepare(spec(downloads=(damaged,)), dataset())


def test_without_an_address_it_says_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path))
    for name in ("celeba", "imagenet", "flickr8k", "camvid", "facades", "orl_faces"):
        found = Catalog().spec("dataset", name)
        with pytest.raises(DataError) as error:
            prepare(found, build_dataset(found))
        assert str(tmp_path) in str(error.value)
        assert found.how_to_get in str(error.value)
        assert "\n" not in str(error.value)


def test_files_that_are_not_the_published_ones_are_remarked(root: Path) -> None:
    item = DownloadSpec(url="http://127.0.0.1:9/x", sha256="0" * 64, path="images/train/cat/0.png")
    notes = verify(spec(downloads=(item,)), dataset()).notes
    assert any("images/train/cat/0.png is not, byte for byte" in note for note in notes)


def test_every_address_has_a_hash_and_goes_below_the_data_root() -> None:
    catalog = Catalog()
    for name in catalog.names("dataset"):
        found: DatasetSpec = catalog.spec("dataset", name)
        for item in found.downloads:
            assert item.url.startswith(("https://", "http://"))
            assert len(item.sha256) == 64
            assert int(item.sha256, 16)
            for path in (item.path, item.unpack, item.gives):
                assert not path.startswith("/")
                assert ".." not in path
            assert bool(item.unpack) == bool(item.gives)
        if not found.generated:
            assert found.how_to_get, name
            assert found.licence, name
            assert found.size, name


# --------------------------------------------------------------------------------------------------------- command line
def test_the_command_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "prepare", "image_folder"]) == 0
    assert main(["data", "verify", "image_folder"]) == 0
    assert "6 train, 6 test, sha256 " in capsys.readouterr().out
    write(root / "images" / "train" / "dog" / "1.png", 99)
    assert main(["data", "verify", "image_folder", "--json"]) == 1
    assert "train/dog/1.png has changed" in json.loads(capsys.readouterr().out)[0]["error"]
    assert main(["data", "prepare", "image_folder", "--renew"]) == 0
    assert main(["data", "prepare", "celeba"]) == 1
    assert "accept the agreement" in capsys.readouterr().out


def test_list_names_every_dataset_and_what_is_missing(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["image_folder"]["missing"] is None
    assert "put batches.meta" in rows["cifar10"]["missing"]
    assert {"coco", "coco128", "facades", "tinyshakespeare", "wikitext2", "flickr8k", "orl_faces"} <= set(rows)


def test_preparing_leaves_generated_data_in_the_cache(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both splits of every instance: a cell that starts afterwards, perhaps on a train without power, makes nothing."""
    assert main(["data", "prepare", "room_layouts", "head"]) == 0
    assert capsys.readouterr().out.count("ready") == 2

    def refuse(*args: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(cache, "_write", refuse)
    for name in ("room_layouts", "head"):
        made = build_dataset(Catalog().spec("dataset", name))
        for instance in made.instances():
            assert all(len(made.load(instance, split)) > 0 for split in ("train", "test"))


def test_what_cannot_be_generated_is_named(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = root.parent / "a file"
    blocked.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocked))
    assert main(["data", "prepare", "head"]) == 1
    assert "subject_0: the cache" in capsys.readouterr().out
