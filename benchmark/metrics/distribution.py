"""Distances between a set of generated and a set of real images, computed by torch-fidelity on registered extractors.

Conventions that move the numbers, and what is done here:

* Sets are of one size, n_generated = n_real = n; a Fréchet distance falls with n even between equal distributions. Its
  *floor*, the distance between two random halves of the real set, says how much of a value is that bias.
* Images are quantised to uint8 before anything looks at them; preprocessing belongs to the extractor.
* The kernel distance (KID) has no first-order bias. Its subsets hold at most n / 4 images: at n all would be the same.
* The classifier score is the Inception Score's formula on another classifier's logits.
* Precision and recall follow Kynkäänniemi et al. 2019 (k = 3), density and coverage Naeem et al. 2020 (k = 5).

torch-fidelity's own cache is never used: its keys hold neither weights nor data, so that changed weights would return
the distances of the old ones. Features are computed once for every call and passed on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adlbench.benchmark.api import DataError
from adlbench.benchmark.metrics.extractors import EXTRACTORS, Extractor

FEATURES, LOGITS = "features", "logits"
MIN_IMAGES = 8  # below that, subsets and neighbourhoods do not exist
FLOOR_SPLITS = 20
KID_SUBSETS = 100
NEIGHBOURS_PRECISION = 3
NEIGHBOURS_COVERAGE = 5
SPLITS_FROM = 5000  # images from which the classifier score is averaged over ten splits, as the Inception Score is


@dataclass(frozen=True)
class Features:
    """What an extractor sees in n images, on the CPU."""

    features: Tensor  # [n, D] float32
    logits: Tensor  # [n, K] float32

    def __len__(self) -> int:
        return len(self.features)


def register(extractor: Extractor) -> str:
    """Make the extractor known to torch-fidelity and return the name it has there.

    The name holds the hash of the weights, so that neither its registry nor its cache can confuse two versions.
    """
    from torch_fidelity import FeatureExtractorBase, register_feature_extractor
    from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY

    class Registered(FeatureExtractorBase):  # type: ignore[misc]
        def __init__(self, name: str, features_list: list[str], **kwargs: Any):
            super().__init__(name, features_list)
            self.net = extractor.net

        @staticmethod
        def get_provided_features_list() -> tuple[str, ...]:
            return FEATURES, LOGITS

        @staticmethod
        def get_default_feature_layer_for_metric(metric: str) -> str:
            return {"isc": LOGITS, "fid": FEATURES, "kid": FEATURES, "prc": FEATURES}[metric]

        @staticmethod
        def can_be_compiled() -> bool:
            return False

        def forward(self, image: Tensor) -> tuple[Tensor, ...]:
            features, logits = self.net(image)
            found = {FEATURES: features.float(), LOGITS: logits.float()}
            return tuple(found[name] for name in self.features_list)

    if extractor.identifier not in FEATURE_EXTRACTORS_REGISTRY:  # registering a name twice is an error there
        register_feature_extractor(extractor.identifier, Registered)
    return extractor.identifier


def extract(extractor: Extractor, image: Tensor, device: torch.device | str = "cpu", batch_size: int = 250) -> Features:
    """Features and logits of uint8 images [n, C, H, W]."""
    from torch_fidelity.utils import create_feature_extractor, get_featuresdict_from_dataset

    if image.dtype != torch.uint8 or image.ndim != 4:
        raise DataError(
            f"features are of uint8 images [n, C, H, W], not {image.dtype} {list(image.shape)}; quantise first"
        )
    cuda = torch.device(device).type == "cuda"
    net = create_feature_extractor(register(extractor), [FEATURES, LOGITS], cuda=cuda, verbose=False).to(device)
    with torch.random.fork_rng(devices=[]):  # its DataLoader draws a seed from the global generator
        found = get_featuresdict_from_dataset(
            _Images(image.cpu()), net, batch_size, cuda, save_cpu_ram=True, verbose=False
        )
    return Features(found[FEATURES], found[LOGITS])


class _Images(torch.utils.data.Dataset[Tensor]):
    def __init__(self, image: Tensor):
        self.image = image

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> Tensor:
        return self.image[index]


# ------------------------------------------------------------------------------------------------------------ distances
def frechet_distance(generated: Tensor, real: Tensor) -> float:
    """|m1 - m2|² + Tr(C1 + C2 - 2 (C1 C2)^½) of features [n, D] each (Heusel et al. 2017)."""
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(features.double()) for features in (generated, real)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def frechet_floor(real: Tensor, splits: int = FLOOR_SPLITS, seed: int = 0) -> float:
    """The Fréchet distance between two random halves of ``real`` [n, D], mean over ``splits`` ways to halve it.

    One way alone is noisy: on MNIST's test images five of them range from 1.0 to 1.8.
    """
    generator = torch.Generator().manual_seed(seed)
    half = len(real) // 2
    orders = [torch.randperm(len(real), generator=generator) for _ in range(splits)]
    return float(np.mean([frechet_distance(real[order[:half]], real[order[half : 2 * half]]) for order in orders]))


def kernel_distance(generated: Tensor, real: Tensor, seed: int = 0) -> tuple[float, float, int]:
    """KID (Bińkowski et al. 2018): mean and standard deviation over subsets, and their size. May be negative."""
    from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

    size = min(1000, len(generated) // 4, len(real) // 4)
    found = kid_features_to_metric(
        generated.double(),
        real.double(),
        kid_subsets=KID_SUBSETS,
        kid_subset_size=size,
        rng_seed=seed,
        verbose=False,
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD], size


def classifier_score(logits: Tensor) -> tuple[float, float, int]:
    """exp E KL(p(y|x) || p(y)) (Salimans et al. 2016): mean and deviation over splits, and how many there were.

    Between 1 and the number of classes. It falls with the number of splits, so few images stay in one.
    """
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    splits = 10 if len(logits) >= SPLITS_FROM else 1
    found = isc_features_to_metric(logits, splits=splits, shuffle=True)
    return found[KEY_METRIC_ISC_MEAN], found[KEY_METRIC_ISC_STD], splits


def precision_recall(generated: Tensor, real: Tensor) -> tuple[float, float]:
    """Share of generated images within the real manifold, and of real images within the generated one."""
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    found = prc_features_to_metric(
        generated,  # first the generated ones; they were swapped before torch-fidelity 0.4.0
        real,
        prc_neighborhood=NEIGHBOURS_PRECISION,
        prc_batch_size=1000,
        save_cpu_ram=True,
        verbose=False,
    )
    return found[KEY_METRIC_PRECISION], found[KEY_METRIC_RECALL]


def density_coverage(generated: Tensor, real: Tensor, neighbours: int = NEIGHBOURS_COVERAGE) -> tuple[float, float]:
    """Density: real neighbourhoods that a generated image lies in, over ``neighbours``. Coverage: share of real images
    with a generated one in their neighbourhood. Both stand outliers better than precision and recall do."""
    radius = torch.cat([torch.cdist(part, real).kthvalue(neighbours + 1).values for part in real.split(1000)])
    inside, covered = 0, torch.zeros(len(real), dtype=torch.bool)
    for part in generated.split(1000):
        within = torch.cdist(part, real) < radius
        inside += int(within.sum())
        covered |= within.any(0)
    return inside / (neighbours * len(generated)), float(covered.float().mean())


@dataclass(frozen=True)
class DistributionScores:
    values: Mapping[str, float]
    notes: Mapping[str, Any]


def score_distributions(
    extractor: Extractor, generated: Tensor, real: Tensor, device: torch.device | str
) -> DistributionScores:
    """All of the above between two sets of n uint8 images [n, C, H, W], with what has to be known beside the numbers."""
    import torch_fidelity

    if len(generated) != len(real) or len(real) < MIN_IMAGES:
        raise DataError(
            f"distances between sets need as many generated as real images, at least {MIN_IMAGES}, "
            f"not {len(generated)} and {len(real)}"
        )
    fake, true = extract(extractor, generated, device), extract(extractor, real, device)
    distance, floor = frechet_distance(fake.features, true.features), frechet_floor(true.features)
    kid, kid_std, subset_size = kernel_distance(fake.features, true.features)
    score, score_std, splits = classifier_score(fake.logits)
    precision, recall = precision_recall(fake.features, true.features)
    density, coverage = density_coverage(fake.features, true.features)
    values = {
        "fd": distance,
        "fd_over_floor": distance / max(floor, 1e-9),
        "kid": kid,
        "classifier_score": score,
        "precision": precision,
        "recall": recall,
        "density": density,
        "coverage": coverage,
    }
    notes = {
        "fd_name": extractor.metric_name,
        "fd_floor": floor,
        "fd_floor_n": len(real) // 2,
        "kid_std": kid_std,
        "kid_subsets": f"{KID_SUBSETS} of {subset_size}",
        "classifier_score_std": score_std,
        "classifier_score_splits": splits,
        "classifier_score_real": classifier_score(true.logits)[0],
        "neighbours": f"{NEIGHBOURS_PRECISION} for precision and recall, {NEIGHBOURS_COVERAGE} for density and coverage",
        "extractor": extractor.name,
        "extractor_sha256": extractor.sha256,
        "extractor_dimension": extractor.dimension,
        "extractor_reaches": EXTRACTORS[
            extractor.name
        ].reaches,  # on what it was trained for; elsewhere it is a stranger
        "library": f"torch-fidelity {torch_fidelity.__version__}",
    }
    return DistributionScores(values, notes)


# --------------------------------------------------------------------------------------------------------- memorisation
def nearest(query: Tensor, reference: Tensor, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """For each of uint8 images [n, C, H, W] the Euclidean distance to the nearest of ``reference`` (pixels in [0, 1])
    and its index, both [n] on the CPU."""
    wanted = query.to(device).flatten(1).float() / 255
    best = torch.full((len(query),), torch.inf, device=device)
    index = torch.zeros(len(query), dtype=torch.int64, device=device)
    start = 0
    for part in reference.split(10_000):
        candidates = part.to(device).flatten(1).float() / 255
        square = candidates.square().sum(1) - 2 * wanted @ candidates.T  # without |query|², which changes no order
        value, place = square.min(1)
        better = value < best
        best, index = torch.where(better, value, best), torch.where(better, place + start, index)
        start += len(part)
    index = index.cpu()
    # Anew from the difference: the expanded square loses the digits that tell a copy from a near miss.
    distance = (query.cpu().flatten(1).float() - reference[index].cpu().flatten(1).float()).norm(dim=1) / 255
    return distance, index


def neighbour_ratio(
    generated: Tensor, real: Tensor, train: Tensor, device: torch.device | str = "cpu"
) -> tuple[float, Tensor]:
    """Median distance of generated images to their nearest training image, over that of real test images; and the
    indices of the former in ``train``.

    About 1: as far from the training set as new real images are. Towards 0: copies of training images.
    """
    distance, index = nearest(torch.cat([generated, real]), train, device)
    to_generated, to_real = distance.split([len(generated), len(real)])
    return float(to_generated.median() / to_real.median().clamp_min(1e-6)), index[: len(generated)]
