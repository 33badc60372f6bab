"""The compiled products of sparse convolutions against plain torch, one tap at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("numba")

from adlbench.methods.nn import sparse_numba
from adlbench.methods.nn import sparse_product_numba as products
from adlbench.methods.nn.sparse_coordinates import KernelMap, TorchCoordinates
from adlbench.methods.nn.sparse_tensor import quantise

if not products.AVAILABLE:
    pytest.skip("the processor has no AVX2", allow_module_level=True)


def make_map(out_stride: int, kernel_size: int, points: int = 3000) -> KernelMap:
    """More targets than a block has."""
    places = torch.randint(-11, 11, (2, points, 3), generator=torch.Generator().manual_seed(0)).float()
    kernel_map = TorchCoordinates(quantise(places, 1.0).coordinates, 2).kernel_map(1, out_stride, kernel_size)
    assert max(kernel_map.num_sources, kernel_map.num_targets) > 2 * products.BLOCK
    return kernel_map


def by_taps(values: Tensor, kernel: Tensor, kernel_map: KernelMap) -> Tensor:
    padded = torch.cat([values, values.new_zeros(1, values.shape[1])])
    columns = kernel_map.table.long().unbind(1)
    return sum(  # type: ignore[return-value]
        (padded[column] @ matrix for column, matrix in zip(columns, kernel, strict=True)),
        start=values.new_zeros(kernel_map.num_targets, kernel.shape[2]),
    )


@pytest.mark.parametrize(("out_stride", "kernel_size"), [(1, 3), (2, 2), (2, 3), (2, 1), (3, 3), (1, 2)])
def test_runs_hold_every_pair_once(out_stride: int, kernel_size: int) -> None:
    forth = make_map(out_stride, kernel_size)
    for kernel_map in (forth, forth.adjoint):
        runs, table = kernel_map.runs, kernel_map.table
        absent = kernel_map.num_sources
        found = torch.full_like(table, absent)
        for block in range(len(runs.starts)):
            for run, tap in enumerate(runs.taps):
                pairs = slice(*runs.starts[block, run : run + 2])
                found[runs.targets[pairs], int(tap)] = torch.from_numpy(runs.sources[pairs])
        assert torch.equal(found, table)
        assert len(runs.sources) == kernel_map.num_pairs
        if runs.once:
            assert (kernel_map.counts == 1).all()
    assert forth.adjoint.runs.once == (kernel_size == out_stride == 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("inputs", "outputs"), [(1, 1), (3, 16), (7, 17), (9, 33), (32, 32), (40, 72)])
@pytest.mark.parametrize(("out_stride", "kernel_size"), [(1, 3), (2, 2), (2, 3)])
def test_products_are_torchs(out_stride: int, kernel_size: int, inputs: int, outputs: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)
    forth = make_map(out_stride, kernel_size)
    features = torch.randn(forth.num_sources, inputs, generator=generator, dtype=dtype)
    kernel = torch.randn(forth.taps, inputs, outputs, generator=generator, dtype=dtype, requires_grad=True)
    gradient = torch.randn(forth.num_targets, outputs, generator=generator, dtype=dtype)
    tolerance = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 2e-4}
    expected = by_taps(features.requires_grad_(), kernel, forth)
    to_features, to_kernel = torch.autograd.grad(expected, [features, kernel], gradient)
    torch.testing.assert_close(products.multiply(features, kernel, forth.runs), expected.detach(), **tolerance)
    back = products.multiply(gradient, kernel, forth.adjoint.runs, transposed=True)
    torch.testing.assert_close(back, to_features, **tolerance)
    ours = products.kernel_gradient(features, gradient, kernel, forth.runs)
    scale = float(to_kernel.abs().max())  # a sum over thousands of pairs
    torch.testing.assert_close(ours / scale, to_kernel / scale, rtol=0, atol=1e-12 if dtype == torch.float64 else 1e-6)


def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_numba, "PARALLEL", 0)
    forth = make_map(1, 3)
    generator = torch.Generator().manual_seed(2)
    features, gradient = (torch.randn(forth.num_sources, 20, generator=generator) for _ in range(2))
    kernel = torch.randn(forth.taps, 20, 20, generator=generator)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append(
            (
                products.multiply(features, kernel, forth.runs),
                products.multiply(gradient, kernel, forth.adjoint.runs, transposed=True),
                products.kernel_gradient(features, gradient, kernel, forth.runs),
            )
        )
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
