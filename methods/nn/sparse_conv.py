"""Layers on sparse tensors, with MinkowskiEngine's kernel layout, normalisation and pooling.

Each equals its dense counterpart on the same support: a convolution reads zero where there is no voxel and is evaluated
only where there is one. Pooling does not read zeros: it is over the voxels that are present.

Under autocast in bfloat16 features are bfloat16 from the first convolution on; instance normalisation gives float32. Products
and sums, and the statistics of normalisation, are in float32, and rounded once at the end of a layer; the gradients of
kernels, weights and biases are not rounded. Plain torch, without numba or on a GPU, may round more often.
"""

from __future__ import annotations

import importlib
import math
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from adlbench.benchmark.api import AdlbenchError
from adlbench.methods.nn.sparse_coordinates import on_tiles
from adlbench.methods.nn.sparse_tensor import SparseTensor


@cache
def norms() -> Any:
    """The module ``sparse_norm_numba``, imported when it is needed: numba takes a second."""
    return importlib.import_module("adlbench.methods.nn.sparse_norm_numba")


class SparseConv(nn.Module):
    """A convolution; with ``stride`` 1 a submanifold one: the output has the voxels of the input.

    ``kernel`` is [K, Cin, Cout] with K = kernel_size^3 and index (kz * kernel_size + ky) * kernel_size + kx.
    ``transposed`` divides the stride instead and restores the voxels that the tensor had there before.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        stride: int = 1,
        *,
        dilation: int = 1,
        bias: bool = False,
        transposed: bool = False,
    ):
        super().__init__()
        self.kernel_size, self.stride, self.dilation, self.transposed = kernel_size, stride, dilation, transposed
        self.kernel = nn.Parameter(torch.empty(kernel_size**3, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        bound = 1.0 / math.sqrt((outputs if transposed else inputs) * kernel_size**3)
        nn.init.uniform_(self.kernel, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: SparseTensor) -> SparseTensor:
        out_stride = x.stride // self.stride if self.transposed else x.stride * self.stride
        features = x.manager.convolve(
            x.features, self.kernel, x.stride, out_stride, self.kernel_size, dilation=self.dilation
        )
        if self.bias is not None:
            features = features + self.bias.to(features.dtype)
        return SparseTensor(features, x.manager, out_stride)

    def extra_repr(self) -> str:
        inputs, outputs = self.kernel.shape[1:]
        transposed = ", transposed" if self.transposed else ""
        return f"{inputs}, {outputs}, kernel_size={self.kernel_size}, stride={self.stride}{transposed}"


class SparseBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over all voxels of the batch, whichever item they are of: ``nn.BatchNorm1d`` on [N, C].

    Large items weigh more than small ones, as in MinkowskiEngine.
    """

    def forward(  # type: ignore[override]
        self, x: SparseTensor, *, shortcut: SparseTensor | None = None, rectify: bool = False
    ) -> SparseTensor:
        """With what follows in a network: the features of ``shortcut`` added, and a ReLU if ``rectify``. In bfloat16 on a CPU with
        a tile unit that is one pass over the voxels."""
        features = x.features
        training = self.training and len(features) > 1  # a single voxel has no variance: the running one serves
        if training and self.affine and on_tiles(features):
            return x.replace(self._compiled(features, shortcut, rectify=rectify))
        image = features[None, :, None, :].permute(0, 3, 1, 2)  # channels-last: the CPU has a faster kernel for it
        image = functional.batch_norm(
            image, self.running_mean, self.running_var, self.weight, self.bias, training, self.momentum or 0.0, self.eps
        )
        features = image.permute(0, 2, 3, 1).reshape(features.shape)
        if shortcut is not None:
            features = features + shortcut.features
        return x.replace(functional.relu(features) if rectify else features)

    def _compiled(self, features: Tensor, shortcut: SparseTensor | None, *, rectify: bool) -> Tensor:
        added = None if shortcut is None else shortcut.features.to(features.dtype)
        function, momentum = norms().BatchNorm, self.momentum or 0.0
        out, mean, variance = function.apply(features, self.weight, self.bias, added, rectify, self.eps)
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * (len(features) / (len(features) - 1)), momentum)
        return out  # type: ignore[no-any-return]


