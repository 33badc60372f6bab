"""Attention rollout: from which patches the class token's information came.

S. Abnar and W. Zuidema, Quantifying attention flow in transformers, ACL 2020, section 3: the attention of each layer, mean over
its heads, is averaged with the identity (the residual connection) and the layers are multiplied.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


def attention_layers(net: nn.Module) -> list[nn.Module]:
    """Self-attention modules with one projection ``qkv`` and a number of ``heads`` (timm says ``num_heads``)."""
    return [m for m in net.modules() if isinstance(getattr(m, "qkv", None), nn.Linear) and _heads(m)]


def _heads(module: nn.Module) -> int:
    return int(getattr(module, "heads", 0) or getattr(module, "num_heads", 0))


def attention_weights(net: nn.Module, call: Callable[[], object]) -> list[Tensor]:
    """Softmax weights [B, heads, T, T] of each layer during ``call``. The fused kernels do not give them, so they are
    computed again from what each layer was fed."""
    found: list[Tensor] = []

    def record(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        x = arguments[0]
        batch, tokens, width = x.shape
        heads = _heads(module)
        qkv = module.qkv(x).view(batch, tokens, 3, heads, width // heads).permute(2, 0, 3, 1, 4)  # type: ignore[operator]
        scores = qkv[0].float() @ qkv[1].float().transpose(-1, -2) / math.sqrt(width // heads)
        found.append(scores.softmax(-1))

    handles = [module.register_forward_pre_hook(record) for module in attention_layers(net)]
    try:
        with torch.no_grad():
            call()
    finally:
        for handle in handles:
            handle.remove()
    return found


def rollout(weights: Sequence[Tensor]) -> Tensor:
    """[B, T, T]: row i holds the shares of the input tokens in the last layer's token i; rows sum to 1."""
    tokens = weights[0].shape[-1]
    result = torch.eye(tokens, device=weights[0].device).expand(len(weights[0]), -1, -1)
    for layer in weights:
        mixed = 0.5 * layer.mean(1) + 0.5 * torch.eye(tokens, device=layer.device)
        result = mixed @ result
    return result


def patch_map(flow: Tensor, height: int, width: int) -> Tensor | None:
    """The class token's row as a map [B, h, w] of its patches, where one token comes before a grid of the image's shape."""
    patches = flow.shape[-1] - 1
    rows = round(math.sqrt(patches * height / width))
    if rows < 1 or patches % rows:
        return None
    return flow[:, 0, 1:].reshape(len(flow), rows, patches // rows)
