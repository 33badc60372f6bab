"""Variational autoencoder.

D. P. Kingma and M. Welling, Auto-encoding variational Bayes, ICLR 2014. A Gaussian encoder q(z|x), a decoder p(x|z) and the
prior p(z) = N(0, I), trained on the evidence lower bound (their equation 10, with one draw of z). Reported is the tighter
importance-weighted bound of Y. Burda, R. Grosse and R. Salakhutdinov, Importance weighted autoencoders, ICLR 2016.

Grey pixels are no binary data: with the Bernoulli decoder every image is binarised anew at every visit, a pixel being 1
with its grey value as the probability (*dynamic* binarisation; numbers on a fixed binarisation differ by more than 2 nats).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from adlbench.benchmark.api import Batch, Context, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.images import to_unit
from adlbench.methods.base.seeding import seeded_init
from adlbench.methods.nn.interpolation import lerp

Likelihood = Literal["bernoulli", "gaussian"]
LOG_2PI = math.log(2 * math.pi)
ELBO_SAMPLES = 16


class VAENet(nn.Module):
    """Encoder and decoder on flat images [B, D] in [0, 1]."""

    def __init__(self, pixels: int, hidden: Sequence[int], latent_size: int, likelihood: Likelihood = "bernoulli"):
        super().__init__()
        self.pixels, self.latent_size, self.likelihood = pixels, latent_size, likelihood
        self.encoder = perceptron((pixels, *hidden, 2 * latent_size))  # mean and log-variance of q(z|x)
        self.decoder = perceptron((latent_size, *reversed(hidden), pixels))  # logits, or means
        self.log_variance = nn.Parameter(torch.zeros(()), requires_grad=likelihood == "gaussian")  # of p(x|z)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of q(z|x), [B, L] each."""
        mean, log_variance = self.encoder(x).chunk(2, dim=-1)
        return mean, log_variance

    def decode(self, z: Tensor) -> Tensor:
        """The mean of p(x|z), [..., D]."""
        output: Tensor = self.decoder(z)
        return output.sigmoid() if self.likelihood == "bernoulli" else output

    def log_conditional(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z), summed over pixels: [..., D], [..., L] -> [...] nats."""
        output = self.decoder(z)
        if self.likelihood == "bernoulli":
            return (x * output).sum(-1) - functional.softplus(output).sum(-1)
        square = (x - output).square().sum(-1) * torch.exp(-self.log_variance)
        return -0.5 * (square + self.pixels * (LOG_2PI + self.log_variance))

    def elbo_terms(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """log p(x|z) at z = mean + std * noise, and KL(q(z|x) || p(z)): [B] nats each. Their difference is the bound."""
        mean, log_variance = self.encode(x)
        z = mean + torch.exp(0.5 * log_variance) * noise
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)
        return self.log_conditional(x, z), divergence

    def log_weights(self, x: Tensor, noise: Tensor) -> Tensor:
        """log p(x, z_k) - log q(z_k|x) for K draws: x [B, D], noise [B, K, L] -> [B, K] nats.

        The mean of log w over K estimates the ELBO, log mean w is the importance-weighted bound.
        """
        mean, log_variance = (part[:, None] for part in self.encode(x))
        z = mean + torch.exp(0.5 * log_variance) * noise
        # The constants of the two normal densities cancel.
        prior_over_posterior = 0.5 * (noise.square() + log_variance - z.square()).sum(-1)
        return self._log_conditional_many(x, z) + prior_over_posterior

    def _log_conditional_many(self, x: Tensor, z: Tensor) -> Tensor:
        """``log_conditional`` of x [B, D] for each of z [B, K, L]: [B, K]. Never holds [B, K, D] twice."""
        if self.likelihood == "gaussian":
            return self.log_conditional(x[:, None], z)
        hidden, last = self.decoder[:-1](z), cast(nn.Linear, self.decoder[-1])
        # x · (W h + b) = (Wᵀ x) · h + x · b, which needs the logits for the normalisation only
        matched = (hidden @ (x @ last.weight)[..., None])[..., 0] + (x @ last.bias)[:, None]
        return matched - functional.softplus(last(hidden)).sum(-1)


def perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@dataclass(eq=False, kw_only=True)
class VAE(Method):
    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.GENERATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})

    hidden: tuple[int, ...] = (400,)  # units of the encoder's layers; the decoder's are their mirror image
    latent_size: int = 20
    likelihood: Likelihood = "bernoulli"  # or "gaussian", with one learnt variance, on pixels as they are
    batch_size: int = 100
    learning_rate: float = 1e-3
    num_importance_samples: int = 500  # of the bound that is reported

    def setup(self, data: TrainingData, context: Context) -> None:
        self.schema, self.context = data.schema, context
        pixels = data.schema.channels * math.prod(data.schema.image_size)
        with seeded_init(context):
            self.net = VAENet(pixels, self.hidden, self.latent_size, self.likelihood)
        self.net.to(context.device).train()
        trained = [p for p in self.net.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(trained, self.learning_rate, fused=True)
        if data.present:
            self.batches: Iterator[Batch] = context.loader(data.train, self.batch_size)

    def step(self) -> Mapping[str, Tensor]:
        x = to_unit(next(self.batches)["image"]).flatten(1)
        if self.likelihood == "bernoulli":
            x = binarise(x, self.context.generator("binarisation"))
        noise = torch.randn(
            len(x), self.latent_size, generator=self.context.generator("noise"), device=self.context.device
        )
        self.optimizer.param_groups[0]["lr"] = self.learning_rate * (1 - self.context.progress)
        self.optimizer.zero_grad(set_to_none=True)
        with self.context.autocast():
            log_conditional, divergence = self.net.elbo_terms(x, noise)
        # Both are sums over their dimensions. A mean over pixels in one of them would weight the other by 784.
        loss = (divergence - log_conditional).mean()
        loss.backward()
        self.optimizer.step()
        return {
            "loss": loss.detach(),
            "reconstruction": -log_conditional.detach().mean(),
            "divergence": divergence.detach().mean(),
        }

    def predictor(self) -> VAEPredictor:
        net = copy.deepcopy(self.net).eval().requires_grad_(False)
        kind = BernoulliVAEPredictor if self.likelihood == "bernoulli" else VAEPredictor
        return kind(net, self.schema, self.context.device, self.num_importance_samples)


def binarise(x: Tensor, generator: torch.Generator) -> Tensor:
    """1 where a uniform draw is below the grey value in [0, 1], else 0."""
    return (torch.rand(x.shape, generator=generator, device=x.device) < x).float()


class VAEPredictor:
    """Samples are the decoder's means for z ~ N(0, I), not draws from p(x|z): the grey values that binarisation hides."""

    def __init__(self, net: VAENet, schema: DataSchema, device: torch.device, num_samples: int):
        self.net, self.device, self.num_samples = net, device, num_samples
        self.shape = (schema.channels, *schema.image_size)

    def sample(self, n: int, seed: int) -> Tensor:
        return self.decode(torch.randn(n, self.net.latent_size, generator=torch.Generator().manual_seed(seed)))

    def interpolate(self, seed: int, steps: int) -> Tensor:
        """[steps, C, H, W] along the straight line between two random codes."""
        start, end = torch.randn(2, self.net.latent_size, generator=torch.Generator().manual_seed(seed))
        return self.decode(lerp(start, end, torch.linspace(0, 1, steps)[:, None]))

    def decode(self, z: Tensor) -> Tensor:
        return self.net.decode(z.to(self.device)).clamp(0, 1).view(-1, *self.shape)


class BernoulliVAEPredictor(VAEPredictor):
    def log_likelihood(self, inputs: Batch) -> Tensor:
        """The importance-weighted bound on log p(x), [B] nats, of binary images (0 or 255)."""
        weights = self.log_weights(inputs, self.num_samples)
        return torch.logsumexp(weights, 1) - math.log(self.num_samples)

    def elbo(self, inputs: Batch) -> Tensor:
        """The evidence lower bound, [B] nats; an average, so that few draws are enough."""
        return self.log_weights(inputs, min(self.num_samples, ELBO_SAMPLES)).mean(1)

    def log_weights(self, inputs: Batch, num_samples: int) -> Tensor:
        """[B, num_samples] nats, see ``VAENet.log_weights``."""
        x = to_unit(inputs["image"]).flatten(1)
        generator = torch.Generator().manual_seed(0)  # the same batch twice gives the same numbers
        weights = []
        for part in x.split(max(1, 4000 // num_samples)):  # images at a time whose logits stay in the cache
            noise = torch.randn(len(part), num_samples, self.net.latent_size, generator=generator)
            weights.append(self.net.log_weights(part, noise.to(self.device)))
        return torch.cat(weights)
