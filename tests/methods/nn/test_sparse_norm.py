"""Batch normalisation in bfloat16, with shortcut and ReLU in the same pass, against torch's in double precision.

What is rounded to bfloat16 may be off by 2^-8 of itself; sums in float32 over some thousand rows add 1e-5 of the largest number.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

pytest.importorskip("numba")

from adlbench.methods.nn import amx_numba, sparse_numba
from adlbench.methods.nn.sparse_conv import ResidualBlock, SparseBatchNorm
from adlbench.methods.nn.sparse_tensor import SparseTensor, sparse_tensor

if not amx_numba.available():
    pytest.skip("this CPU has no tile unit (AMX), or hides it", allow_module_level=True)

from adlbench.methods.nn.sparse_norm_numba import BatchNorm


def make(rows: int, channels: int, mean: float = 3.0) -> tuple[list[Tensor], Tensor]:
    """Features, weight, bias and shortcut, and a gradient of what comes out."""
    generator = torch.Generator().manual_seed(rows + channels)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    inputs = [(random(rows, channels) * 2 + mean).bfloat16(), random(channels), random(channels)]
    inputs.append(random(rows, channels).bfloat16())
    return [each.requires_grad_() for each in inputs], random(rows, channels).bfloat16()


def assert_close(found: Tensor, exact: Tensor, terms: float = 0.0) -> None:
    """``terms`` is the size of what is subtracted from each other, where that is more than the result."""
    relative = 2.0**-8 if found.dtype == torch.bfloat16 else 0.0
    bound = relative * exact.abs() + 1e-5 * max(float(exact.abs().max()), terms)
    assert ((found.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("with_shortcut", [False, True])
@pytest.mark.parametrize(("rows", "channels"), [(2, 3), (5, 1), (2500, 24), (1024, 32), (1030, 40), (3000, 97)])
def test_it_is_torchs(rows: int, channels: int, with_shortcut: bool, rectify: bool) -> None:
    inputs, gradient = make(rows, channels)
    inputs = inputs[: 4 if with_shortcut else 3]
    out, mean, variance = BatchNorm.apply(*inputs[:3], inputs[3] if with_shortcut else None, rectify, 1e-5)
    found = torch.autograd.grad(out, inputs, gradient)
    doubles = [each.detach().double().requires_grad_() for each in inputs]
    exact = functional.batch_norm(doubles[0], None, None, doubles[1], doubles[2], training=True, eps=1e-5)
    exact = exact + doubles[3] if with_shortcut else exact
    if rectify:
        passed = out > 0
        assert ((exact > 0) == passed)[exact.abs() > 1e-4].all()
        exact = exact * passed  # rounding may decide on which side of zero a number is
    assert_close(out.detach(), exact.detach())
    expected = torch.autograd.grad(exact, doubles, gradient.double())
    deviation = (doubles[0].detach().var(0, correction=0) + 1e-5).sqrt()
    assert_close(found[0], expected[0], float((gradient * doubles[1].detach() / deviation).abs().max()))
    for ours, theirs in zip(found[1:], expected[1:], strict=True):
        assert_close(ours, theirs)
    assert_close(mean, doubles[0].detach().mean(0))
    assert_close(variance, doubles[0].detach().var(0, correction=0))


def test_a_mean_far_from_zero_costs_no_digits() -> None:
    inputs, _ = make(4000, 5, mean=1000.0)
    _, _, variance = BatchNorm.apply(*inputs[:3], None, False, 1e-5)
    torch.testing.assert_close(variance.double(), inputs[0].detach().double().var(0, correction=0), rtol=1e-5, atol=0)


def test_what_is_not_a_number_stays_seen() -> None:
    inputs, _ = make(50, 4)
    with torch.no_grad():
        inputs[0][7, 2] = torch.nan
    out, _, _ = BatchNorm.apply(*inputs[:3], None, True, 1e-5)
    assert out.isnan().any(0).tolist() == [False, False, True, False]


def test_the_number_of_threads_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_numba, "PARALLEL", 0)
    inputs, gradient = make(5000, 20)
    results = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        outputs = BatchNorm.apply(*inputs, True, 1e-5)
        results.append([*outputs, *torch.autograd.grad(outputs[0], inputs, gradient)])
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def on_a_line(features: Tensor) -> SparseTensor:
    places = torch.arange(len(features))
    return sparse_tensor(features, torch.stack([0 * places, places, 0 * places, 0 * places], 1), 1)


def test_the_layer_keeps_the_same_running_statistics_as_in_float32() -> None:
    inputs, _ = make(500, 6)
    ours, theirs = SparseBatchNorm(6, momentum=0.2), SparseBatchNorm(6, momentum=0.2)
    shortcut = on_a_line(inputs[3].detach())
    x = on_a_line(inputs[0].detach())
    out = ours(x, shortcut=shortcut, rectify=True)
    assert out.features.dtype == torch.bfloat16
    expected = theirs(x.replace(x.features.float()), shortcut=shortcut.replace(shortcut.features.float()), rectify=True)
    assert_close(out.features.detach(), expected.features.detach().double())
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    ours.eval(), theirs.eval()
    torch.testing.assert_close(
        ours(x, rectify=True).features.float(), theirs(x.replace(x.features.float()), rectify=True).features,
        atol=0.02, rtol=0.02,
    )  # fmt: skip


def test_a_single_voxel_is_normalised_by_what_came_before() -> None:
    norm = SparseBatchNorm(3)
    assert norm(on_a_line(torch.randn(1, 3).bfloat16())).features.isfinite().all()
    assert norm.running_mean is not None
    assert not norm.running_mean.any()


def test_a_block_under_autocast_is_close_to_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    places = torch.randint(0, 9, (400, 3), generator=generator).unique(dim=0)
    coordinates = torch.cat([torch.zeros(len(places), 1, dtype=torch.int64), places], 1)
    features = torch.randn(len(places), 8, generator=generator)
    block, results = ResidualBlock(8, 16, 2), []
    for enabled in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = block(sparse_tensor(features, coordinates, 1)).features
        gradients = torch.autograd.grad(out.float().square().sum(), block.norm1.weight)
        results.append((out.float(), *gradients))
    for exact, halves in zip(*results, strict=True):
        assert (halves - exact).norm() < 0.02 * exact.norm()
