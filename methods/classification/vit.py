"""Vision Transformer.

A. Dosovitskiy et al., An image is worth 16x16 words: transformers for image recognition at scale, ICLR 2021.
Ti is width 192, 12 layers, 3 heads; S is width 384, 12 layers, 6 heads. Sets as small as these want smaller ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import Batch, DataSchema, Modality, TaskKind
from adlbench.methods.base.images import normalise, random_affine
from adlbench.methods.base.supervised import SupervisedMethod
from adlbench.methods.nn.transformer import TransformerBlock


class VisionTransformer(nn.Module):
    """Patches as words, a class token, learned positions, an encoder, and a linear head on the class token.

    Images [B, C, H, W] (float) -> logits [B, K].
    """

    def __init__(
        self,
        image_size: tuple[int, int],
        channels: int,
        num_classes: int,
        *,
        patch: int,
        width: int,
        depth: int,
        heads: int,
        mlp_ratio: float = 4.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        num_patches = (image_size[0] // patch) * (image_size[1] // patch)
        self.patch_embed = nn.Conv2d(channels, width, patch, stride=patch)  # E of equation 1
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + num_patches, width))
        self.dropout = nn.Dropout(dropout)
        blocks = [TransformerBlock(width, heads, int(width * mlp_ratio), dropout=dropout) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, num_classes)
        self._init_weights()

    def forward(self, image: Tensor) -> Tensor:
        patches = self.patch_embed(image).flatten(2).transpose(1, 2)  # [B, N, D]
        x = torch.cat([self.cls_token.expand(len(image), -1, -1), patches], dim=1) + self.pos_embed
        x = self.blocks(self.dropout(x))
        return self.head(self.norm(x[:, 0]))

    def _init_weights(self) -> None:
        """Xavier uniform with zero biases, positions N(0, 0.02), and a head of zeros: the first loss is ln K."""
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                nn.init.xavier_uniform_(module.weight)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
            if name == "head":
                nn.init.zeros_(module.weight)  # type: ignore[arg-type]
        nn.init.normal_(self.pos_embed, std=0.02)


@dataclass(eq=False, kw_only=True)
class ViT(SupervisedMethod):
    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.CLASSIFICATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})

    patch: int = 4  # pixels
    width: int = 64
    depth: int = 6
    heads: int = 4
    mlp_ratio: float = 2.0
    dropout: float = 0.0
    shift: float = 2.0  # augmentation: pixels along each axis
    rotation: float = 10.0  # degrees
    zoom: float = 0.1  # 1 ± zoom

    def skip(self, schema: DataSchema) -> str | None:
        height, width = schema.image_size
        if height % self.patch or width % self.patch:
            return f"cuts the image into patches of {self.patch} pixels, which do not tile {height}x{width}"
        return super().skip(schema)

    def network(self, schema: DataSchema) -> nn.Module:
        return VisionTransformer(
            schema.image_size,
            schema.channels,
            len(schema.classes),
            patch=self.patch,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            mlp_ratio=self.mlp_ratio,
            dropout=self.dropout,
        )

    def logits(self, net: nn.Module, batch: Batch) -> Tensor:
        return net(normalise(batch["image"]))

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        image = random_affine(batch["image"], generator, degrees=self.rotation, scale=self.zoom, shift=self.shift)
        return {**batch, "image": image}
