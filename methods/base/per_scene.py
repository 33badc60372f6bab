"""What methods that are optimised for one scene share: its posed images on the device, and the sampling of rays."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from adlbench.benchmark.api import Context, DataError, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.nn.rays import Rays, camera_to_world, rays_through


class PosedImages(NamedTuple):
    """All training views of a scene, on the method's device. uint8 images: 100 views of 800x800 are 192 MB."""

    images: Tensor  # uint8 [N, H, W, 3]
    intrinsics: Tensor  # [N, 3, 3], pixels
    world_to_camera: Tensor  # [N, 4, 4]
    camera_to_world: Tensor  # [N, 4, 4]

    def sample_rays(self, n: int, generator: torch.Generator, crop: float = 1.0) -> tuple[Rays, Tensor]:
        """``n`` pixels drawn uniformly from all views, with replacement: their rays and their colours [n, 3] in [0, 1].

        With ``crop`` below 1, only from the central part of that share of the height and the width.
        """
        views, height, width = self.images.shape[:3]
        device = self.images.device
        view = torch.randint(views, (n,), generator=generator, device=device)
        place = []
        for size in (height, width):
            extent = max(1, round(size * crop))
            place.append((size - extent) // 2 + torch.randint(extent, (n,), generator=generator, device=device))
        row, column = place
        pixels = torch.stack([column, row], dim=-1) + 0.5
        rays = rays_through(pixels, self.intrinsics[view], self.camera_to_world[view])
        return rays, self.images[view, row, column].float() / 255


class PerSceneMethod(Method):
    """A method that trains on the views of one scene. Random draws come from ``context.generator``, which is saved
    with the checkpoint, so that a resumed run draws what an uninterrupted one does."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.NOVEL_VIEW_SYNTHESIS})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.POSED_IMAGES})

    def skip(self, schema: DataSchema) -> str | None:
        missing = {"image", "intrinsics", "world_to_camera"} - set(schema.fields)
        if missing:
            return f"the views have no {', '.join(sorted(missing))}"
        if not 0 <= schema.near < schema.far:
            return f"the scene has no depth range: near {schema.near:g}, far {schema.far:g}"
        return None

    def posed_images(self, data: TrainingData, context: Context) -> PosedImages:
        """The training views, checked, on the device. Raises DataError for what no camera can be."""
        fields = data.train.all()
        images, intrinsics, pose = fields["image"], fields["intrinsics"].float(), fields["world_to_camera"].float()
        if len(images) == 0:
            raise DataError("the scene has no training views; novel view synthesis needs at least one")
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise DataError(
                f"posed images are {images.dtype} {tuple(images.shape)}; they must be uint8 [views, height, width, 3], "
                "composited on the background"
            )
        for name, values in (("intrinsics", intrinsics), ("world_to_camera", pose)):
            finite = torch.isfinite(values).flatten(1).all(1)
            if not finite.all():
                view = int((~finite).nonzero()[0, 0])
                raise DataError(f"{name} of training view {view} is NaN or infinite; mend or leave out this view")
        device = context.device
        inverse = camera_to_world(pose)
        return PosedImages(images.to(device), intrinsics.to(device), pose.to(device), inverse.to(device))
