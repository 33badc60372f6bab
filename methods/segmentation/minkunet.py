"""MinkUNet: a residual U-Net of sparse convolutions.

C. Choy, J. Gwak and S. Savarese, 4D Spatio-Temporal ConvNets: Minkowski Convolutional Neural Networks, CVPR 2019. The
network is the one of MinkowskiEngine's examples; ``planes`` and ``layers`` give its sizes:

===  =======================================  ========================
14A  (32, 64, 128, 256, 128, 128, 96, 96)     (1, 1, 1, 1, 1, 1, 1, 1)
18A  (32, 64, 128, 256, 128, 128, 96, 96)     (2, 2, 2, 2, 2, 2, 2, 2)
34C  (32, 64, 128, 256, 256, 128, 96, 96)     (2, 3, 4, 6, 2, 2, 2, 2)
===  =======================================  ========================

It learns on voxels, those with points of different labels left out, and answers for the points: each gets what its voxel
got, so that two labels in one voxel count as the error that they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from adlbench.benchmark.api import AdlbenchError, Batch, DataSchema, Modality, TaskKind
from adlbench.methods.base.voxel_points import VoxelMethod
from adlbench.methods.nn.sparse_conv import ConvNormReLU, SparseConv, initialise_fan_out, residual_stage
from adlbench.methods.nn.sparse_tensor import SparseTensor, cat

IGNORE_LABEL = -100


@dataclass(eq=False, kw_only=True)
class MinkUNet(VoxelMethod):
    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.SEGMENTATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.POINTS})
    target: ClassVar[str] = "point_label"

    planes: tuple[int, ...] = (32, 64, 128, 256, 128, 128, 96, 96)  # down, then up: 18A
    layers: tuple[int, ...] = (2, 2, 2, 2, 2, 2, 2, 2)  # residual blocks of each
    stem_channels: int = 32
    stem_kernel: int = 5

    def network(self, schema: DataSchema) -> nn.Module:
        if len(self.planes) != len(self.layers) or len(self.planes) % 2:
            raise AdlbenchError(
                f"planes {list(self.planes)} and layers {list(self.layers)} must be as long as each other, and even"
            )
        return MinkUNetNetwork(
            self.in_channels, len(schema.parts), self.planes, self.layers, self.stem_channels, self.stem_kernel
        )

    def logits(self, net: nn.Module, batch: Batch) -> Tensor:
        x, voxels = self.voxels(batch)
        return voxels.to_points(net(x))

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x, voxels = self.voxels(batch)
        logits = net(x).float()  # [V, K]
        label = voxels.labels(batch[self.target], IGNORE_LABEL)
        classes_first = logits.t().contiguous()  # [K, V]: with so few classes several times faster than along rows
        losses = functional.cross_entropy(
            classes_first[None],
            label[None],
            ignore_index=IGNORE_LABEL,
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        kept = label != IGNORE_LABEL
        count = kept.sum().clamp(min=1)
        scores = classes_first.detach()
        mine = scores.gather(0, label.clamp(min=0)[None])[0]
        correct = ((mine == scores.amax(0)) & kept).sum()  # argmax along columns costs ten times as much
        return {"loss": losses.sum() / count, "accuracy": correct / count, "mixed_voxels": 1.0 - kept.float().mean()}


class MinkUNetNetwork(nn.Module):
    """[V, inputs] at stride 1 to logits [V, classes] there. Encoder i halves the resolution, decoder i restores it."""

    def __init__(
        self,
        inputs: int,
        classes: int,
        planes: tuple[int, ...],
        layers: tuple[int, ...],
        stem_channels: int = 32,
        stem_kernel: int = 5,
    ):
        super().__init__()
        depth = len(planes) // 2
        self.stem = ConvNormReLU(inputs, stem_channels, stem_kernel)
        self.down, self.encoders = nn.ModuleList(), nn.ModuleList()
        self.up, self.decoders = nn.ModuleList(), nn.ModuleList()
        width, skips = stem_channels, [stem_channels, *planes[: depth - 1]]
        for out, blocks in zip(planes[:depth], layers[:depth], strict=True):
            self.down.append(ConvNormReLU(width, width, 2, 2))
            self.encoders.append(residual_stage(width, out, blocks))
            width = out
        for out, blocks, skip in zip(planes[depth:], layers[depth:], reversed(skips), strict=True):
            self.up.append(ConvNormReLU(width, out, 2, 2, transposed=True))
            self.decoders.append(residual_stage(out + skip, out, blocks))
            width = out
        self.final = SparseConv(width, classes, 1, bias=True)
        initialise_fan_out(self)

    def forward(self, x: SparseTensor) -> Tensor:
        x = self.stem(x)
        skips = []
        for down, encoder in zip(self.down, self.encoders, strict=True):
            skips.append(x)
            x = encoder(down(x))
        for up, decoder, skip in zip(self.up, self.decoders, reversed(skips), strict=True):
            x = decoder(cat(up(x), skip))
        with torch.autocast(x.features.device.type, enabled=False):  # bfloat16 would make near logits equal
            return self.final(x.replace(x.features.to(self.final.kernel.dtype))).features  # type: ignore[no-any-return]
