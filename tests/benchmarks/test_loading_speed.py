"""Items per second through ``context.loader`` over prepared arrays, beside the obvious alternative on the same data.

The alternatives are what one would write without this package: torch's DataLoader over one file an item, torchvision's
datasets, torch_geometric's, a DataLoader over precomputed rays. Rounds of all of them alternate in random order; an
alternative's ratio is the median over rounds of its time divided by ours, in wall time, because it may use processes. Workers
are started before the clock.
"""

from __future__ import annotations

import gzip
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sphere_scene import context
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from adlbench.benchmark.api import ArraySplit, DataSchema, Modality, Split, TrainingData, data_root
from adlbench.datasets.classification.mnist import MNIST
from adlbench.methods.base.per_scene import PosedImages
from adlbench.methods.nn.rays import camera_to_world, rays_through
from adlbench.methods.novel_view_synthesis.nerf import NeRF

ROUNDS, BATCH = 3, 32
MODELNET10 = ["bathtub", "bed", "chair", "desk", "dresser", "monitor", "night_stand", "sofa", "table", "toilet"]


class Files(TorchDataset[tuple[torch.Tensor, int]]):
    """One .npy file an item."""

    def __init__(self, folder: Path, items: np.ndarray):
        folder.mkdir()
        self.files = [folder / f"{number}.npy" for number in range(len(items))]
        for file, item in zip(self.files, items):
            np.save(file, item)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(np.load(self.files[index])), index % 10


def epoch(split: Split, batch_size: int) -> Callable[[], int]:
    """One epoch of our loader; returns its number of items."""
    loader, batches = context().loader(split, batch_size), len(split) // batch_size
    return lambda: sum(len(next(iter(next(loader).values()))) for _ in range(batches))


def drained(batches: Iterable[Any]) -> Callable[[], int]:
    return lambda: sum(len(batch[0]) for batch in batches)


def workers(dataset: Any, batch_size: int, count: int) -> Iterable[Any]:
    options: dict[str, Any] = {"persistent_workers": True, "multiprocessing_context": "fork"} if count else {}
    return DataLoader(dataset, batch_size, shuffle=True, drop_last=True, num_workers=count, **options)


def ratios(ours: Callable[[], int], others: dict[str, Callable[[], int]], what: str) -> dict[str, float]:
    """How many times longer each of ``others`` takes for an item than ``ours``."""
    contenders = {"ours": ours, **others}
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    order = np.random.default_rng(0)
    for _ in range(ROUNDS):
        for place in order.permutation(len(contenders)):
            name = list(contenders)[place]
            begin = time.perf_counter()
            items = contenders[name]()
            seconds[name].append((time.perf_counter() - begin) / items)
    found = {name: statistics.median(a / b for a, b in zip(seconds[name], seconds["ours"])) for name in others}
    speed = {name: f"{1 / statistics.median(values):,.0f}/s" for name, values in seconds.items()}
    print(f"\n{what}: {speed}; times faster: { ({name: round(ratio, 1) for name, ratio in found.items()}) }")
    return found


def against_files(items: np.ndarray, folder: Path) -> dict[str, Callable[[], int]]:
    files = Files(folder, items)
    return {f"DataLoader, {count} workers": drained(workers(files, BATCH, count)) for count in (0, 2)}


def test_points(tmp_path: Path) -> None:
    items = np.random.default_rng(0).normal(size=(512, 1024, 3)).astype(np.float32)
    split = ArraySplit(points=items, label=np.arange(512) % 10)
    found = ratios(epoch(split, BATCH), against_files(items, tmp_path / "points"), "points")
    assert min(found.values()) > 1, found


def test_voxels(tmp_path: Path) -> None:
    items = np.random.default_rng(0).random((512, 32, 32, 32)) < 0.1
    split = ArraySplit(occupancy=items, label=np.arange(512) % 10)
    found = ratios(epoch(split, BATCH), against_files(items, tmp_path / "voxels"), "voxels")
    assert min(found.values()) > 1, found


