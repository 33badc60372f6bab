"""Coordinate networks: an MLP from a position to the signal's value there, fitted to one signal.

Three ways to let it represent detail, and none:

- SIREN, sine activations (Sitzmann et al. 2020, *Implicit Neural Representations with Periodic Activation Functions*);
- Fourier features in front of ReLUs (Tancik et al. 2020, *Fourier Features Let Networks Learn High Frequency Functions in
  Low Dimensional Domains*), Gaussian or axis-aligned ("positional encoding");
- the plain ReLU network, which learns low frequencies only.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from adlbench.benchmark.api import Context, DataError, DataSchema, Method, Modality, TaskKind, TrainingData
from adlbench.methods.base.seeding import seeded_init
from adlbench.methods.base.supervised import check_items
from adlbench.methods.nn.positional_encoding import FourierFeatures


class SineLayer(nn.Linear):
    """sin(omega_0 (W x + b)).

    The initialisation keeps omega_0 W x standard normal and its sine arcsine-distributed at any depth (section 3.2). The
    factor omega_0 is in *every* layer, and the hidden weights are divided by it: with one and not the other the network
    starts as noise or as a constant.
    """

    def __init__(self, in_features: int, out_features: int, omega_0: float, first: bool):
        self.omega_0, self.first = omega_0, first
        super().__init__(in_features, out_features)

    def reset_parameters(self) -> None:
        super().reset_parameters()  # the biases keep PyTorch's U(+-1/sqrt(n)), as in the authors' code
        bound = 1 / self.in_features if self.first else math.sqrt(6 / self.in_features) / self.omega_0
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        # omega_0 times the weights instead of the activations: the same, and B x n multiplications fewer
        return torch.sin(functional.linear(x, self.omega_0 * self.weight, self.omega_0 * self.bias))


class Siren(nn.Sequential):
    """Coordinates in [-1, 1]: ``depth`` hidden layers after the first sine layer, and a linear output in [-1, 1]."""

    def __init__(self, dims: int, channels: int, width: int, depth: int, omega_0: float):
        layers: list[nn.Module] = [SineLayer(dims, width, omega_0, first=True)]
        layers += [SineLayer(width, width, omega_0, first=False) for _ in range(depth)]
        output = nn.Linear(width, channels)
        nn.init.uniform_(output.weight, -math.sqrt(6 / width) / omega_0, math.sqrt(6 / width) / omega_0)
        super().__init__(*layers, output)

    def forward(self, coords: Tensor) -> Tensor:
        # always in float32: the arguments span tens of radians, of which bfloat16 keeps a tenth
        with torch.autocast(coords.device.type, enabled=False):
            return super().forward(coords.float())


class ReluMLP(nn.Sequential):
    """Coordinates in [-1, 1], moved to [0, 1) for the encoding: ``depth`` hidden layers, sigmoid output."""

    def __init__(self, encoding: nn.Module | None, dims: int, channels: int, width: int, depth: int):
        layers: list[nn.Module] = [ToUnitSquare()]
        features = dims
        if encoding is not None:
            layers.append(encoding)
            features = int(encoding.out_features)  # type: ignore[arg-type]
        for _ in range(depth):
            layers += [nn.Linear(features, width), nn.ReLU()]
            features = width
        layers += [nn.Linear(features, channels), nn.Sigmoid()]
        for layer in layers:
            if isinstance(layer, nn.Linear):  # as in the authors' code: Glorot, not PyTorch's smaller default
                nn.init.xavier_normal_(layer.weight)
                nn.init.normal_(layer.bias, std=1e-2)
        super().__init__(*layers)


class ToUnitSquare(nn.Module):
    def forward(self, coords: Tensor) -> Tensor:
        return (coords + 1) / 2


def log_linear_frequencies(dims: int, num_features: int, sigma: float) -> Tensor:
    """[M, D] axis-aligned frequencies 2^k - 1 with k evenly spaced in [0, sigma]: the paper's positional encoding."""
    octaves = 2.0 ** torch.linspace(0, sigma, num_features // dims) - 1
    return torch.cat([torch.outer(octaves, axis) for axis in torch.eye(dims)])


@dataclass(eq=False, kw_only=True)
class CoordinateMLP(Method):
    """Adam on the mean squared error of random batches of samples."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.RECONSTRUCTION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.FIELD})
    shares_batches: ClassVar[bool] = True

    activation: Literal["sine", "relu"] = "sine"
    width: int = 256
    depth: int = 3  # hidden layers; a SIREN's first layer comes before them
    omega_0: float = 30.0  # sine only
    encoding: Literal["none", "gaussian", "positional"] = "none"  # relu only
    num_features: int = 256  # frequencies of the encoding, each a sine and a cosine
    sigma: float = 10.0  # gaussian: standard deviation in cycles per image; positional: the highest octave
    batch_size: int = 8192
    learning_rate: float = 1e-4
    final_learning_rate: float = 0.0  # as a share of the first, reached along a cosine; 1 keeps it constant

    def skip(self, schema: DataSchema) -> str | None:
        if not {"coords", "value"} <= set(schema.fields):
            return "fits fields, which need the items 'coords' and 'value'"
        return None

    def setup(self, data: TrainingData, context: Context) -> None:
        self.context = context
        with seeded_init(context):
            self.net = self.network(data.schema).to(context.device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=self.learning_rate, fused=True)
        if data.present:
            check_items(data)
            self.batches = context.loader(data.train, self.batch_size)

    def network(self, schema: DataSchema) -> nn.Module:
        dims = 2  # of an image
        if self.activation == "sine":
            if self.encoding != "none":
                raise DataError(f"encoding={self.encoding!r} stands before ReLUs; set activation=relu or encoding=none")
            return Siren(dims, schema.channels, self.width, self.depth, self.omega_0)
        encoding = None
        if self.encoding != "none":
            positional = self.encoding == "positional"
            frequencies = log_linear_frequencies(dims, self.num_features, self.sigma) if positional else None
            encoding = FourierFeatures(dims, self.num_features, self.sigma, frequencies)
        return ReluMLP(encoding, dims, schema.channels, self.width, self.depth)

    def step(self) -> Mapping[str, Tensor]:
        batch = next(self.batches)
        share = 0.5 * (1 + math.cos(math.pi * min(self.context.progress, 1.0)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * (self.final_learning_rate + (1 - self.final_learning_rate) * share)
        self.optimizer.zero_grad(set_to_none=True)
        with self.context.autocast():
            loss = functional.mse_loss(self.colour(self.net, batch["coords"]), batch["value"])
        # a SIREN is fitted to [-1, 1], where the squared error is four times as large; Adam does not see the factor
        loss.backward()
        self.optimizer.step()
        return {"loss": loss.detach(), "psnr": -10 * loss.detach().log10()}

    def colour(self, net: nn.Module, coords: Tensor) -> Tensor:
        """[M, C] in [0, 1] up to overshoot."""
        output = net(coords).float()
        return (output + 1) / 2 if self.activation == "sine" else output

    def predictor(self) -> FieldPredictor:
        return FieldPredictor(copy.deepcopy(self.net).eval().requires_grad_(False), self)


class FieldPredictor:
    def __init__(self, net: nn.Module, method: CoordinateMLP):
        self.net, self.method = net, method

    def query(self, points: Tensor) -> Tensor:
        with self.method.context.autocast():
            return self.method.colour(self.net, points).clamp(0, 1)
