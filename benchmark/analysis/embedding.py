"""Embeddings in the plane: what a classifier's last layer sees, by t-SNE.

L. van der Maaten and G. Hinton, Visualizing data using t-SNE, JMLR 9, 2008; scikit-learn's implementation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def last_linear(net: nn.Module) -> nn.Linear | None:
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    return layers[-1] if layers else None


def penultimate(net: nn.Module, call: Callable[[], object]) -> Tensor | None:
    """What the network's last linear layer is fed during ``call``, [B, D]; None where there is no such layer."""
    layer, seen = last_linear(net), []
    if layer is None:
        return None

    def record(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        seen.append(arguments[0].detach().float().flatten(1).cpu())

    handle = layer.register_forward_pre_hook(record)
    try:
        with torch.no_grad():
            call()
    finally:
        handle.remove()
    return seen[-1] if seen else None


def tsne(features: NDArray[np.float32], seed: int = 0, perplexity: float = 30.0) -> NDArray[np.float32]:
    """[N, 2] of features [N, D]; the perplexity is at most a third of the neighbours that there are."""
    from sklearn.manifold import TSNE

    perplexity = min(perplexity, (len(features) - 1) / 3)
    model = TSNE(2, perplexity=perplexity, init="pca", learning_rate="auto", random_state=seed, n_jobs=1)
    return np.asarray(model.fit_transform(features), dtype=np.float32)
