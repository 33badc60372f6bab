"""The layers of PointNet: shared MLPs, max pooling over points, and both transformation networks.

Qi, Su, Mo, Guibas: PointNet: Deep Learning on Point Sets for 3D Classification and Segmentation. CVPR 2017.

A shared MLP is the same small network at every point, so that its layers are matrices applied to [B, N, C]; batch
normalisation averages over B and N. No layer before a normalisation has a bias: the normalisation would cancel it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class SharedLayer(nn.Module):
    """Linear, batch normalisation, ReLU at every point: [..., inputs] to [..., outputs]."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, features: Tensor) -> Tensor:
        return self.activate(self.linear(features))

    def activate(self, linear: Tensor) -> Tensor:
        """What follows the matrix product: [..., outputs] to the same."""
        return functional.relu(self.norm(linear.flatten(0, -2)), inplace=True).unflatten(0, linear.shape[:-1])


def shared_mlp(inputs: int, widths: Sequence[int]) -> nn.Sequential:
    """``mlp(widths)`` in the paper's notation."""
    sizes = [inputs, *widths]
    return nn.Sequential(*[SharedLayer(a, b) for a, b in pairwise(sizes)])


class PooledLayer(SharedLayer):
    """A shared layer and the maximum over the points after it: [B, N, inputs] to [B, outputs].

    The same function as ``SharedLayer(...)(x).amax(1)``, without its [B, N, outputs] intermediate results, on which a
    PointNet would spend most of its time:

    - Per channel, normalisation and ReLU are monotone, rising or falling with the sign of the scale. The maximum after
      them is therefore at the maximum, or the minimum, of the linear output, and only there do they need evaluating.
    - The linear output Wx has mean W m and variance diag(W S W^T), with m and S the mean and covariance of x. So the
      statistics, and their gradient, need S [inputs, inputs] only.
    """

    def forward(self, features: Tensor) -> Tensor:
        weight, norm = self.linear.weight, self.norm
        tracked_mean, tracked_variance = self.tracked()
        with torch.autocast(features.device.type, enabled=False):
            extreme, mean, covariance = _ExtremeAndMoments.apply(
                features.to(weight.dtype), weight, norm.weight, self.training
            )
            if self.training:
                mean, variance = weight @ mean, ((weight @ covariance) * weight).sum(1)
                self.track(mean.detach(), variance.detach(), features.shape[0] * features.shape[1])
            else:
                mean, variance = tracked_mean, tracked_variance
            scale = norm.weight * torch.rsqrt(variance + norm.eps)
            return functional.relu((extreme - mean) * scale + norm.bias)

    def track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Moves the running statistics as nn.BatchNorm1d does; ``running_var`` holds the unbiased estimate."""
        tracked_mean, tracked_variance = self.tracked()
        momentum = self.norm.momentum or 0.0
        tracked_mean.lerp_(mean, momentum)
        tracked_variance.lerp_(variance * (count / max(count - 1, 1)), momentum)
        if self.norm.num_batches_tracked is not None:
            self.norm.num_batches_tracked.add_(1)

    def tracked(self) -> tuple[Tensor, Tensor]:
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        return self.norm.running_mean, self.norm.running_var


class TNet(nn.Module):
    """Predicts a [B, k, k] transformation from features [B, N, k]: mlp(64, 128, 1024), max pooling, fc 512, 256, k * k.

    Starts at the identity (zero weights, the unit matrix as bias), without which training is slow or fails.
    """

    def __init__(self, k: int):
        super().__init__()
        self.k = k
        self.shared = shared_mlp(k, (64, 128))
        self.pooled = PooledLayer(128, 1024)
        self.fc = shared_mlp(1024, (512, 256))
        self.transform = nn.Linear(256, k * k)
        nn.init.zeros_(self.transform.weight)
        with torch.no_grad():
            self.transform.bias.copy_(torch.eye(k).flatten())

    def forward(self, features: Tensor) -> Tensor:
        matrix: Tensor = self.transform(self.fc(self.pooled(self.shared(features))))
        return matrix.unflatten(-1, (self.k, self.k))


@dataclass(frozen=True)
class PointEncoding:
    """What the encoder knows of B clouds of N points."""

    pooled: Tensor  # [B, G], the global feature
    local: list[Tensor]  # [B, N, C] each, after every layer before the pooled one, and after the feature transform
    feature_transform: Tensor  # [B, C, C]


class PointNetEncoder(nn.Module):
    """Input transform, mlp(before), feature transform, mlp(after), mlp(pooled) and max pooling.

    Each point is one or more vectors, [B, N, 3 * vectors]: its position, and perhaps its normal. The input transform is
    predicted from the positions and applied to all of them. ``before=(64, 64), after=(64, 128), pooled=1024`` is the
    paper's figure 2; ``before=(64, 128, 128), after=(512,), pooled=2048`` its part segmentation network (figure 9).
    """

    def __init__(
        self,
        before: Sequence[int] = (64, 64),
        after: Sequence[int] = (64, 128),
        pooled: int = 1024,
        *,
        vectors: int = 1,
    ):
        super().__init__()
        self.vectors = vectors
        self.input_transform = TNet(3)
        self.before = shared_mlp(3 * vectors, before)
        self.feature_transform = TNet(before[-1])
        self.after = shared_mlp(before[-1], after)
        self.pooled = PooledLayer(after[-1], pooled)
        self.local_width = sum(before) + before[-1] + sum(after)

    def forward(self, points: Tensor) -> PointEncoding:
        transform = self.input_transform(points[..., :3])
        features = torch.cat([vector @ transform for vector in points.split(3, dim=-1)], dim=-1)
        local = []
        for layer in self.before:
            features = layer(features)
            local.append(features)
        transform = self.feature_transform(features)
        features = features @ transform
        local.append(features)
        for layer in self.after:
            features = layer(features)
            local.append(features)
        return PointEncoding(self.pooled(features), local, transform)


def orthogonality_loss(transform: Tensor) -> Tensor:
    """||I - A A^T||_F^2 (equation 2) for A [B, k, k], averaged over the batch."""
    identity = torch.eye(transform.shape[-1], device=transform.device, dtype=transform.dtype)
    return (identity - transform @ transform.mT).square().sum((1, 2)).mean()


def set_norm_momentum(net: nn.Module, momentum: float) -> None:
    """Sets how far running statistics move at each step, in PyTorch's sense (1 - the paper's "decay")."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.momentum = momentum


