"""ScanNet v2 (Dai et al. 2017): reconstructed rooms, 20 classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.files import FileSplit
from adlbench.datasets.formats.files import inside
from adlbench.datasets.formats.scannet import CLASSES, read_scene, read_split
from adlbench.datasets.points import draw, y_up


@dataclass
class ScanNet(Dataset):
    """Items are scenes: ``num_points`` of the labelled vertices, in metres from the scene's centre and floor, y up.

    The labels of the official test scenes are not public; the validation scenes are scored. Vertices of no class of the
    benchmark are left out, which shows a method less than the benchmark does.
    """

    folder: str = "scannet"
    num_points: int = 32768
    train_list: str = "scannetv2_train.txt"
    test_list: str = "scannetv2_val.txt"

    def missing(self) -> str | None:
        absent = [name for name in (self.train_list, self.test_list, "scans") if not (self._root / name).exists()]
        if not absent:
            return None
        return (
            f"put {', '.join(absent)} into {self._root}: scans/<scene>/<scene>_vh_clean_2.ply and .labels.ply of the release, "
            "and the lists of ScanNet/Tasks/Benchmark"
        )

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            modality=Modality.POINTS,
            fields=("points", "colours", "point_label"),
            num_train=len(self._scenes("train")),
            num_test=len(self._scenes("test")),
            parts=CLASSES,
            num_points=self.num_points,
        )

    def load(self, instance: str, split: str) -> FileSplit:
        scenes = self._scenes(split)
        files = [path for pair in scenes for path in pair]
        return FileSplit(len(scenes), lambda index: self._item(*scenes[index]), files, self._root, f"{self.num_points}")

    def sources(self) -> tuple[Path, ...]:
        return tuple(path for split in ("train", "test") for pair in self._scenes(split) for path in pair)

    @property
    def _root(self) -> Path:
        return data_root() / self.folder

    def _scenes(self, split: str) -> list[tuple[Path, Path]]:
        missing = self.missing()
        if missing:
            raise DataError(missing)
        path = self._root / (self.train_list if split == "train" else self.test_list)
        folders = [(inside(self._root / "scans", name, path), name) for name in read_split(path)]
        return [
            (folder / f"{name}_vh_clean_2.ply", folder / f"{name}_vh_clean_2.labels.ply") for folder, name in folders
        ]

    def _item(self, mesh: Path, labels: Path) -> dict[str, np.ndarray]:
        scene = read_scene(mesh, labels)
        assert scene.labels is not None
        scored = np.flatnonzero(scene.labels >= 0)
        if not len(scored):
            raise DataError(f"{labels} has no vertex of a class of the benchmark; leave this scene out")
        low, high = scene.vertices.min(axis=0), scene.vertices.max(axis=0)
        rows = scored[draw(len(scored), self.num_points, mesh.name)]
        points = y_up(scene.vertices[rows] - [*((low + high) / 2)[:2], low[2]])
        return {
            "points": points.astype(np.float32),
            "colours": scene.colours[rows].astype(np.float32) / 255,
            "point_label": scene.labels[rows],
        }
