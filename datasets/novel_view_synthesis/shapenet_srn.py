"""Cars and chairs of ShapeNet as Scene Representation Networks render them (Sitzmann et al. 2019): scenes for few-view methods."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from adlbench.benchmark.api import DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.files import FileSplit
from adlbench.datasets.formats.files import AGAIN
from adlbench.datasets.formats.srn import read_views


@dataclass
class ShapeNetSRN(Dataset):
    """Instances are categories, items are objects: all their views (50 to train on, 251 to test on) on white, 128x128 pixels."""

    folder: str = "shapenet_srn"
    categories: tuple[str, ...] = ("cars", "chairs")

    def instances(self) -> tuple[str, ...]:
        return tuple(name for name in self.categories if self._objects(name, "train")) or self.categories

    def missing(self) -> str | None:
        if any(self._objects(name, "train") and self._objects(name, "test") for name in self.categories):
            return None
        return f"unpack srn_cars.zip (cars_train/, cars_val/, cars_test/) or srn_chairs.zip into {self._root}"

    def schema(self, instance: str = "cars") -> DataSchema:
        train, test = self._objects(instance, "train"), self._objects(instance, "test")
        if not train or not test:
            raise DataError(
                self.missing() or f"{self._root} has no {instance}_train and {instance}_test; put them there"
            )
        return DataSchema(
            modality=Modality.SCENE_COLLECTION,
            fields=("image", "intrinsics", "world_to_camera"),
            num_train=len(train),
            num_test=len(test),
            channels=3,
            image_size=read_views(train[0]).size,
            background=(1.0, 1.0, 1.0),
            near=0.8 if instance == "cars" else 1.25,  # as PixelNeRF (Yu et al. 2021) has them
            far=1.8 if instance == "cars" else 2.75,
            scene_radius=0.5,
        )

    def load(self, instance: str, split: str) -> FileSplit:
        objects = self._objects(instance, split)
        if not objects:
            raise DataError(self.missing() or f"{self._root}/{instance}_{split} has no objects; put them there")
        files = [path for folder in objects for path in (folder / "intrinsics.txt", *sorted(folder.glob("*/*")))]
        return FileSplit(len(objects), lambda index: self._item(objects[index]), files, self._root, "views")

    @property
    def _root(self) -> Path:
        return data_root() / self.folder

    def _objects(self, category: str, split: str) -> list[Path]:
        return sorted(path.parent for path in (self._root / f"{category}_{split}").glob("*/intrinsics.txt"))

    def _item(self, folder: Path) -> dict[str, np.ndarray]:
        views = read_views(folder)
        images = np.empty((len(views.images), *views.size, 3), dtype=np.uint8)
        for index, path in enumerate(views.images):
            try:
                with Image.open(path) as picture:
                    rgba = np.asarray(picture.convert("RGBA")).astype(np.float32)
            except Exception as error:  # Pillow lets through what its decoders raise on damaged bytes
                raise DataError(f"{path} cannot be decoded ({type(error).__name__}: {error}); {AGAIN}") from None
            if rgba.shape[:2] != views.size:
                raise DataError(
                    f"{path} is {rgba.shape[1]}x{rgba.shape[0]}, not {views.size[1]}x{views.size[0]}; {AGAIN}"
                )
            alpha = rgba[..., 3:] / 255
            images[index] = np.round(rgba[..., :3] * alpha + 255 * (1 - alpha))
        return {
            "image": images,
            "intrinsics": np.repeat(views.intrinsics[None].astype(np.float32), len(images), axis=0),
            "world_to_camera": views.world_to_camera.astype(np.float32),
        }
