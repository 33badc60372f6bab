"""Protocol ``nvs-rgb8@1``: the test cameras of a scene are rendered and compared with what stood before them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor

from adlbench.benchmark.api import AdlbenchError, Cameras, Modality, Predictor, Rendering, Renders, Split, TaskKind
from adlbench.benchmark.metrics.image import WINDOW, psnr, quantize, ssim
from adlbench.benchmark.metrics.perceptual import LPIPS, LPIPSUnavailable
from adlbench.benchmark.tasks.base import Evaluation, EvaluationContext, EvaluationData, Evaluator, Exhibit
from adlbench.benchmark.tasks.view_pictures import Picture, depth_picture, error_picture, view_row


@dataclass(frozen=True, kw_only=True)
class NovelViewSynthesis(Evaluator):
    """Pictures are scored as uint8, on the scene's background, view by view; a value is the mean over views.

    Depth is scored where the test split knows it, on the pixels that show a surface.
    """

    kind: ClassVar[TaskKind] = TaskKind.NOVEL_VIEW_SYNTHESIS
    modalities: ClassVar[frozenset[Modality]] = frozenset({Modality.POSED_IMAGES})
    requires: ClassVar[frozenset[str]] = frozenset({"image", "intrinsics", "world_to_camera"})
    offers: ClassVar[tuple[type, ...]] = (Renders,)
    metrics: ClassVar[Mapping[str, str]] = {
        "psnr": "dB, of each view from its mean squared error over pixels and channels, then the mean over views",
        "ssim": "gaussian 11x11, sigma 1.5, valid region, of each view, then the mean; absent below 11 pixels",
        "lpips": "v0.1 with the net named in the notes, of each view, then the mean; absent without the net's weights",
        "depth_abs_rel": "mean of |d - d*| / d* over the pixels of a view that show a surface, then the mean over views",
        "depth_rmse": "root mean squared error of z-depth over the same pixels of a view, then the mean over views",
    }

    lpips_net: str = "vgg"  # alex, vgg or squeeze; their values are different metrics
    pictures: int = 4  # views to draw

    def evaluate(self, predictor: Predictor, data: EvaluationData, context: EvaluationContext) -> Evaluation:
        count = min(len(data.test), context.max_items or len(data.test))
        if count == 0:
            raise AdlbenchError("the test split has no views to score; give it at least one")
        result = Evaluation(notes={"num_items": count})
        perceptual = self._lpips(data, context, result)
        chosen = set(np.unique(np.linspace(0, count - 1, min(self.pictures, count)).astype(int)).tolist())
        items: dict[str, list[float]] = {}
        stored: list[Tensor] = []
        rows: list[Picture] = []
        shown: dict[str, list[Picture]] = {"truth": [], "prediction": [], "error": [], "depth": []}
        for index in range(count):
            truth = data.test.batch([index])
            rendering = _render(predictor, truth, context.device)
            image = quantize(rendering.rgb.cpu())  # [1, H, W, 3]
            stored.append(image)
            for name, value in self._scores(image, rendering, truth, perceptual, context.device).items():
                items.setdefault(name, []).append(value)
            if index in chosen:
                extras = rendering.extras or {}
                variance = extras["depth_variance"][0] if "depth_variance" in extras else None
                deviation = None if variance is None else variance.float().cpu().sqrt().numpy()
                true, seen = truth["image"][0].numpy(), image[0].numpy()
                depth, opacity = (x[0].float().cpu().numpy() for x in (rendering.depth, rendering.opacity))
                bounds = data.schema.near, data.schema.far
                rows.append(view_row(true, seen, depth, opacity, deviation, bounds))
                panels = (true, seen, error_picture(true, seen), depth_picture(depth, opacity, bounds))
                for name, panel in zip(shown, panels):
                    shown[name].append(panel)
            context.progress((index + 1) / count)
        result.items = {name: np.array(values) for name, values in items.items()}
        for name, values in result.items.items():
            if np.isnan(values).all():
                result.absent[name] = "no test view shows a surface"
            else:
                result.values[name] = float(np.nanmean(values))
        if "depth" not in data.schema.fields:
            result.absent |= dict.fromkeys(("depth_abs_rel", "depth_rmse"), "the dataset does not know the depth")
        if min(data.schema.image_size) < WINDOW:
            height, width = data.schema.image_size
            result.absent["ssim"] = f"its window of {WINDOW} pixels does not fit into {height}x{width}"
        result.predictions["image"] = torch.cat(stored).numpy()
        result.images["truth, rendering, error, depth, deviation of depth"] = np.concatenate(rows)
        result.exhibits["views"] = Exhibit("views", {name: np.stack(panels) for name, panels in shown.items()})
        return result

    def _lpips(self, data: EvaluationData, context: EvaluationContext, result: Evaluation) -> LPIPS | None:
        try:
            model = LPIPS(self.lpips_net).to(context.device)
            model.check_size(*data.schema.image_size)
        except LPIPSUnavailable as reason:
            result.absent["lpips"] = str(reason)
            return None
        result.notes["lpips_net"] = self.lpips_net
        return model

    def _scores(
        self,
        image: Tensor,
        rendering: Rendering,
        truth: Mapping[str, Tensor],
        perceptual: LPIPS | None,
        device: torch.device,
    ) -> dict[str, float]:
        """Of one view. uint8 [1, H, W, 3] against the fields of its item."""
        pair = [x.permute(0, 3, 1, 2) for x in (image, truth["image"])]  # [1, 3, H, W]
        scores = {"psnr": psnr(*pair).item()}
        if min(pair[0].shape[-2:]) >= WINDOW:
            scores["ssim"] = ssim(*pair).item()
        if perceptual is not None:
            with torch.no_grad():
                scores["lpips"] = perceptual(*(x.to(device) for x in pair)).item()
        if "depth" in truth:
            depth, target = rendering.depth.double().cpu(), truth["depth"].double()
            if not torch.isfinite(depth).all():
                raise AdlbenchError("a rendered depth is NaN or infinite; give 0 where a ray meets nothing")
            surface = target > 0
            error, target = (depth - target)[surface], target[surface]
            scores["depth_abs_rel"] = (error.abs() / target).mean().item()  # NaN where no pixel shows a surface
            scores["depth_rmse"] = error.square().mean().sqrt().item()
        return scores

    def inference(
        self, predictor: Predictor, data: EvaluationData, context: EvaluationContext, batch_size: int
    ) -> tuple[Callable[[], object], int]:
        """``batch_size`` views; the samples are their rays."""
        indices = np.arange(batch_size) % len(data.test)  # a batch larger than the set repeats it
        cameras = _cameras(data.test, indices, context.device)
        frozen = cast(Renders, predictor)

        def call() -> object:
            with torch.no_grad():
                return frozen.render(cameras)

        return call, batch_size * cameras.width * cameras.height


def _cameras(split: Split, indices: np.ndarray, device: torch.device) -> Cameras:
    items = split.batch(indices)
    height, width = items["image"].shape[1:3]
    return Cameras(items["world_to_camera"].to(device), items["intrinsics"].to(device), width, height)


def _render(predictor: Predictor, truth: Mapping[str, Tensor], device: torch.device) -> Rendering:
    """One view, checked for shape. ``truth`` is a batch of one item."""
    height, width = truth["image"].shape[1:3]
    cameras = Cameras(truth["world_to_camera"].to(device), truth["intrinsics"].to(device), width, height)
    with torch.no_grad():
        rendering = cast(Renders, predictor).render(cameras)
    expected = {"rgb": (1, height, width, 3), "depth": (1, height, width), "opacity": (1, height, width)}
    for name, shape in expected.items():
        if tuple(getattr(rendering, name).shape) != shape:
            raise AdlbenchError(f"{name} was rendered as {tuple(getattr(rendering, name).shape)}, not as {shape}")
    return rendering