@pytest.mark.needs_data
def test_images_of_mnist_beside_torchvision(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    if MNIST().missing():
        pytest.skip(str(MNIST().missing()))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in (data_root() / "mnist").glob("*.gz"):
        (raw / file.stem).write_bytes(gzip.decompress(file.read_bytes()))
    dataset = torchvision.datasets.MNIST(str(tmp_path), train=False, transform=torchvision.transforms.PILToTensor())
    split = MNIST().load("all", "test")
    assert torch.equal(dataset[7][0], split.batch([7])["image"][0])
    others = {f"torchvision, {count} workers": drained(workers(dataset, 128, count)) for count in (0, 2)}
    found = ratios(epoch(split, 128), others, "MNIST")
    assert min(found.values()) > 1, found


@pytest.mark.needs_data
def test_images_of_a_folder_beside_torchvision() -> None:
    torchvision = pytest.importorskip("torchvision")
    if not (data_root() / "orl_faces" / "training").is_dir():
        pytest.skip("orl_faces is not below the data root")
    transform = torchvision.transforms.Compose(
        [torchvision.transforms.Grayscale(), torchvision.transforms.PILToTensor()]
    )
    dataset = torchvision.datasets.ImageFolder(str(data_root() / "orl_faces" / "training"), transform)
    split = ArraySplit(image=torch.stack([image for image, _ in dataset]), label=np.array(dataset.targets))
    others = {f"torchvision, {count} workers": drained(workers(dataset, BATCH, count)) for count in (0, 2)}
    found = ratios(epoch(split, BATCH), others, "image folder")
    assert min(found.values()) > 1, found


@pytest.mark.needs_data
def test_points_of_modelnet_beside_torch_geometric(tmp_path: Path) -> None:
    geometric = pytest.importorskip("torch_geometric")
    source = data_root() / "sh3d_modelnet"
    if not source.is_dir():
        pytest.skip("sh3d_modelnet is not below the data root")
    from torch_geometric.datasets import ModelNet
    from torch_geometric.transforms import SamplePoints

    for name in MODELNET10:
        folder = tmp_path / "raw" / name
        folder.parent.mkdir(exist_ok=True)
        if (source / name).is_dir():
            folder.symlink_to(source / name)
        else:  # it asks for a folder of each class
            folder.mkdir()
    dataset = ModelNet(str(tmp_path), "10", train=True, pre_transform=SamplePoints(1024))
    split = ArraySplit(
        points=torch.stack([item.pos for item in dataset]), label=torch.stack([item.y[0] for item in dataset])
    )
    batches = geometric.loader.DataLoader(dataset, 16, shuffle=True, drop_last=True)
    peer = lambda: sum(batch.num_graphs for batch in batches)  # noqa: E731
    found = ratios(epoch(split, 16), {"torch_geometric": peer}, "ModelNet")
    assert min(found.values()) > 1, found


def scene(views: int, size: int) -> ArraySplit:
    poses = torch.eye(4).repeat(views, 1, 1)
    poses[:, 2, 3] = torch.linspace(2, 4, views)
    intrinsics = torch.tensor([[size, 0, size / 2], [0, size, size / 2], [0, 0, 1.0]]).repeat(views, 1, 1)
    image = torch.full((views, size, size, 3), 128, dtype=torch.uint8)
    return ArraySplit(image=image, intrinsics=intrinsics, world_to_camera=poses)


def posed(split: ArraySplit) -> PosedImages:
    views, height, width = split.fields["image"].shape[:3]
    schema = DataSchema(
        Modality.POSED_IMAGES,
        tuple(split.fields),
        num_train=views,
        num_test=1,
        image_size=(height, width),
        near=1.0,
        far=5.0,
    )
    return NeRF().posed_images(TrainingData(schema, split), context())


def test_rays() -> None:
    views, size, batch, steps = 10, 40, 1024, 15
    split = scene(views, size)
    images, generator = posed(split), torch.Generator().manual_seed(0)

    def ours() -> int:
        return sum(len(images.sample_rays(batch, generator)[1]) for _ in range(steps))

    row, column = np.indices((size, size)).reshape(2, -1)
    pixels = torch.from_numpy(np.stack([column, row], -1) + 0.5).float()
    inverse = camera_to_world(split.fields["world_to_camera"])
    every = [
        rays_through(pixels, intrinsics.expand(len(pixels), 3, 3), pose.expand(len(pixels), 4, 4))
        for intrinsics, pose in zip(split.fields["intrinsics"], inverse)
    ]
    table = TensorDataset(
        torch.cat([rays.origins for rays in every]),
        torch.cat([rays.directions for rays in every]),
        split.fields["image"].reshape(-1, 3).float() / 255,
    )
    others = {f"DataLoader, {count} workers": drained(workers(table, batch, count)) for count in (0, 2)}
    found = ratios(ours, others, "rays")
    assert min(found.values()) > 1, found


def resident(key: str) -> int:
    """Bytes: VmRSS is the memory of this process now, VmHWM the most it ever was."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_rays_of_a_large_scene_are_sampled_without_a_copy_of_them() -> None:
    """64 million rays are 1.5 GB as origins and directions, 0.8 GB as float colours; the pictures are 192 MB."""
    split = scene(100, 800)
    pictures = split.fields["image"].numel()
    assert pictures == 192_000_000
    resident_before = _reset_peak()
    images = posed(split)
    assert images.images.data_ptr() == split.fields["image"].data_ptr()  # not even the pictures are copied
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        rays, colours = images.sample_rays(4096, generator)
    assert rays.directions.shape == colours.shape == (4096, 3)
    grown = resident("VmHWM") - resident_before
    print(f"\nmemory beyond the pictures: {grown / 1e6:.1f} MB")
    assert grown < 50_000_000


def _reset_peak() -> int:
    """Forget the most memory there was, so that the next reading is of what comes now; returns the present memory."""
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")
