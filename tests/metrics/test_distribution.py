"""Distances between sets of images, against closed forms, brute force and torch-fidelity's own front door."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from adlbench.benchmark.api import DataError
from adlbench.benchmark.metrics.distribution import (
    classifier_score,
    density_coverage,
    extract,
    frechet_distance,
    frechet_floor,
    kernel_distance,
    nearest,
    neighbour_ratio,
    precision_recall,
    register,
    score_distributions,
)
from adlbench.benchmark.metrics.extractors import Extractor, load_extractor


def gaussian(n: int, d: int, seed: int = 0, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) * scale + shift


def images(n: int, seed: int) -> Tensor:
    """uint8 [n, 1, 8, 8]: real digits, in a random order."""
    from adlbench.datasets.classification.digits import Digits

    image = Digits().load("all", "train").all()["image"]
    return image[torch.randperm(len(image), generator=torch.Generator().manual_seed(seed))[:n]]


# -------------------------------------------------------------------------------------------------------------- Fréchet
def test_frechet_distance_between_gaussians_is_the_closed_form():
    rng = np.random.default_rng(0)
    dimension, count = 6, 400
    moments, samples = [], []
    for _ in range(2):
        mean, factor = rng.normal(size=dimension), rng.normal(size=(dimension, dimension))
        covariance = factor @ factor.T
        white = rng.normal(size=(count, dimension))
        white -= white.mean(0)
        white = white @ np.linalg.inv(np.linalg.cholesky(np.cov(white.T))).T  # sample moments exactly 0 and I
        samples.append(torch.from_numpy(mean + white @ np.linalg.cholesky(covariance).T))
        moments.append((mean, covariance))
    (mean1, covariance1), (mean2, covariance2) = moments
    root = scipy.linalg.sqrtm(covariance1 @ covariance2).real
    expected = ((mean1 - mean2) ** 2).sum() + np.trace(covariance1 + covariance2 - 2 * root)
    assert frechet_distance(*samples) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_shifted_and_scaled_sets():
    x = gaussian(500, 4)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x + 3, x) == pytest.approx(4 * 3**2, rel=1e-5)
    assert frechet_distance(2 * x, x) == pytest.approx(  # (2 - 1)² times the trace, and the moved mean
        float(np.trace(np.cov(x.double().numpy().T))) + float(x.double().mean(0).square().sum()), rel=1e-5
    )


def test_few_images_are_far_apart_even_when_they_are_alike():
    """Why n is fixed and the floor is printed: equal distributions, distance falling with n."""
    distances = [frechet_distance(gaussian(n, 16, 1), gaussian(n, 16, 2)) for n in (50, 200, 2000)]
    assert distances[0] > 2 * distances[1] > 4 * distances[2]


def test_floor_is_the_distance_between_random_halves():
    real = gaussian(400, 8)
    floor = frechet_floor(real)
    assert floor == pytest.approx(frechet_distance(gaussian(200, 8, 5), gaussian(200, 8, 6)), rel=0.5)
    assert floor == frechet_floor(real)
    assert floor < frechet_distance(gaussian(400, 8, 7, shift=0.5), real)


# --------------------------------------------------------------------------------------------------------------- kernel
def test_kernel_distance_is_the_unbiased_squared_discrepancy():
    generated, real = gaussian(80, 5, 1, shift=0.4).double().numpy(), gaussian(80, 5, 2).double().numpy()
    rng = np.random.RandomState(0)  # what torch-fidelity draws its subsets with
    values = []
    for _ in range(100):
        x, y = (part[rng.choice(80, 20, replace=False)] for part in (generated, real))
        kernels = [(a @ b.T / 5 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
        off_diagonal = [k.sum() - np.trace(k) for k in kernels[:2]]
        values.append(sum(off_diagonal) / (20 * 19) - 2 * kernels[2].mean())
    mean, deviation, size = kernel_distance(torch.from_numpy(generated), torch.from_numpy(real))
    assert size == 20  # a quarter of the set: subsets as large as the set would all be the same
    assert mean == pytest.approx(np.mean(values), rel=1e-10)
    assert deviation == pytest.approx(np.std(values), rel=1e-10)
    assert deviation > 1e-3


def test_kernel_distance_has_no_bias_at_small_n():
    means = [kernel_distance(gaussian(60, 4, 2 * s), gaussian(60, 4, 2 * s + 1))[0] for s in range(10)]
    assert abs(np.mean(means)) < 2 * np.std(means) / np.sqrt(10) + 0.02
    assert min(means) < 0  # unbiased means that it may be negative


# ----------------------------------------------------------------------------------------------------- classifier score
def test_classifier_score_at_its_ends():
    assert classifier_score(torch.zeros(100, 10))[0] == pytest.approx(1)  # never sure
    certain = 100.0 * torch.eye(10).repeat(10, 1)
    assert classifier_score(certain)[0] == pytest.approx(10)  # always sure, all classes
    assert classifier_score(certain[:1].repeat(100, 1))[0] == pytest.approx(1)  # always sure of one class


def test_classifier_score_in_closed_form_and_its_splits():
    logits = gaussian(300, 5, scale=2.0).double()
    p = logits.softmax(1)
    expected = float(torch.exp((p * (p.log() - p.mean(0).log())).sum(1).mean()))
    score, deviation, splits = classifier_score(logits)
    assert (score, deviation, splits) == (pytest.approx(expected), 0, 1)
    assert classifier_score(gaussian(5000, 5))[2] == 10


# --------------------------------------------------------------------------------------------------- manifolds of sets
def brute_force(generated: Tensor, real: Tensor, k: int) -> tuple[float, float, float, float]:
    def radii(points: Tensor) -> Tensor:
        return torch.stack([(points - p).norm(dim=1).sort().values[k] for p in points])  # [0] is the point itself

    to_real = torch.stack([(real - g).norm(dim=1) for g in generated])  # [generated, real]
    radii_real, radii_generated = radii(real), radii(generated)
    in_real, in_generated = to_real <= radii_real, radii_generated >= to_real.T
    strictly = to_real < radii_real
    return (
        float(in_real.any(1).float().mean()),
        float(in_generated.any(1).float().mean()),
        float(strictly.sum()) / (k * len(generated)),
        float(strictly.any(0).float().mean()),
    )


def test_precision_recall_density_coverage_against_brute_force():
    generated, real = gaussian(120, 3, 1, shift=0.7).double(), gaussian(120, 3, 2).double()
    precision, recall, _, _ = brute_force(generated, real, 3)
    assert precision_recall(generated, real) == (pytest.approx(precision), pytest.approx(recall))
    assert 0.05 < precision < 0.95
    assert 0.05 < recall < 0.95
    assert precision != recall
    _, _, density, coverage = brute_force(generated, real, 5)
    assert density_coverage(generated, real) == (pytest.approx(density), pytest.approx(coverage))


def test_a_model_that_knows_one_mode_is_precise_and_recalls_half():
    real = torch.cat([gaussian(100, 2, 1), gaussian(100, 2, 2, shift=50)])
    precision, recall = precision_recall(gaussian(200, 2, 3), real)  # generated first
    assert precision > 0.9
    assert 0.3 < recall <= 0.5
    assert density_coverage(gaussian(200, 2, 3), real)[1] <= 0.5


# -------------------------------------------------------------------------------------------- extraction and the cache
class Toy(nn.Module):
    """The mean grey value times ``factor``, beside a constant spread."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = image.float().flatten(1)
        return self.factor * x[:, :4], x[:, :3]


