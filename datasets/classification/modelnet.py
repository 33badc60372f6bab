"""ModelNet (Wu et al. 2015) and other meshes sorted into classes, as point clouds with normals."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.formats import modelnet
from adlbench.datasets.formats.meshes import ENDINGS, read_mesh, sample_surface
from adlbench.datasets.generated.cache import cached
from adlbench.datasets.points import stamp, unit_sphere, y_up


@dataclass
class ModelNet(Dataset):
    """``folder/CLASS/train/*.off`` and ``folder/CLASS/test/*.off``, or the same shapes in points.

    Of meshes, ``num_points`` are drawn uniformly from the surface, always the same for a file. Where the meshes are absent,
    ``modelnet40_ply_hdf5_2048`` (without normals, ModelNet40 only) or ``resampled`` beside it is read; the first
    ``num_points`` of a shape are taken, as in the papers. All are centred and scaled to the unit sphere, y up.
    """

    folder: str = "ModelNet40"  # below the data root
    classes: tuple[str, ...] = ()  # in the order of the labels; empty: the folders that are there
    num_points: int = 1024
    z_up: bool = True  # of the meshes
    hdf5: str = ""  # e.g. modelnet40_ply_hdf5_2048
    resampled: str = ""  # e.g. modelnet40_normal_resampled
    resampled_list: str = "modelnet40"  # of modelnet40_train.txt

    def missing(self) -> str | None:
        if self._layout() is not None:
            return None
        others = "".join(f", or {name} to {data_root() / name}" for name in (self.hdf5, self.resampled) if name)
        return f"put the meshes into {self._root}/CLASS/train/ and {self._root}/CLASS/test/ (.off){others}"

    def schema(self, instance: str = "all") -> DataSchema:
        train, test = self.load(instance, "train"), self.load(instance, "test")
        return DataSchema(
            modality=Modality.POINTS,
            fields=tuple(train.fields),
            num_train=len(train),
            num_test=len(test),
            classes=self._classes(),
            num_points=self.num_points,
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        layout = self._layout()
        if layout is None:
            raise DataError(str(self.missing()))
        read = {"meshes": self._meshes, "hdf5": self._hdf5, "resampled": self._resampled}[layout]
        return ArraySplit(**read(split))

    def sources(self) -> tuple[Path, ...]:
        if self._layout() == "meshes":
            return tuple(path for split in ("train", "test") for path, _ in self._files(split))
        root = data_root() / (self.hdf5 if self._layout() == "hdf5" else self.resampled)
        return tuple(sorted(path for path in root.rglob("*") if path.suffix in {".h5", ".txt"}))

    # ------------------------------------------------------------------------------------------------------- layouts
    @property
    def _root(self) -> Path:
        return data_root() / self.folder

    def _layout(self) -> str | None:
        if any(self._root.glob("*/train/*")) and any(self._root.glob("*/test/*")):
            return "meshes"
        if self.hdf5 and (data_root() / self.hdf5 / "train_files.txt").is_file():
            return "hdf5"
        if self.resampled and (data_root() / self.resampled / f"{self.resampled_list}_train.txt").is_file():
            return "resampled"
        return None

    def _classes(self) -> tuple[str, ...]:
        return self.classes or tuple(sorted({path.parent.name for path in self._root.glob("*/train")}))

    def _files(self, split: str) -> list[tuple[Path, int]]:
        """Meshes of a split with their labels."""
        files = []
        for label, name in enumerate(self._classes()):
            found = sorted(p for p in (self._root / name / split).glob("*") if p.suffix.lower() in ENDINGS)
            files += [(path, label) for path in found]
        present = {path.name for path in self._root.iterdir() if path.is_dir()}
        if not files or present - set(self._classes()):
            strange = ", ".join(sorted(present - set(self._classes()))[:5]) or "none"
            raise DataError(
                f"{self._root} has {len(files)} meshes in the {split} folders of its classes, and folders of no class: {strange}; "
                "put the meshes there, or correct the parameter classes"
            )
        return files

    def _meshes(self, split: str) -> dict[str, np.ndarray]:
        files = self._files(split)
        key = {
            "files": stamp((path for path, _ in files), self._root),
            "num_points": self.num_points,
            "z_up": self.z_up,
        }
        clouds = cached(f"{self._root.name}-{split}", 1, key, lambda: self._sample([path for path, _ in files]))
        return clouds | {"label": np.array([label for _, label in files], dtype=np.int64)}

    def _sample(self, paths: list[Path]) -> dict[str, np.ndarray]:
        points = np.empty((len(paths), self.num_points, 3), dtype=np.float32)
        normals = np.empty_like(points)
        for index, path in enumerate(paths):
            seed = zlib.crc32(path.name.encode())
            cloud, normal = sample_surface(read_mesh(path), self.num_points, seed, path)
            points[index] = unit_sphere(y_up(cloud) if self.z_up else cloud)
            normals[index] = y_up(normal) if self.z_up else normal
        return {"points": points, "normals": normals}

    def _hdf5(self, split: str) -> dict[str, np.ndarray]:
        files = modelnet.read_list(data_root() / self.hdf5 / f"{split}_files.txt")
        shapes = [modelnet.read_h5(path, len(self.classes)) for path in files]
        points = np.concatenate([part.points for part in shapes])[:, : self.num_points]
        if points.shape[1] < self.num_points:
            raise DataError(f"{files[0]} has {points.shape[1]} points a shape; give num_points at most that")
        return {"points": points, "label": np.concatenate([part.labels for part in shapes])}

    def _resampled(self, split: str) -> dict[str, np.ndarray]:
        root = data_root() / self.resampled
        entries = modelnet.read_resampled_list(root / f"{self.resampled_list}_{split}.txt", self.classes)
        key = {"files": stamp((path for _, path in entries), root), "num_points": self.num_points}

        def convert() -> dict[str, np.ndarray]:
            clouds = [modelnet.read_resampled(path) for _, path in entries]
            short = [path for (_, path), (points, _) in zip(entries, clouds) if len(points) < self.num_points]
            if short:
                raise DataError(f"{short[0]} has fewer than {self.num_points} points; give a smaller num_points")
            points = np.stack([unit_sphere(points[: self.num_points]) for points, _ in clouds])
            return {"points": points, "normals": np.stack([normals[: self.num_points] for _, normals in clouds])}

        return cached(f"{root.name}-{split}", 1, key, convert) | {"label": np.array([label for label, _ in entries])}