class SparseInstanceNorm(nn.Module):
    """Each item's channels to mean 0 and variance 1 over its own voxels, then scale and shift."""

    def __init__(self, channels: int, eps: float = 1e-8):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: SparseTensor) -> SparseTensor:
        items = x.manager.items(x.stride)
        features = x.features.to(torch.promote_types(x.features.dtype, torch.float32))
        centred = features - x.manager.pool_items(features, x.stride, "mean").index_select(0, items)
        variance = x.manager.pool_items(centred.square(), x.stride, "mean")
        scale = (variance + self.eps).rsqrt().index_select(0, items)
        return x.replace(centred * scale * self.weight + self.bias)


class SparseReLU(nn.Module):
    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.replace(functional.relu(x.features))  # in place on the view that normalisation gives costs more


class SparseGELU(nn.Module):
    def forward(self, x: SparseTensor) -> SparseTensor:
        return x.replace(functional.gelu(x.features))


class SparseDropout(nn.Dropout):
    def forward(self, x: SparseTensor) -> SparseTensor:  # type: ignore[override]
        return x.replace(super().forward(x.features))


def checked_mode(mode: str) -> str:
    if mode not in ("max", "mean", "sum"):
        raise AdlbenchError(f"pooling mode '{mode}' is not one of max, mean, sum")
    return mode


class SparsePool(nn.Module):
    """``mode`` "max", "mean" or "sum" over the voxels present in each kernel."""

    def __init__(self, mode: str, kernel_size: int, stride: int):
        super().__init__()
        self.mode, self.kernel_size, self.stride = checked_mode(mode), kernel_size, stride

    def forward(self, x: SparseTensor) -> SparseTensor:
        out_stride = x.stride * self.stride
        pooled = x.manager.pool(x.features, x.stride, out_stride, self.kernel_size, self.mode)
        return SparseTensor(pooled, x.manager, out_stride)


class SparseGlobalPool(nn.Module):
    """``mode`` "max", "mean" or "sum" over all voxels of each item: a plain tensor [B, C]."""

    def __init__(self, mode: str):
        super().__init__()
        self.mode = checked_mode(mode)

    def forward(self, x: SparseTensor) -> Tensor:
        return x.manager.pool_items(x.features, x.stride, self.mode)


# --------------------------------------------------------------------------------------------------------------- blocks
class ResidualBlock(nn.Module):
    """Two 3^3 convolutions with batch normalisation and a shortcut; the basic block of He et al. 2016."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.conv1 = SparseConv(inputs, outputs, 3, stride)
        self.norm1 = SparseBatchNorm(outputs)
        self.conv2 = SparseConv(outputs, outputs, 3)
        self.norm2 = SparseBatchNorm(outputs)
        self.downsample = (
            nn.Sequential(SparseConv(inputs, outputs, 1, stride), SparseBatchNorm(outputs))
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        out = self.conv2(self.norm1(self.conv1(x), rectify=True))
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.norm2(out, shortcut=shortcut, rectify=True)  # type: ignore[no-any-return]


def residual_stage(inputs: int, outputs: int, blocks: int, stride: int = 1) -> nn.Sequential:
    """``blocks`` residual blocks, of which the first changes the stride and the channels."""
    first = ResidualBlock(inputs, outputs, stride)
    return nn.Sequential(first, *[ResidualBlock(outputs, outputs) for _ in range(blocks - 1)])


class ConvNormReLU(nn.Sequential):
    def __init__(self, inputs: int, outputs: int, kernel_size: int, stride: int = 1, *, transposed: bool = False):
        super().__init__(
            SparseConv(inputs, outputs, kernel_size, stride, transposed=transposed), SparseBatchNorm(outputs)
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        return self[1](self[0](x), rectify=True)  # type: ignore[no-any-return]


def initialise_fan_out(net: nn.Module) -> None:
    """He initialisation by outgoing connections of all convolutions that are not transposed, as in MinkowskiEngine's nets."""
    for module in net.modules():
        if isinstance(module, SparseConv) and not module.transposed:
            taps, _, outputs = module.kernel.shape
            nn.init.normal_(module.kernel, std=math.sqrt(2.0 / (taps * outputs)))
