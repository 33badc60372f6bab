"""Fused layers against double precision with the same rounded inputs, and NeRF's network on it against the plain one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adlbench.methods.nn import fused_mlp as module
from adlbench.methods.nn.fused_mlp import Layer, fused, fused_mlp
from adlbench.methods.nn.positional_encoding import PositionalEncoding
from adlbench.methods.novel_view_synthesis.nerf import NeRFNetwork, encode_position

with_tiles = pytest.mark.skipif(not module._has_tiles(), reason="needs numba and a processor with AMX")
# Half a unit in the last of bfloat16's eight digits, for what comes out rounded; sums are in float32.
ROUNDED, SUMMED = 2**-8, 2e-6


@pytest.fixture
def autocast() -> Iterator[None]:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        yield


def rounded(x: Tensor) -> Tensor:
    return x.detach().bfloat16().double().requires_grad_()


@with_tiles
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs", "extra", "groups"),
    [
        (0, 32, 32, 1, 0),
        (1, 3, 5, 1, 0),
        (32, 32, 32, 0, 0),
        (100, 51, 128, 0, 0),
        (33, 179, 128, 2, 7),
        (300, 16, 16, 20, 1),
        (9000, 64, 0, 3, 0),
        (8200, 128, 64, 1, 40),  # more rows than one thread goes through at a time, whose groups lie across the parts
    ],
)
def test_equals_double_precision(rows: int, inputs: int, outputs: int, extra: int, groups: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    x, weight, v = random(rows, inputs), random(outputs, inputs) / inputs**0.5, random(extra, inputs) / inputs**0.5
    bias, c = random(groups, outputs) if groups else random(outputs), random(extra)
    group = torch.randint(groups, (rows,), generator=generator).sort().values if groups else None
    pulls = random(rows, outputs).bfloat16(), random(rows, extra)
    given = [each.requires_grad_() for each in (x, weight, bias, v, c)]
    out, other = fused_mlp(x, [Layer(weight, bias, (v, c))], group)
    assert out.dtype == torch.bfloat16
    assert other.dtype == torch.float32
    gradients = torch.autograd.grad([out, other], given, pulls)

    exact = [
        rounded(x),
        rounded(weight),
        bias.detach().double().requires_grad_(),
        rounded(v),
        c.detach().double().requires_grad_(),
    ]
    sums = exact[0] @ exact[1].T + (exact[2] if group is None else exact[2][group])
    wanted = torch.relu(sums), exact[0] @ exact[3].T + exact[4]
    # ReLU's gradient is asked at the rounded value: where a sum is so small that it matters, it would be another function
    through = torch.autograd.grad(
        wanted, exact, [pulls[0].double() * ((out > 0) == (sums > 0)), rounded(pulls[1]).detach()]
    )
    found, sought = (out, other, *gradients), (*(each.detach() for each in wanted), *through)
    tolerances = (ROUNDED, SUMMED, ROUNDED, SUMMED, SUMMED, SUMMED, ROUNDED)  # c's gradient: of what was not rounded
    for got, want, tolerance in zip(found, sought, tolerances, strict=True):
        scale = want.abs().max() if want.numel() else torch.tensor(0.0)
        size = max(1.0, rows / 2000) if tolerance == SUMMED else 1.0  # longer sums in float32
        torch.testing.assert_close(got.double(), want, rtol=0, atol=float(scale * tolerance * size))


@with_tiles
def test_threads_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(20_000, 64, generator=generator), torch.randn(96, 64, generator=generator)
    bias, pull = torch.randn(50, 96, generator=generator), torch.randn(20_000, 96, generator=generator).bfloat16()
    group = torch.arange(50).repeat_interleave(400)
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            given = [each.clone().requires_grad_() for each in (x, weight, bias)]
            out, _ = fused_mlp(given[0], [Layer(*given[1:])], group)
            results.append([out.detach(), *torch.autograd.grad(out, given, pull)])
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_only_under_autocast_to_bfloat16_and_with_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.zeros(1)
    assert not fused(x)
    monkeypatch.setattr(module, "_has_tiles", lambda: True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert fused(x)
        monkeypatch.setattr(module, "_has_tiles", lambda: False)
        assert not fused(x)
    monkeypatch.setattr(module, "_has_tiles", lambda: True)
    with torch.autocast("cpu", dtype=torch.float16):
        assert not fused(x)


@with_tiles
@pytest.mark.usefixtures("autocast")
def test_a_linear_layer_alone() -> None:
    x, weight, bias = torch.randn(2, 7, 64), torch.randn(3, 64), torch.randn(3)
    expected = rounded(x) @ rounded(weight).T + bias.double()
    torch.testing.assert_close(
        fused_mlp(x, [Layer.linear(weight, bias)])[1].double(), expected.detach(), rtol=1e-5, atol=1e-5
    )


@with_tiles
@pytest.mark.usefixtures("autocast")
@pytest.mark.parametrize("octaves", [1, 10])
@pytest.mark.parametrize("include_input", [True, False])
def test_octaves_by_doubling_angles(octaves: int, include_input: bool) -> None:
    """They are the exact ones rounded to bfloat16, but for the doubling's error of 2^octaves units of float32."""
    encoding = PositionalEncoding(3, octaves, include_input)
    points = torch.rand(5, 40, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    encoded = encoding.for_fused(points)
    features = encoding.out_features
    assert encoded.shape == (5, 40, -(-features // 32) * 32)
    assert (encoded[..., features:] == 0).all()
    exact = encoding(points)  # its phases are products in float32 too
    error = (encoded[..., :features].float() - exact).abs()
    assert (error <= exact.abs() * 2**-8 + 2.0**octaves * 2**-22).all()


@with_tiles
@pytest.mark.parametrize("depth", [2, 6])  # without and with the layer where the position joins in again
def test_nerfs_network_is_as_near_to_double_precision_as_the_plain_one(
    depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    encoding, directions = PositionalEncoding(3, 4), torch.randn(30, 9)
    network = NeRFNetwork(depth, 64, 4, encoding.out_features, 9)
    points = torch.rand(30, 20, 3) * 2 - 1

    def results(precise: bool) -> list[Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not precise):
            density, rgb = network(encode_position(encoding, points), directions)
        loss = F.softplus(density).mean() + rgb.square().mean()
        return [density, rgb, *torch.autograd.grad(loss, list(network.parameters()))]

    fast = results(False)
    monkeypatch.setattr(module, "_has_tiles", lambda: False)
    plain = results(False)
    network, points, directions = network.double(), points.double(), directions.double()
    exact = results(True)
    for own, other, want in zip(fast, plain, exact, strict=True):
        scale = want.norm() + 1e-12
        own_error, other_error = (own.double() - want).norm() / scale, (other.double() - want).norm() / scale
        assert own_error < max(1.5 * other_error, 1e-3), (own_error, other_error)


@with_tiles
@pytest.mark.usefixtures("autocast")
def test_samples_of_a_list_are_seen_through_their_rays() -> None:
    torch.manual_seed(0)
    network = NeRFNetwork(2, 32, 4, 27, 9)
    position, direction = torch.randn(6, 5, 27), torch.randn(6, 9)
    density, rgb = network(position, direction)
    ray = torch.arange(6).repeat_interleave(5)
    flat = network(position.flatten(0, 1), direction, ray)
    assert torch.equal(flat[0].view(6, 5), density)
    assert torch.equal(flat[1].view(6, 5, 3), rgb)


@with_tiles
@pytest.mark.usefixtures("autocast")
def test_no_points_at_all() -> None:
    network = NeRFNetwork(6, 32, 4, 27, 9)
    position = PositionalEncoding(3, 4).for_fused(torch.empty(0, 3))
    density, rgb = network(position, torch.randn(2, 9), torch.empty(0, dtype=torch.int64))
    (density.sum() + rgb.sum()).backward()
    assert density.shape == (0,)
    assert rgb.shape == (0, 3)
    assert all((each.grad == 0).all() for each in network.parameters() if each.grad is not None)


def through(x: Tensor) -> Tensor:
    """Rounded to bfloat16, with the gradient of what is not rounded."""
    return x + (x.bfloat16().double() - x).detach()


@with_tiles
@pytest.mark.parametrize("inputs", [20, 70])
def test_gradients_to_an_input_that_joins_in_again(inputs: int) -> None:
    """Three layers, of which the last sees the input too, against double precision with the same roundings on the way forward:
    otherwise some ReLUs would be on the other side, which is a tenth of a gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, inputs, generator=generator)
    shapes = ((40, inputs), (24, 40), (32, inputs + 24))
    layers = [
        (torch.randn(*shape, generator=generator) / shape[1] ** 0.5, torch.randn(shape[0], generator=generator))
        for shape in shapes
    ]
    pull = torch.randn(300, 32, generator=generator).bfloat16()
    given = [x, *(each for layer in layers for each in layer)]
    for each in given:
        each.requires_grad_()
    out, _ = fused_mlp(x, [Layer(*layers[0]), Layer(*layers[1]), Layer(*layers[2], joins=True)])
    gradients = torch.autograd.grad(out, given, pull)

    exact = [each.detach().double().requires_grad_() for each in given]
    h = first = through(exact[0])
    for place, joins in ((1, False), (3, False), (5, True)):
        before = torch.cat([first, h], dim=-1) if joins else h
        h = through(torch.relu(before @ through(exact[place]).T + exact[place + 1]))
    wanted = torch.autograd.grad(h, exact, pull.double())
    for got, want in zip((out, *gradients), (h, *wanted), strict=True):
        assert (
            got.double() - want
        ).norm() < 0.01 * want.norm()  # three roundings to eight bits, and some signs of ReLU
