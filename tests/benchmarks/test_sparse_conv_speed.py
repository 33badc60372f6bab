"""Sparse convolution beside its peer: MinkowskiEngine where it is installed, dense ``conv3d`` on the same grid otherwise.

Rounds of the two alternate in random order and the verdict is the median of the paired ratios of CPU time: this holds on a
noisy machine where absolute times do not.
"""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adlbench.methods.nn.sparse_conv import SparseConv
from adlbench.methods.nn.sparse_tensor import Voxels, quantise, sparse_tensor
from adlbench.methods.segmentation.minkunet import MinkUNetNetwork

ROUNDS = 9
ITEMS, SIDE = 4, 48


def surfaces() -> Voxels:
    """Ellipsoids in a grid of 48^3 voxels: about 5 % of the cells are occupied."""
    directions = torch.randn(ITEMS, 20_000, 3, generator=torch.Generator().manual_seed(0))
    points = functional.normalize(directions, dim=-1) * torch.tensor([1.0, 0.8, 0.6])
    return quantise(points * (SIDE / 2 - 1), 1.0)


def paired_ratio(ours: Callable[[], object], peer: Callable[[], object]) -> float:
    """Median over rounds of our CPU time divided by the peer's."""
    ours(), peer()
    ratios, rng = [], np.random.default_rng(0)
    for _ in range(ROUNDS):
        seconds = {}
        for which in rng.permutation(2):
            begin = time.process_time()
            (ours, peer)[which]()
            seconds[which] = time.process_time() - begin
        ratios.append(seconds[0] / seconds[1])
    return statistics.median(ratios)


def forward_backward(net: Callable[[Tensor], Tensor], features: Tensor, parameters: list[nn.Parameter]) -> None:
    out = net(features)
    torch.autograd.grad(out, [features, *parameters], torch.ones_like(out))


def test_convolution_is_faster_than_dense(record_property: Callable[[str, object], None]) -> None:
    voxels, channels = surfaces(), 32
    conv = SparseConv(channels, channels, 3)
    features = torch.randn(len(voxels.coordinates), channels).requires_grad_()
    weight = nn.Parameter(torch.randn(channels, channels, 3, 3, 3))
    dense = torch.randn(ITEMS, channels, SIDE, SIDE, SIDE).requires_grad_()

    def ours() -> None:  # the search for neighbours included
        forward_backward(lambda x: conv(sparse_tensor(x, voxels.coordinates, ITEMS)).features, features, [conv.kernel])

    ratio = paired_ratio(
        ours, lambda: forward_backward(lambda x: functional.conv3d(x, weight, padding=1), dense, [weight])
    )
    record_property("ratio_to_dense", ratio)
    print(f"\nsparse / dense at {len(features) / (ITEMS * SIDE**3):.1%} occupancy: {ratio:.3f}")
    assert ratio < 0.5


@pytest.mark.skipif(importlib.util.find_spec("MinkowskiEngine") is None, reason="MinkowskiEngine is not installed")
@pytest.mark.parametrize("what", ["convolution 16", "convolution 64", "network"])
def test_torch_backend_keeps_up_with_minkowski_engine(
    what: str, record_property: Callable[[str, object], None]
) -> None:
    voxels = surfaces()
    if what == "network":
        net: nn.Module = MinkUNetNetwork(4, 18, (16, 32, 64, 48, 32, 16), (1,) * 6, 16, 3)
        channels = 4
    else:
        channels = int(what.split()[1])
        net = SparseConv(channels, channels, 3)
    features = torch.randn(len(voxels.coordinates), channels).requires_grad_()

    def run(backend: str) -> None:
        def forward(x: Tensor) -> Tensor:
            out = net(sparse_tensor(x, voxels.coordinates, ITEMS, backend))
            return out if isinstance(out, Tensor) else out.features

        forward_backward(forward, features, list(net.parameters()))

    ratio = paired_ratio(lambda: run("torch"), lambda: run("minkowski"))
    record_property("ratio_to_minkowski_engine", ratio)
    print(f"\n{what}: torch / MinkowskiEngine {ratio:.3f}")
    assert ratio < 1.5
