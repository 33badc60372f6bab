"""What is looked at after the evaluation, for classifiers that are a network: embeddings, occlusion, deconvolution, attention.

A predictor takes part when it offers ``logits`` and its module as ``net``; nothing here can change a number of the record.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from adlbench.benchmark.analysis.attention import attention_layers, attention_weights, patch_map, rollout
from adlbench.benchmark.analysis.deconvolution import deconvolution, has_relu
from adlbench.benchmark.analysis.embedding import penultimate, tsne
from adlbench.benchmark.analysis.occlusion import occlusion_sensitivity
from adlbench.benchmark.api import Batch, Modality, Predictor
from adlbench.benchmark.tasks.base import EvaluationContext, EvaluationData, Exhibit
from adlbench.benchmark.tasks.view_pictures import colour_map

EMBEDDED = 300  # test items in the plane: enough to see clusters, two seconds of t-SNE
THUMBNAIL = 32  # pixels, the largest images that are kept beside their points
MAPPED = 8  # test items with maps


@runtime_checkable
class NetworkPredictor(Protocol):
    net: nn.Module

    def logits(self, inputs: Batch) -> Tensor: ...


def analyse(predictor: Predictor, data: EvaluationData, context: EvaluationContext) -> dict[str, Exhibit]:
    """Exhibits by title; none for predictors that are not a network, and for tasks without one label for each item."""
    if not isinstance(predictor, NetworkPredictor) or not isinstance(predictor.net, nn.Module):
        return {}
    if "label" not in data.schema.fields or "point_label" in data.schema.fields or not data.schema.classes:
        return {}
    count = min(len(data.test), context.max_items or len(data.test))
    found: dict[str, Exhibit] = {}
    state = torch.get_rng_state()
    try:
        embedding = _embedding(predictor, data, context, count)
        if embedding is not None:
            found["embedding (t-SNE)"] = embedding
        if data.schema.modality == Modality.IMAGE:
            found["what the network looks at"] = _maps(predictor, data, context, count)
    finally:
        torch.set_rng_state(state)
    return found


def _inputs(data: EvaluationData, indices: NDArray[np.int64], context: EvaluationContext) -> dict[str, Tensor]:
    batch = data.test.batch(indices)
    return {name: batch[name].to(context.device) for name in ("image", "points", "normals", "label") if name in batch}


def _spread(count: int, wanted: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).astype(np.int64))


def _embedding(
    predictor: NetworkPredictor, data: EvaluationData, context: EvaluationContext, count: int
) -> Exhibit | None:
    chosen = _spread(count, EMBEDDED)
    if len(chosen) < 10:
        return None
    features, logits, truth = [], [], []
    for start in range(0, len(chosen), 100):
        inputs = _inputs(data, chosen[start : start + 100], context)
        truth.append(inputs.pop("label").cpu())
        part = penultimate(predictor.net, lambda shown=inputs: logits.append(predictor.logits(shown).cpu()))  # type: ignore[misc]
        if part is None or len(part) != len(truth[-1]):
            return None
        features.append(part)
    arrays: dict[str, NDArray[Any]] = {
        "xy": tsne(torch.cat(features).numpy()),
        "truth": torch.cat(truth).numpy().astype(np.int32),
        "prediction": torch.cat(logits).argmax(1).numpy().astype(np.int32),
    }
    if data.schema.modality == Modality.IMAGE and max(data.schema.image_size) <= THUMBNAIL:
        arrays["image"] = _rgb(data.test.batch(chosen)["image"])
    return Exhibit("embedding", arrays, {"labels": list(data.schema.classes), "features": features[0].shape[1]})


def _maps(predictor: NetworkPredictor, data: EvaluationData, context: EvaluationContext, count: int) -> Exhibit:
    chosen = _spread(count, MAPPED)
    inputs = _inputs(data, chosen, context)
    image, truth = inputs["image"], inputs["label"].cpu()
    with torch.no_grad():
        target = predictor.logits({"image": image}).argmax(1).cpu()
    height, width = image.shape[-2:]
    window = max(2, round(min(height, width) / 6))
    sensitivity = occlusion_sensitivity(
        lambda shown: predictor.logits({"image": shown}).cpu(), image, target, window=window, stride=max(1, window // 2)
    )
    arrays = {"image": _rgb(image.cpu()), "occlusion": _diverging(sensitivity.numpy())}
    if has_relu(predictor.net):
        arrays["deconvolution"] = _grey(deconvolution(predictor.net, _feed(predictor, image), target.to(image.device)))
    if attention_layers(predictor.net):
        weights = attention_weights(predictor.net, lambda: predictor.logits({"image": image}))
        patches = patch_map(rollout(weights), height, width) if weights else None
        if patches is not None:
            large = functional.interpolate(patches[:, None], (height, width), mode="nearest")[:, 0]
            arrays["attention"] = colour_map((large / large.flatten(1).amax(1)[:, None, None]).cpu().numpy())
    classes = data.schema.classes
    captions = [f"{classes[t]}, taken for {classes[p]}" if t != p else classes[t] for t, p in zip(truth, target)]
    return Exhibit("maps", arrays, {"captions": captions, "window": window})


def _feed(predictor: NetworkPredictor, image: Tensor) -> Callable[[nn.Module], Tensor]:
    """Feeds a network that stands in for the predictor's as the predictor feeds its own."""

    def logits(net: nn.Module) -> Tensor:
        own = predictor.net
        predictor.net = net
        try:
            return predictor.logits({"image": image})
        finally:
            predictor.net = own

    return logits


def _rgb(image: Tensor) -> NDArray[np.uint8]:
    rgb = image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image[:, :3]
    return rgb.permute(0, 2, 3, 1).contiguous().numpy()


def _diverging(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    """[N, H, W] -> orange where covering hurts the class, blue where it helps, white at zero; each map by its own largest."""
    scale = np.abs(values).max(axis=(1, 2), keepdims=True)
    share = (values / np.maximum(scale, 1e-12))[..., None]
    orange, blue = np.array([213.0, 94.0, 0.0]), np.array([0.0, 114.0, 178.0])
    colour = np.where(share > 0, orange, blue)
    return np.round(255 + np.abs(share) * (colour - 255)).astype(np.uint8)


def _grey(values: Tensor) -> NDArray[np.uint8]:
    """[N, C, H, W] -> the magnitude over channels, white at each map's largest."""
    size = values.float().abs().amax(1).cpu().numpy()
    share = size / np.maximum(size.max(axis=(1, 2), keepdims=True), 1e-12)
    return np.repeat(np.round(255 * share)[..., None], 3, axis=3).astype(np.uint8)
