"""The VAE, against the closed form of probabilistic PCA and its own definitions."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from adlbench.benchmark.api import (
    AbsentSplit,
    ArraySplit,
    Budget,
    DataSchema,
    Modality,
    ScoresLikelihood,
    TrainingData,
)
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.context import CellContext
from adlbench.methods.generation.vae import VAE, VAENet, binarise


def context(steps: int = 100) -> CellContext:
    return CellContext(
        device=torch.device("cpu"),
        precision="fp32",
        budget=Budget(steps=steps),
        work_folder=Path("."),
        seed_parts=("test",),
        clock=Clock(),
    )


def schema(count: int = 64) -> DataSchema:
    return DataSchema(Modality.IMAGE, ("image",), count, 8, channels=1, image_size=(8, 8))


def digits(count: int = 64) -> TrainingData:
    from adlbench.datasets.classification.digits import Digits

    return TrainingData(schema(count), ArraySplit(image=Digits().load("all", "train").batch(range(count))["image"]))


def trained(steps: int, **parameters: object) -> VAE:
    method = VAE(**{"hidden": (32,), "latent_size": 4, "batch_size": 32, "num_importance_samples": 50, **parameters})  # type: ignore[arg-type]
    ctx = context(steps)
    method.setup(digits(), ctx)
    for _ in range(steps):
        method.step()
        ctx.step += 1
        ctx.progress = ctx.step / steps
    return method


# --------------------------------------------------------------------------------------------- probabilistic PCA
DIMENSION, LATENT, VARIANCE = 6, 2, 0.3


def probabilistic_pca() -> tuple[VAENet, Tensor, Tensor]:
    """A linear VAE whose encoder is the exact posterior, its data [N, D], and their exact log-likelihood [N].

    Tipping & Bishop 1999: p(x) = N(m, W Wᵀ + s² I), p(z|x) = N(M⁻¹ Wᵀ (x - m), s² M⁻¹) with M = Wᵀ W + s² I, which is
    diagonal when the columns of W are orthogonal.
    """
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(DIMENSION, DIMENSION, generator=generator, dtype=torch.float64))[0]
    weight = basis[:, :LATENT] * torch.tensor([2.0, 0.7])
    mean = torch.randn(DIMENSION, generator=generator, dtype=torch.float64)
    inner = weight.T @ weight + VARIANCE * torch.eye(LATENT)
    net = VAENet(DIMENSION, (), LATENT, "gaussian").double()
    with torch.no_grad():
        net.decoder[0].weight.copy_(weight)
        net.decoder[0].bias.copy_(mean)
        net.log_variance.fill_(math.log(VARIANCE))
        projection = torch.linalg.solve(inner, weight.T)
        net.encoder[0].weight.zero_()
        net.encoder[0].weight[:LATENT] = projection
        net.encoder[0].bias[:LATENT] = -projection @ mean
        net.encoder[0].bias[LATENT:] = torch.log(VARIANCE / inner.diagonal())
    covariance = weight @ weight.T + VARIANCE * torch.eye(DIMENSION)
    density = torch.distributions.MultivariateNormal(mean, covariance)
    x = density.sample((20,))
    return net.requires_grad_(False), x, density.log_prob(x)


def test_with_the_exact_posterior_every_single_draw_is_the_closed_form_likelihood():
    net, x, exact = probabilistic_pca()
    noise = torch.randn(len(x), 3, LATENT, dtype=torch.float64)
    torch.testing.assert_close(net.log_weights(x, noise), exact[:, None].expand(-1, 3))


def test_the_mean_elbo_is_the_closed_form_likelihood():
    """KL in closed form and one draw of the reconstruction: equal on average over the draws only."""
    net, x, exact = probabilistic_pca()
    generator = torch.Generator().manual_seed(1)
    bounds = torch.stack(
        [
            torch.sub(*net.elbo_terms(x, torch.randn(len(x), LATENT, generator=generator, dtype=torch.float64)))
            for _ in range(4000)
        ]
    )
    error = bounds.std(0) / math.sqrt(len(bounds))
    assert ((bounds.mean(0) - exact).abs() < 5 * error).all()


def test_with_a_wrong_posterior_the_bounds_are_ordered_and_tighten():
    net, x, exact = probabilistic_pca()
    with torch.no_grad():
        net.encoder[0].bias[:LATENT] += 0.3
        net.encoder[0].bias[LATENT:] += 0.5
    noise = torch.randn(len(x), 20_000, LATENT, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    log_weights = net.log_weights(x, noise)
    elbo = log_weights.mean(1)
    k10 = (log_weights.view(len(x), -1, 10).logsumexp(2) - math.log(10)).mean(1)
    many = log_weights.logsumexp(1) - math.log(20_000)
    assert (elbo < k10).all()
    assert (k10 < exact).all()
    torch.testing.assert_close(many, exact, rtol=0, atol=0.02)


# ----------------------------------------------------------------------------------------------------- Bernoulli
def test_reconstruction_is_the_sum_over_pixels_not_their_mean():
    """With a mean the divergence would weigh as many times too much as there are pixels."""
    net = VAENet(64, (16,), 3)
    x = (torch.rand(5, 64, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    noise = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    log_conditional, divergence = net.elbo_terms(x, noise)
    mean, log_variance = net.encode(x)
    z = mean + (0.5 * log_variance).exp() * noise
    entropy = functional.binary_cross_entropy(net.decode(z), x, reduction="none").sum(1)
    torch.testing.assert_close(-log_conditional, entropy)
    posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
    prior = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
    torch.testing.assert_close(divergence, torch.distributions.kl_divergence(posterior, prior).sum(1))


def test_importance_weights_are_joint_over_posterior():
    net = VAENet(12, (8,), 3)
    x = (torch.rand(4, 12) < 0.5).float()
    noise = torch.randn(4, 7, 3)
    mean, log_variance = net.encode(x)
    posterior = torch.distributions.Normal(mean[:, None], (0.5 * log_variance).exp()[:, None])
    z = mean[:, None] + (0.5 * log_variance).exp()[:, None] * noise
    joint = torch.distributions.Bernoulli(logits=net.decoder(z)).log_prob(x[:, None].expand(-1, 7, -1)).sum(2)
    joint = joint + torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(2)
    torch.testing.assert_close(net.log_weights(x, noise), joint - posterior.log_prob(z).sum(2), rtol=1e-4, atol=1e-4)


def test_the_bound_is_a_likelihood_over_all_binary_images():
    """exp(bound) sums to about 1 over the 2^6 images of six pixels."""
    torch.manual_seed(0)
    net = VAENet(6, (), 2)
    x = torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 6)
    log_weights = net.log_weights(x, torch.randn(64, 20_000, 2))
    total = (log_weights.detach().logsumexp(1) - math.log(20_000)).exp().sum()
    assert float(total) == pytest.approx(1, abs=0.01)


def test_binarisation_keeps_the_mean_and_is_drawn_anew():
    x = torch.full((1, 100_000), 0.3)
    generator = torch.Generator().manual_seed(0)
    first, second = binarise(x, generator), binarise(x, generator)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert float(first.mean()) == pytest.approx(0.3, abs=0.01)
    assert not torch.equal(first, second)


def test_paper_architecture():
    net = VAE().__class__
    method = net()
    method.setup(
        TrainingData(DataSchema(Modality.IMAGE, ("image",), 1, 1, channels=1, image_size=(28, 28)), AbsentSplit(1)),
        context(),
    )
    shapes = [tuple(p.shape) for p in method.net.parameters() if p.ndim == 2]
    assert shapes == [(400, 784), (40, 400), (400, 20), (784, 400)]
    assert method.num_parameters() == 784 * 400 + 400 + 400 * 40 + 40 + 20 * 400 + 400 + 400 * 784 + 784


# ----------------------------------------------------------------------------------------------------- the method
def test_it_learns_and_its_bound_is_above_its_elbo():
    first, method = trained(1), trained(300)
    x = (
        torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        < digits().train.batch(range(32))["image"] / 255
    )
    inputs = {"image": x.to(torch.uint8) * 255}
    with torch.no_grad():
        before, after = (m.predictor().log_likelihood(inputs).mean() for m in (first, method))
        elbo = method.predictor().elbo(inputs).mean()
    assert after > before + 5
    assert elbo < after < 0


def test_predictions_are_functions_of_their_arguments_and_frozen():
    method = trained(5)
    predictor = method.predictor()
    image = predictor.sample(6, seed=3)
    assert image.shape == (6, 1, 8, 8)
    assert image.min() >= 0
    assert image.max() <= 1
    inputs = {"image": digits().train.batch(range(8))["image"]}
    likelihood = predictor.log_likelihood(inputs)
    method.step()
    assert torch.equal(predictor.sample(6, seed=3), image)
    assert torch.equal(predictor.log_likelihood(inputs), likelihood)
    assert not torch.equal(predictor.sample(6, seed=4), image)
    path = predictor.interpolate(seed=1, steps=5)
    assert path.shape == (5, 1, 8, 8)
    torch.testing.assert_close(predictor.interpolate(seed=1, steps=3)[[0, 2]], path[[0, 4]])


def test_a_gaussian_decoder_has_no_likelihood_on_binary_images():
    method = trained(3, likelihood="gaussian")
    assert not isinstance(method.predictor(), ScoresLikelihood)
    assert isinstance(trained(1).predictor(), ScoresLikelihood)
    assert method.net.log_variance != 0  # learnt
    assert method.num_parameters() == trained(1).num_parameters() + 1


def test_a_resumed_run_is_the_uninterrupted_one():
    straight = trained(6)
    ctx, other = context(6), context(6)
    halves = [VAE(hidden=(32,), latent_size=4, batch_size=32) for _ in range(2)]
    for index, (method, own) in enumerate(zip(halves, (ctx, other))):
        method.setup(digits(), own)
        if index:
            own.load_state_dict(ctx.state_dict())
            own.progress = 0.5
            method.load_state_dict(halves[0].state_dict())
        for _ in range(3):
            method.step()
            own.step += 1
            own.progress = own.step / 6
    for a, b in zip(straight.net.parameters(), halves[1].net.parameters(), strict=True):
        assert torch.equal(a, b)
