"""DeepSDF: Park, Florence, Straub, Newcombe, Lovegrove, *DeepSDF: Learning Continuous Signed Distance Functions for Shape
Representation*, CVPR 2019.

A network maps a shape's code and a position to the signed distance there. Codes and network are trained together, from
random codes; a new shape gets the code with which the fixed network agrees best with the distances that are known of it.
The defaults are those of the released code, some of which differ from the paper's text: see the comments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from adlbench.benchmark.api import Batch, Context, DataSchema, Modality, TaskKind, TrainingData
from adlbench.methods.base.auto_decoder import AutoDecoderMethod, fit_code

FIT_SEED = "fit"


class NormalisedLinear(nn.Linear):
    """A linear layer whose rows are ``gain * direction / |direction|`` (Salimans and Kingma 2016); starts as nn.Linear."""

    def __init__(self, in_features: int, out_features: int):
        super().__init__(in_features, out_features)
        self.gain = nn.Parameter(self.weight.detach().norm(dim=1, keepdim=True))  # [out, 1]

    def effective(self) -> Tensor:
        """The weight [out, in] that multiplies the input."""
        return self.gain * functional.normalize(self.weight, dim=1)


class Decoder(nn.Module):
    """``depth`` hidden layers of ``width``; the input (code, position) is fed in again at layer ``skip``.

    The layer before the skip is narrower by the length of the input, so that layer ``skip`` sees ``width`` features again.
    The last layer has no weight normalisation, and its output always goes through tanh: the released code has an option
    ``use_tanh`` for a second one, which is off, and the first cannot be turned off.
    """

    def __init__(self, code_length: int, width: int = 512, depth: int = 8, skip: int = 4, dropout: float = 0.2):
        super().__init__()
        self.code_length, self.skip, self.dropout = code_length, skip, dropout
        inputs = code_length + 3
        layers: list[nn.Linear] = []
        for index in range(depth):
            ins = inputs if index == 0 else width
            layers.append(NormalisedLinear(ins, width - inputs if index + 1 == skip else width))
        self.hidden = nn.ModuleList(layers)
        self.output = nn.Linear(width, 1)
        # Unlike the released code's. Before training the output is about this bias, at every point: a narrow network's can
        # start beyond the clamp, where the clamped prediction has no gradient at all and nothing is ever learnt.
        nn.init.zeros_(self.output.bias)

    def weights(self) -> list[tuple[Tensor, Tensor]]:
        """Weight [out, in] and bias [out] of every layer, normalisation applied."""
        hidden = [(layer.effective(), layer.bias) for layer in self.hidden if isinstance(layer, NormalisedLinear)]
        return [*hidden, (self.output.weight, self.output.bias)]

    def forward(self, codes: Tensor, points: Tensor) -> Tensor:
        """Distances [B, S] for codes [B, L] at points [B, S, 3]."""
        return decode(self.weights(), codes, points, self.skip, self.dropout if self.training else 0.0)


def decode(
    weights: Sequence[tuple[Tensor, Tensor]], codes: Tensor, points: Tensor, skip: int, dropout: float = 0.0
) -> Tensor:
    """Distances [B, S] for codes [B, L] at points [B, S, 3].

    Where the input (code, position) enters, its product is taken apart: the code's part once for a shape and not for every
    point, and the position's in full precision, because bfloat16 cannot tell positions apart that are nearer than 1/256.
    """
    length = codes.shape[1]
    x: Tensor | None = None  # [B, S, W]
    for index, (weight, bias) in enumerate(weights[:-1]):
        if index in (0, skip):
            split = weight.shape[1] - length - 3  # features of the layer before come first
            entering = in_full_precision(codes, points, weight[:, split:], bias)
            x = entering if x is None else entering + functional.linear(x, weight[:, :split])
        else:
            assert x is not None
            x = functional.linear(x, weight, bias)
        x = functional.relu(x)
        if dropout > 0:
            x = functional.dropout(x, dropout)
    weight, bias = weights[-1]
    assert x is not None
    with torch.autocast(points.device.type, enabled=False):
        return torch.tanh(functional.linear(x.float(), weight, bias))[..., 0]


def in_full_precision(codes: Tensor, points: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The layer's answer [B, S, W] to (code, position): codes [B, L], points [B, S, 3], weight [W, L + 3]."""
    with torch.autocast(points.device.type, enabled=False):
        of_code = functional.linear(codes, weight[:, :-3], bias)  # [B, W]
        return functional.linear(points, weight[:, -3:]) + of_code[:, None]


