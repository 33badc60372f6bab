"""NeRF-synthetic, the "Blender" scenes of Mildenhall et al. 2020: 100 training and 200 test views around one object."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from adlbench.benchmark.api import ArraySplit, DataError, DataSchema, Dataset, Modality, data_root
from adlbench.datasets.formats import blender

SCENES = ("chair", "drums", "ficus", "hotdog", "lego", "materials", "mic", "ship")
WHITE = (1.0, 1.0, 1.0)


@dataclass(frozen=True)
class NerfSynthetic(Dataset):
    """Instances are the scenes found below ``folder``; items are views, composited on white.

    The test split is ``transforms_test.json`` as it is there, the validation split is not used.
    """

    folder: str = "nerf_synthetic"  # below the data root
    downscale: int = 1  # each pixel is the mean of downscale x downscale pixels of the file

    def instances(self) -> tuple[str, ...]:
        found = sorted(path.parent.name for path in self._folder.glob("*/transforms_train.json"))
        return tuple(found) or SCENES

    def missing(self) -> str | None:
        if any(self._folder.glob("*/transforms_train.json")):
            return None
        return f"put the scenes (lego/transforms_train.json, lego/train/r_0.png, ...) into {self._folder}"

    def sources(self) -> tuple[Path, ...]:
        frames = (self._frames(scene, split) for scene in self.instances() for split in ("train", "test"))
        return tuple(sorted(self._folder.glob("*/transforms_t*.json"))) + tuple(
            path for part in frames for path in part.images
        )

    def schema(self, instance: str = "all") -> DataSchema:
        train, test = self._frames(instance, "train"), self._frames(instance, "test")
        return DataSchema(
            modality=Modality.POSED_IMAGES,
            fields=("image", "intrinsics", "world_to_camera"),
            num_train=len(train),
            num_test=len(test),
            channels=3,
            image_size=blender.image_size(train, self.downscale),
            background=WHITE,
            near=2.0,
            far=6.0,
            scene_radius=1.5,  # the eight objects lie within; the cameras stand about 4 away
        )

    def load(self, instance: str, split: str) -> ArraySplit:
        return ArraySplit(**blender.read_views(self._frames(instance, split), self.downscale, WHITE))

    @property
    def _folder(self) -> Path:
        return data_root() / self.folder

    def _frames(self, instance: str, split: str) -> blender.Frames:
        if not (self._folder / instance).is_dir():
            found = self.instances()
            near = difflib.get_close_matches(instance, found, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise DataError(f"there is no scene {instance!r} in {self._folder}; {hint}found: {', '.join(found)}")
        frames = blender.read_frames(self._folder / instance / f"transforms_{split}.json")
        if split == "train" and len(frames) < 2:
            raise DataError(
                f"scene {instance!r} in {self._folder} has {len(frames)} training view; "
                "novel view synthesis needs at least two: add frames to transforms_train.json"
            )
        return frames
