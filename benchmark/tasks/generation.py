"""Protocol ``generation-fd@1``: new images against real test images, as many as there are of those.

Distances between the two sets are computed on the features of a named extractor; ``fd`` is only called FID where that is
the original Inception. Models with a likelihood are also scored by it, on grey test images that are binarised once, by a
fixed seed, so that every model and every seed sees the same ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, cast, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adlbench.benchmark.api import (
    AdlbenchError,
    Batch,
    DataError,
    DataSchema,
    Modality,
    Predictor,
    Samples,
    ScoresLikelihood,
    TaskKind,
)
from adlbench.benchmark.metrics.distribution import MIN_IMAGES, neighbour_ratio, score_distributions
from adlbench.benchmark.metrics.extractors import Extractor, load_extractor
from adlbench.benchmark.metrics.image import quantize
from adlbench.benchmark.tasks.base import Evaluation, EvaluationContext, EvaluationData, Evaluator, Exhibit
from adlbench.benchmark.tasks.class_pictures import enlarge
from adlbench.benchmark.tasks.image_reconstruction import as_rgb

SHOWN_SAMPLES = 64  # in the report
FIXED_SEED = 0  # of what has to be the same for every model and seed: the binarisation, subsets of the test images


@runtime_checkable
class Interpolates(Protocol):
    def interpolate(self, seed: int, steps: int) -> Tensor:
        """[steps, C, H, W] in [0, 1] along a path between two random latent codes."""


@runtime_checkable
class BoundsLikelihood(Protocol):
    def elbo(self, inputs: Batch) -> Tensor:
        """[B] nats: the evidence lower bound, which is looser than ``log_likelihood``."""


@dataclass(frozen=True, kw_only=True)
class ImageGeneration(Evaluator):
    """The predictor makes images from seeds. It is shown nothing, but for binarised test images when it scores them."""

    kind: ClassVar[TaskKind] = TaskKind.GENERATION
    modalities: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})
    requires: ClassVar[frozenset[str]] = frozenset({"image"})
    offers: ClassVar[tuple[type, ...]] = (Samples,)
    metrics: ClassVar[Mapping[str, str]] = {
        "fd": "Fréchet distance between the extractor's features of n generated and n real test images",
        "fd_over_floor": "fd over the Fréchet distance between two random halves of the real images",
        "kid": "kernel distance on the same features, unbiased, mean over 100 subsets of at most n / 4 images",
        "classifier_score": "exp of the mean divergence of the extractor's class probabilities from their mean",
        "precision": "share of generated images in the real manifold (k = 3)",
        "recall": "share of real images in the generated manifold (k = 3)",
        "density": "real neighbourhoods (k = 5) around a generated image, over k",
        "coverage": "share of real images with a generated one in their neighbourhood (k = 5)",
        "nll": "nats an image, an upper bound where the model gives a lower bound of log p; dynamically binarised images",
        "neighbour_ratio": "median distance of generated images to their nearest training image, over that of real ones",
    }

    # by the images' channels x height x width
    extractor: Mapping[str, str] = field(
        default_factory=lambda: {"1x8x8": "digits", "1x28x28": "lenet", "3x32x32": "resnet20"}
    )
    max_images: int | None = None  # real images to compare with, a fixed random subset; None: all
    likelihood_images: int | None = None  # of those, the first so many of a fixed random order; None: all
    memorisation_images: int = 1000  # generated ones (and real ones) whose nearest training image is looked up
    stored_images: int = 256  # generated ones that are kept with the record
    batch_size: int = 500  # images per call of the predictor

    def evaluate(self, predictor: Predictor, data: EvaluationData, context: EvaluationContext) -> Evaluation:
        indices = self.real_indices(data, context)
        real = data.test.batch(indices)["image"]
        progress = Stages(context.progress, samples=0.4, distances=0.2, likelihood=0.35, memorisation=0.05)
        generated = self.generate(cast(Samples, predictor), data.schema, len(real), context, progress)
        result = Evaluation(
            predictions={"image": generated[: self.stored_images].numpy()},
            notes={"num_generated": len(generated), "num_real": len(real), "real_split": "test", "seed": context.seed},
        )
        self.score_distances(result, generated, real, data.schema, context)
        progress("distances", 1.0)
        self.score_likelihood(result, predictor, real, data.schema, context, progress)
        self.score_memorisation(result, generated, real, data, context)
        self.draw(result, predictor, generated, context)
        progress("memorisation", 1.0)
        return result

    def inference(
        self, predictor: Predictor, data: EvaluationData, context: EvaluationContext, batch_size: int
    ) -> tuple[Callable[[], object], int]:
        frozen = cast(Samples, predictor)

        def call() -> object:
            with torch.no_grad():
                return frozen.sample(batch_size, context.seed)

        return call, batch_size

    # ---------------------------------------------------------------------------------------------------------- parts
    def real_indices(self, data: EvaluationData, context: EvaluationContext) -> NDArray[np.int64]:
        """Which test images are compared with: the first ``max_items``, of those a random subset where it is capped."""
        count = min(len(data.test), context.max_items or len(data.test))
        if count == 0:
            raise AdlbenchError("the test split has no images to compare with; give it at least one")
        order = np.random.default_rng(FIXED_SEED).permutation(count)
        return np.sort(order[: self.max_images or count])

    def generate(
        self, predictor: Samples, schema: DataSchema, count: int, context: EvaluationContext, progress: Stages
    ) -> Tensor:
        """uint8 [n, C, H, W] on the CPU."""
        shape = (schema.channels, *schema.image_size)
        stored: list[Tensor] = []
        for start in range(0, count, self.batch_size):
            number = min(self.batch_size, count - start)
            with torch.no_grad():
                image = predictor.sample(number, context.seed + start)
            if tuple(image.shape) != (number, *shape):
                raise AdlbenchError(f"sample({number}, seed) gave images {list(image.shape)}, not {[number, *shape]}")
            stored.append(quantize(image).cpu())
            progress("samples", (start + number) / count)
        return torch.cat(stored)

    def choose_extractor(self, schema: DataSchema) -> Extractor:
        size = "x".join(map(str, (schema.channels, *schema.image_size)))
        if size not in self.extractor:
            raise DataError(
                f"no feature extractor is named for images of {size}; add it to the task's options, "
                f"extractor: {{{size}: NAME}} (named are {', '.join(self.extractor) or 'none'})"
            )
        return load_extractor(self.extractor[size], schema.channels, schema.image_size)

    def score_distances(
        self, result: Evaluation, generated: Tensor, real: Tensor, schema: DataSchema, context: EvaluationContext
    ) -> None:
        names = [name for name in self.metrics if name not in ("nll", "neighbour_ratio")]
        if len(real) < MIN_IMAGES:
            result.absent.update(dict.fromkeys(names, f"needs at least {MIN_IMAGES} test images, not {len(real)}"))
            return
        try:
            extractor = self.choose_extractor(schema)
        except DataError as error:  # no value is better than one from other features
            result.absent.update(dict.fromkeys(names, str(error)))
            return
        scores = score_distributions(extractor, generated, real, context.device)
        result.values.update(scores.values)
        result.notes.update(scores.notes)

    def score_likelihood(
        self,
        result: Evaluation,
        predictor: Predictor,
        real: Tensor,
        schema: DataSchema,
        context: EvaluationContext,
        progress: Stages,
    ) -> None:
        if not isinstance(predictor, ScoresLikelihood):
            result.absent["nll"] = "the model has no likelihood on binarised images"
            return
        if schema.channels != 1:
            result.absent["nll"] = f"binarisation is defined for grey images; these have {schema.channels} channels"
            return
        order = np.random.default_rng(FIXED_SEED).permutation(len(real))
        chosen = np.sort(order[: self.likelihood_images or len(real)])
        binary = binarise(real)[torch.from_numpy(chosen)]
        nll: list[Tensor] = []
        elbo: list[Tensor] = []
        for part in binary.split(100):
            inputs = {"image": part.to(context.device)}
            with torch.no_grad():
                nll.append(-predictor.log_likelihood(inputs).double().cpu())
                if isinstance(predictor, BoundsLikelihood):
                    elbo.append(predictor.elbo(inputs).double().cpu())
            progress("likelihood", len(nll) * 100 / len(binary))
        result.items["nll"] = torch.cat(nll).numpy()
        result.values["nll"] = float(result.items["nll"].mean())
        result.notes["nll_images"] = len(binary)
        result.notes["nll_binarisation"] = f"dynamic, fixed seed {FIXED_SEED}"
        if elbo:
            result.notes["negative_elbo"] = -float(torch.cat(elbo).mean())

    def score_memorisation(
        self, result: Evaluation, generated: Tensor, real: Tensor, data: EvaluationData, context: EvaluationContext
    ) -> None:
        count = self.memorisation_images
        order = torch.from_numpy(np.random.default_rng(FIXED_SEED).permutation(len(real)))
        train = data.train.all()["image"]
        ratio, index = neighbour_ratio(generated[:count], real[order[:count]], train, context.device)
        result.values["neighbour_ratio"] = ratio
        result.notes["neighbour_ratio_images"] = min(count, len(real))
        result.images["samples above, nearest training images below"] = sheet(
            torch.cat([generated[:10], train[index[:10]]]), columns=min(10, len(index))
        )
        shown = min(SHOWN_SAMPLES, len(index))
        pair = {"image": as_rgb(generated[:shown]), "nearest": as_rgb(train[index[:shown]])}
        result.exhibits["samples"] = Exhibit("samples", pair)

    def draw(self, result: Evaluation, predictor: Predictor, generated: Tensor, context: EvaluationContext) -> None:
        result.images["samples"] = sheet(generated[:64], columns=8)
        if isinstance(predictor, Interpolates):
            with torch.no_grad():
                rows = [quantize(predictor.interpolate(context.seed + row, 10)).cpu() for row in range(4)]
            result.images["interpolation between latent codes"] = sheet(torch.cat(rows), columns=10)
            paths = np.stack([as_rgb(row) for row in rows])
            result.exhibits["interpolation between latent codes"] = Exhibit("strip", {"image": paths})


class Stages:
    """One progress from those of several stages, in their order."""

    def __init__(self, report: Callable[[float], None], **shares: float):
        self.report, self.shares = report, shares

    def __call__(self, stage: str, done: float) -> None:
        before = list(self.shares)[: list(self.shares).index(stage)]
        self.report(min(1.0, sum(self.shares[name] for name in before) + self.shares[stage] * min(done, 1.0)))


def binarise(image: Tensor, seed: int = FIXED_SEED) -> Tensor:
    """uint8 grey images as 0 or 255, 255 with the grey value over 255 as the probability."""
    draws = torch.rand(image.shape, generator=torch.Generator().manual_seed(seed))
    return (draws < image.float() / 255).to(torch.uint8) * 255


def sheet(image: Tensor, columns: int, side: int = 56) -> NDArray[np.uint8]:
    """uint8 [H, W, 3]: images uint8 [N, C, H, W] in rows of ``columns``, enlarged by whole factors, thin lines between."""
    pictures: list[Any] = []
    for item in image:
        rgb = item.expand(3, -1, -1) if len(item) == 1 else item[:3]
        pictures.append(
            np.pad(enlarge(rgb.permute(1, 2, 0).numpy(), side), ((0, 2), (0, 2), (0, 0)), constant_values=60)
        )
    blank = np.full_like(pictures[0], 60)
    pictures += [blank] * (-len(pictures) % columns)
    rows = [np.concatenate(pictures[start : start + columns], axis=1) for start in range(0, len(pictures), columns)]
    return np.concatenate(rows)