@dataclass(eq=False, kw_only=True)
class DeepSDF(AutoDecoderMethod):
    """The defaults are the released specification for one ShapeNet class (2001 epochs)."""

    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.RECONSTRUCTION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.SHAPE})

    width: int = 512
    depth: int = 8  # hidden layers
    skip_layer: int = 4  # the hidden layer that sees the input again
    dropout: float = 0.2
    clamp: float = 0.1  # distances beyond it are all the same, for the prediction as for the truth
    code_regularization: float = 1e-4
    regularization_warmup: float = 0.05  # share of the budget: 100 of 2001 epochs
    fit_iterations: int = 800
    fit_samples: int = 8000  # per iteration, half of them inside
    fit_learning_rate: float = 5e-3  # a tenth of it in the second half
    fit_init: float = 0.01  # standard deviation

    def skip(self, schema: DataSchema) -> str | None:
        if not {"sdf_points", "sdf"} <= set(schema.fields):
            return "learns from the fields 'sdf_points' and 'sdf', which this dataset does not have"
        return None

    def network(self, schema: DataSchema) -> Decoder:
        return Decoder(self.code_length, self.width, self.depth, self.skip_layer, self.dropout)

    def prepare(self, data: TrainingData) -> None:
        items = data.train.all()
        self.samples = SignedSamples(items["sdf_points"].to(self.context.device), items["sdf"].to(self.context.device))

    def loss(self, shapes: Tensor, codes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        points, truth = self.samples.draw(shapes, self.samples_per_shape, generator)
        with self.context.autocast():
            predicted = self.net(codes, points)
        error = clamped_error(predicted, truth, self.clamp).mean()
        # The norm itself, not its square as in the paper's eq. 9: the released code's training differs from its inference.
        size = codes.norm(dim=1).mean()
        warm = min(1.0, self.context.progress / self.regularization_warmup) if self.regularization_warmup > 0 else 1.0
        return {"loss": error + self.code_regularization * warm * size, "sdf_error": error, "code_norm": size}

    def predictor(self) -> DeepSDFPredictor:
        decoder = cast(Decoder, self.net)
        weights = [(weight.detach().clone(), bias.detach().clone()) for weight, bias in decoder.weights()]
        return DeepSDFPredictor(self, weights, self.context)


class SignedSamples:
    """Distance samples of N shapes, drawn half from inside and half from outside, whatever their numbers are."""

    def __init__(self, points: Tensor, sdf: Tensor):
        """points [N, S, 3], sdf [N, S]."""
        order = (sdf > 0).to(torch.uint8).argsort(dim=1, stable=True)  # insides first
        self.sdf = sdf.gather(1, order)
        self.points = points.gather(1, order[..., None].expand_as(points))
        self.num_inside = (sdf <= 0).sum(1)  # [N]

    def draw(self, shapes: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """For ``shapes`` [B]: points [B, count, 3] and distances [B, count], with repetition."""
        total = self.sdf.shape[1]
        inside = self.num_inside[shapes][:, None].float()  # [B, 1]
        chance = torch.rand(len(shapes), count, generator=generator, device=self.sdf.device)
        outside_half = torch.arange(count, device=self.sdf.device) >= count // 2
        # A shape without insides (or without outsides) gives all of its samples from the other half.
        outside_half = (outside_half | (inside == 0)) & (inside < total)
        low = torch.where(outside_half, inside, torch.zeros_like(inside))
        high = torch.where(outside_half, torch.full_like(inside, total), inside)
        index = torch.minimum((low + chance * (high - low)).long(), high.long() - 1)
        rows = shapes[:, None]
        return self.points[rows, index], self.sdf[rows, index]


def clamped_error(predicted: Tensor, truth: Tensor, clamp: float) -> Tensor:
    """Eq. 4: |clamp(f) - clamp(s)|. Both are clamped: with the truth alone, far points would be pulled to the clamp."""
    return (predicted.clamp(-clamp, clamp) - truth.clamp(-clamp, clamp)).abs()


class DeepSDFPredictor:
    """Fits codes with the decoder fixed."""

    def __init__(self, method: DeepSDF, weights: list[tuple[Tensor, Tensor]], context: Context):
        self.method, self.weights, self.context = method, weights, context

    def adapt(self, observation: Batch) -> DeepSDFShape:
        method, device = self.method, self.context.device
        generator = torch.Generator(device).manual_seed(self.context.seed(FIT_SEED))
        samples = SignedSamples(observation["sdf_points"][None], observation["sdf"][None])
        only = torch.zeros(1, dtype=torch.long, device=device)

        def loss(code: Tensor) -> Tensor:
            points, truth = samples.draw(only, method.fit_samples, generator)
            with self.context.autocast():
                predicted = decode(self.weights, code[None], points, method.skip_layer)
            error = clamped_error(predicted, truth, method.clamp).mean()
            return error + method.code_regularization * code.square().mean()  # here the mean square, as released

        start = method.fit_init * torch.randn(method.code_length, generator=generator, device=device)
        return self.shape(fit_code(loss, start, method.fit_iterations, method.fit_learning_rate))

    def shape(self, code: Tensor) -> DeepSDFShape:
        return DeepSDFShape(self.weights, code, self.method.skip_layer, self.context)

    def interpolate(self, first: DeepSDFShape, second: DeepSDFShape, share: float) -> DeepSDFShape:
        """The shape whose code lies ``share`` of the way from the ``first`` one's to the ``second`` one's."""
        return self.shape(torch.lerp(first.code, second.code, share))


class DeepSDFShape:
    """One shape: the decoder with its code [L]."""

    def __init__(self, weights: list[tuple[Tensor, Tensor]], code: Tensor, skip: int, context: Context):
        self.weights, self.code, self.skip, self.context = weights, code, skip, context

    def query(self, points: Tensor) -> Tensor:
        """Signed distances [M, 1] at points [M, 3], meaningful up to the clamp."""
        with self.context.autocast():
            return decode(self.weights, self.code[None], points[None], self.skip).float().mT
