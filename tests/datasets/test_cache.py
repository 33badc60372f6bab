"""The cache of prepared arrays: several processes, killed makers, damage, and memory that is used once."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adlbench.benchmark.api import ArraySplit, DataError
from adlbench.datasets.generated.cache import cached

FORK = multiprocessing.get_context("fork")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "adlbench"


def example() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "points": rng.normal(size=(50, 7, 3)).astype(np.float32),
        "turned": np.asfortranarray(rng.integers(0, 9, (4, 5))),
        "none": np.zeros((0, 3), dtype=np.uint8),
        "flag": np.array([True, False]),
    }


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix != ".lock"]


def test_what_comes_back_is_what_was_made_and_lies_in_files(folder: Path) -> None:
    for _ in range(2):
        arrays = cached("thing", 1, {"a": 1}, example)
        assert list(arrays) == list(example())
        for name, value in example().items():
            assert isinstance(arrays[name], np.memmap)
            assert arrays[name].dtype == value.dtype
            np.testing.assert_array_equal(arrays[name], value)
    assert cached("thing", 1, {"a": 1}, lambda: {})["flag"].tolist() == [True, False]
    for version, parameters in ((2, {"a": 1}), (1, {"a": 2})):
        assert cached("thing", version, parameters, lambda: {"x": np.ones(1)}).keys() == {"x"}
    assert len(entries(folder)) == 3


def test_a_split_takes_mapped_arrays_without_a_copy_and_writing_to_them_stays_here(folder: Path) -> None:
    points = cached("thing", 1, {}, example)["points"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = ArraySplit(points=points)
        frozen = ArraySplit(points=np.frombuffer(bytes(points), dtype=np.float32).reshape(points.shape))
    assert split.fields["points"].data_ptr() == points.ctypes.data == split.all()["points"].data_ptr()
    assert (frozen.batch([3])["points"] == split.batch([3])["points"]).all()
    split.fields["points"].zero_()
    np.testing.assert_array_equal(cached("thing", 1, {}, lambda: {})["points"], example()["points"])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def make_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["points.npy", "manifest.json"])
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, Path.unlink, make_a_folder])
def test_a_damaged_entry_is_made_again(folder: Path, name: str, damage: Callable[[Path], None]) -> None:
    calls = []

    def make() -> dict[str, np.ndarray]:
        calls.append(1)
        return example()

    cached("thing", 1, {}, make)
    (entry,) = entries(folder)
    damage(entry / name)
    for _ in range(2):
        np.testing.assert_array_equal(cached("thing", 1, {}, make)["points"], example()["points"])
    assert len(calls) == 2
    assert entries(folder) == [entry]


def test_a_maker_that_raises_leaves_nothing(folder: Path) -> None:
    def fails() -> dict[str, np.ndarray]:
        raise KeyError("generator")

    with pytest.raises(KeyError):
        cached("thing", 1, {}, fails)
    with pytest.raises(ValueError, match="allow_pickle"):  # objects would need pickle
        cached("thing", 1, {}, lambda: {"x": np.array([{}, None])})
    assert entries(folder) == []
    assert cached("thing", 1, {}, example)["flag"].tolist() == [True, False]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"file.*XDG_CACHE_HOME"):
        cached("thing", 1, {}, example)


def start(count: int, target: Callable[..., None], *args: Any) -> list[Any]:
    processes = [FORK.Process(target=target, args=(number, *args), daemon=True) for number in range(count)]
    for process in processes:
        process.start()
    return processes


def test_of_several_processes_one_makes_and_the_others_wait(folder: Path) -> None:
    calls, sums = FORK.Queue(), FORK.Queue()

    def ask(number: int) -> None:
        def make() -> dict[str, np.ndarray]:
            calls.put(number)
            time.sleep(0.3)
            return example()

        sums.put(float(cached("thing", 1, {}, make)["points"].sum()))

    for process in start(4, ask):
        process.join(30)
        assert process.exitcode == 0
    expected = float(example()["points"].sum())
    assert [sums.get(timeout=5) for _ in range(4)] == [expected] * 4
    calls.get(timeout=5)
    assert calls.empty()


def test_a_killed_maker_leaves_nothing_harmful(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It dies between two files; one process that waits for it goes on in its place."""
    writing = FORK.Event()
    save = np.save

    def dies(number: int) -> None:
        def stops(path: Path, array: np.ndarray, **options: Any) -> None:
            save(path, array, **options)
            writing.set()
            time.sleep(60)

        monkeypatch.setattr(np, "save", stops)
        cached("thing", 1, {}, example)

    def waits(number: int) -> None:
        cached("thing", 1, {}, example)

    (maker,) = start(1, dies)
    assert writing.wait(30)
    (follower,) = start(1, waits)
    time.sleep(0.3)
    assert follower.is_alive()
    assert [path.suffix for path in entries(folder)] == [".part"]
    os.kill(maker.pid, signal.SIGKILL)
    follower.join(30)
    assert follower.exitcode == 0
    assert cached("thing", 1, {}, lambda: {})["flag"].tolist() == [True, False]
    (entry,) = entries(folder)
    assert entry.is_dir()
    assert entry.suffix == ""


def proportional_set_size() -> int:
    """Bytes of this process, those that n processes share counted as 1/n."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


@needs_linux
def test_eight_processes_on_one_data_set_use_its_memory_once(folder: Path) -> None:
    workers, items = 8, 320
    size = items << 20

    def make() -> dict[str, np.ndarray]:
        return {"x": np.random.default_rng(0).integers(0, 256, (items, 1 << 20), dtype=np.uint8)}

    cached("large", 1, {}, make), cached("small", 1, {}, example)
    barrier, grown = FORK.Barrier(workers), FORK.Queue()

    def read(number: int, private: bool) -> None:
        gc.disable()  # a collection writes to every object and so unshares what was forked
        ArraySplit(x=cached("small", 1, {}, example)["points"]).batch([0])  # what Python itself needs for this
        barrier.wait(300)  # everyone is there: what was forked is shared by as many as at the end
        before = proportional_set_size()
        barrier.wait(300)
        split = ArraySplit(x=cached("large", 1, {}, make)["x"])
        if private:
            split = ArraySplit(x=split.fields["x"].clone())
        for index in np.random.default_rng(number).permutation(items):
            split.batch([index])
        barrier.wait(300)  # everyone has read everything
        after = proportional_set_size()
        barrier.wait(300)  # nobody has gone yet
        grown.put(after - before)

    used = {}
    for private in (False, True):
        processes = start(workers, read, private)
        used[private] = sum(grown.get(timeout=300) for _ in range(workers)) / size
        for process in processes:
            process.join(30)
            assert process.exitcode == 0
    print(f"\nmemory of {workers} processes over that of the data: mapped {used[False]:.2f}, copied {used[True]:.2f}")
    assert used[False] < 1.5
    assert used[True] > workers - 1  # what the measure says of data that is not shared