def test_one_call_equals_torch_fidelity_front_door():
    import torch_fidelity

    extractor = load_extractor("digits")
    generated, real = images(200, 1), images(400, 2)[200:]
    scores = score_distributions(extractor, generated, real, "cpu").values
    expected = torch_fidelity.calculate_metrics(
        input1=_Items(generated),
        input2=_Items(real),
        feature_extractor=register(extractor),
        fid=True,
        kid=True,
        isc=True,
        prc=True,
        kid_subset_size=50,
        isc_splits=1,
        rng_seed=0,
        cuda=False,
        save_cpu_ram=True,
        cache=False,
        verbose=False,
    )
    assert scores["fd"] == pytest.approx(expected["frechet_inception_distance"], rel=1e-4)
    assert scores["kid"] == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-3, abs=1e-5)
    assert scores["classifier_score"] == pytest.approx(expected["inception_score_mean"], rel=1e-6)
    assert scores["precision"] == pytest.approx(expected["precision"])
    assert scores["recall"] == pytest.approx(expected["recall"])


class _Items(torch.utils.data.Dataset[Tensor]):
    def __init__(self, image: Tensor):
        self.image = image

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: int) -> Tensor:
        return self.image[index]


def test_changed_weights_give_changed_features_and_nothing_is_cached(monkeypatch, tmp_path):
    """torch-fidelity's cache keys hold neither weights nor data: under them the second net would get the first's values."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    image = images(40, 0)
    first, second = Extractor("toy", "a" * 64, 4, Toy(1.0)), Extractor("toy", "b" * 64, 4, Toy(10.0))
    assert first.identifier != second.identifier
    a, b = extract(first, image), extract(second, image)
    torch.testing.assert_close(b.features, 10 * a.features)
    assert torch.equal(extract(first, image).features, a.features)  # registering again is not an error
    assert list(tmp_path.iterdir()) == []


def test_extraction_keeps_order_and_leaves_random_numbers_alone():
    image, toy = images(30, 3), Extractor("toy-order", "c" * 64, 4, Toy(1.0))
    before = torch.get_rng_state()
    found = extract(toy, image, batch_size=7)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found.features, toy.net(image)[0])
    assert len(found) == 30
    with pytest.raises(DataError, match="quantise"):
        extract(toy, image.float() / 255)


def test_scores_say_what_they_were_computed_with():
    scores = score_distributions(load_extractor("digits"), images(100, 1), images(200, 2)[100:], "cpu")
    assert scores.notes["fd_name"] == "FD-digits"
    assert scores.notes["fd_floor"] > 0
    assert scores.values["fd_over_floor"] == pytest.approx(scores.values["fd"] / scores.notes["fd_floor"])
    assert len(scores.notes["extractor_sha256"]) == 64
    assert scores.notes["library"].startswith("torch-fidelity 0.")
    assert scores.notes["kid_subsets"] == "100 of 25"


def test_sets_of_different_or_tiny_size_are_refused():
    with pytest.raises(DataError, match="as many generated as real"):
        score_distributions(load_extractor("digits"), images(50, 1), images(40, 2), "cpu")
    with pytest.raises(DataError, match="at least 8"):
        score_distributions(load_extractor("digits"), images(5, 1), images(5, 2), "cpu")


def test_blur_and_noise_are_seen():
    """A random trunk is blind to blur; the shipped extractor is not."""
    extractor = load_extractor("digits")
    real, fresh = images(600, 0)[:300], images(600, 0)[300:]
    noise = torch.randint(-60, 61, fresh.shape, generator=torch.Generator().manual_seed(0))
    blurred = nn.functional.avg_pool2d(fresh.float(), 3, 1, 1).round().to(torch.uint8)
    noisy = (fresh.int() + noise).clamp(0, 255).to(torch.uint8)
    base = score_distributions(extractor, fresh, real, "cpu").values["fd"]
    assert score_distributions(extractor, blurred, real, "cpu").values["fd"] > 5 * base
    assert score_distributions(extractor, noisy, real, "cpu").values["fd"] > 2 * base


# --------------------------------------------------------------------------------------------------------- memorisation
def test_nearest_against_brute_force():
    query, reference = images(20, 1), images(300, 2)
    distance, index = nearest(query, reference)
    pairs = (query.double()[:, None] - reference.double()[None]).flatten(2).norm(dim=2) / 255
    torch.testing.assert_close(distance.double(), pairs.min(1).values, rtol=1e-5, atol=1e-6)
    assert torch.equal(pairs.gather(1, index[:, None])[:, 0], pairs.min(1).values)


def test_copies_are_at_distance_zero_and_new_images_at_one():
    train, test = images(600, 0)[:400], images(600, 0)[400:]
    ratio, index = neighbour_ratio(train[:50], test, train)
    assert ratio == 0
    assert torch.equal(train[index], train[:50])
    assert neighbour_ratio(test, test, train)[0] == 1
    nearly = (train[:50].int() + 1).clamp(0, 255).to(torch.uint8)
    assert 0 < neighbour_ratio(nearly, test, train)[0] < 0.1