class _ExtremeAndMoments(torch.autograd.Function):
    """For x [B, N, C] and W [O, C]: over the points the largest (where ``sign`` < 0: the smallest) W x [B, O], and, if
    ``moments``, the mean [C] and covariance [C, C] of x.

    On the CPU one cloud at a time, so that its [N, O] products stay in the cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, sign: Tensor, moments: bool) -> tuple[Tensor, Tensor, Tensor]:
        x = x.contiguous()
        clouds, count = _clouds_at_once(x), x.shape[0] * x.shape[1]
        sign = torch.where(sign < 0, -1.0, 1.0)
        flipped = weight * sign[:, None]  # maximise throughout
        mean = x.mean((0, 1)) if moments else x.new_zeros(x.shape[-1])
        covariance = x.new_zeros(x.shape[-1], x.shape[-1])
        largest, where = [], []
        for chunk in x.split(clouds):
            products = flipped @ chunk.mT  # [b, O, N]
            where.append(_argmax(products))
            largest.append(products.gather(2, where[-1][..., None])[..., 0])
            if moments:
                centred = chunk.flatten(0, 1) - mean
                covariance.addmm_(centred.T, centred, alpha=1 / count)
        extreme, index = torch.cat(largest) * sign, torch.cat(where)  # [B, O]
        ctx.save_for_backward(x, weight, index, mean)
        ctx.clouds = clouds
        return extreme, mean, covariance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        to_extreme, to_mean, to_covariance = gradients
        x, weight, index, mean = ctx.saved_tensors
        count = x.shape[0] * x.shape[1]
        linear = (to_covariance + to_covariance.T) / count
        constant = to_mean / count - mean @ linear  # of the moments' gradient, (x - mean) linear + to_mean / count
        to_x, to_weight = torch.empty_like(x), torch.zeros_like(weight)
        parts = (each.split(ctx.clouds) for each in (x, to_x, index, to_extreme))
        for chunk, out, at, gradient in zip(*parts, strict=True):
            flat = out.view(-1, x.shape[-1])
            torch.addmm(constant, chunk.flatten(0, 1), linear, out=flat)
            rows = (at + torch.arange(len(chunk), device=x.device)[:, None] * x.shape[1]).flatten()
            flat.index_add_(0, rows, (gradient[..., None] * weight).flatten(0, 1))
            to_weight += (_rows(chunk, at) * gradient[..., None]).sum(0)
        return to_x, to_weight, None, None


def _clouds_at_once(x: Tensor) -> int:
    return 1 if x.device.type == "cpu" else len(x)


def _argmax(values: Tensor) -> Tensor:
    """Along the last dimension; NumPy's is several times faster on the CPU."""
    if values.device.type == "cpu":
        return torch.from_numpy(values.numpy().argmax(-1))
    return values.argmax(-1)


def _rows(clouds: Tensor, index: Tensor) -> Tensor:
    """[b, O, C]: of every cloud [b, N, C] the points at ``index`` [b, O]."""
    if len(clouds) == 1:
        return clouds[0].index_select(0, index[0])[None]
    return clouds[torch.arange(len(clouds), device=clouds.device)[:, None], index]
