"""A residual network of sparse convolutions.

C. Choy, J. Gwak and S. Savarese, 4D Spatio-Temporal ConvNets: Minkowski Convolutional Neural Networks, CVPR 2019; the
network is the ResNet of MinkowskiEngine 0.5's examples. By default, with total strides on the right:

=======  =============================================================================================  ===
stem     3^3 convolution of stride 2 to 64, instance norm, ReLU, 2^3 max pooling of stride 2             4
stages   of 64, 128, 256, 512 channels: basic blocks (1 each: ResNet14, 2 each: ResNet18), stride 2 each  64
head     dropout 0.5, 3^3 convolution of stride 3, instance norm, GELU                                   192
top      maximum over the voxels of an item, linear
=======  =============================================================================================  ===

It expects objects of a hundred voxels or more a side; for smaller ones ``stem_stride``, ``stem_pool`` and ``head`` keep
the resolution, and batch norm replaces instance norm, which leaves nothing of an item that is down to one voxel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import AdlbenchError, Batch, DataSchema, Modality, TaskKind
from adlbench.methods.base.voxel_points import VoxelMethod
from adlbench.methods.nn.sparse_conv import (
    SparseBatchNorm,
    SparseConv,
    SparseDropout,
    SparseGELU,
    SparseGlobalPool,
    SparseInstanceNorm,
    SparsePool,
    SparseReLU,
    initialise_fan_out,
    residual_stage,
)
from adlbench.methods.nn.sparse_tensor import SparseTensor


@dataclass(eq=False, kw_only=True)
class SparseResNet(VoxelMethod):
    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.CLASSIFICATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.POINTS})

    planes: tuple[int, ...] = (64, 128, 256, 512)  # channels of the stages
    layers: tuple[int, ...] = (1, 1, 1, 1)  # blocks of the stages: ResNet14; (2, 2, 2, 2) is ResNet18
    stem_channels: int = 64
    stem_stride: int = 2
    stem_pool: bool = True
    head: bool = True  # the last convolution
    norm: str = "instance"  # of stem and head: "instance" or "batch"
    dropout: float = 0.5

    def network(self, schema: DataSchema) -> nn.Module:
        if self.norm not in ("instance", "batch"):
            raise AdlbenchError(f"norm '{self.norm}' is neither 'instance' nor 'batch'")
        if len(self.planes) != len(self.layers):
            raise AdlbenchError(f"planes {list(self.planes)} and layers {list(self.layers)} differ in length")
        return SparseResNetNetwork(
            self.in_channels,
            len(schema.classes),
            planes=self.planes,
            layers=self.layers,
            stem_channels=self.stem_channels,
            stem_stride=self.stem_stride,
            stem_pool=self.stem_pool,
            head=self.head,
            norm=SparseInstanceNorm if self.norm == "instance" else SparseBatchNorm,
            dropout=self.dropout,
        )

    def logits(self, net: nn.Module, batch: Batch) -> Tensor:
        return net(self.voxels(batch)[0])


class SparseResNetNetwork(nn.Module):
    def __init__(
        self,
        inputs: int,
        classes: int,
        *,
        planes: tuple[int, ...] = (64, 128, 256, 512),
        layers: tuple[int, ...] = (1, 1, 1, 1),
        stem_channels: int = 64,
        stem_stride: int = 2,
        stem_pool: bool = True,
        head: bool = True,
        norm: type[SparseInstanceNorm] | type[SparseBatchNorm] = SparseInstanceNorm,
        dropout: float = 0.5,
    ):
        super().__init__()
        stem: list[nn.Module] = [
            SparseConv(inputs, stem_channels, 3, stem_stride),
            norm(stem_channels),
            SparseReLU(),
        ]
        self.stem = nn.Sequential(*stem, *([SparsePool("max", 2, 2)] if stem_pool else []))
        widths = (stem_channels, *planes)
        self.stages = nn.Sequential(
            *[residual_stage(a, b, blocks, 2) for a, b, blocks in zip(widths, planes, layers, strict=False)]
        )
        last = widths[-1]
        convolution = [SparseConv(last, last, 3, 3), norm(last), SparseGELU()] if head else []
        self.head = nn.Sequential(SparseDropout(dropout), *convolution)
        self.pool = SparseGlobalPool("max")
        self.final = nn.Linear(last, classes)
        initialise_fan_out(self)

    def forward(self, x: SparseTensor) -> Tensor:
        pooled = self.pool(self.head(self.stages(self.stem(x))))
        with torch.autocast(pooled.device.type, enabled=False):  # bfloat16 would make near logits equal
            return self.final(pooled.to(self.final.weight.dtype))  # type: ignore[no-any-return]
