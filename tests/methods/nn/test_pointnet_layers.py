"""The layers of PointNet against plain restatements, closed forms, and the properties that the paper builds on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adlbench.methods.nn.pointnet import (
    PointNetEncoder,
    PooledLayer,
    SharedLayer,
    TNet,
    orthogonality_loss,
    set_norm_momentum,
)


def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """Normalisations with scales of both signs and statistics of their own, T-Nets away from the identity."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if name.endswith(("norm.weight", "norm.bias", "running_mean")):
                value.copy_(torch.randn(value.shape, generator=generator, dtype=value.dtype))
            elif name.endswith("running_var"):
                value.copy_(torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5)
            elif name.endswith("transform.weight"):
                value.copy_(torch.randn(value.shape, generator=generator, dtype=value.dtype) * 0.01)
    return net


class Plain:
    """PointNet written again as 1x1 convolutions over [B, C, N], with the weights of a state dict."""

    def __init__(self, state: Mapping[str, Tensor], training: bool):
        self.state, self.training = state, training

    def layer(self, name: str, x: Tensor) -> Tensor:
        weight = self.state[f"{name}.linear.weight"]
        x = functional.conv1d(x, weight[..., None]) if x.ndim == 3 else functional.linear(x, weight)
        mean, variance = self.state[f"{name}.norm.running_mean"], self.state[f"{name}.norm.running_var"]
        scale, shift = self.state[f"{name}.norm.weight"], self.state[f"{name}.norm.bias"]
        return functional.relu(
            functional.batch_norm(x, mean.detach().clone(), variance.detach().clone(), scale, shift, self.training)
        )

    def tnet(self, name: str, x: Tensor) -> Tensor:
        k = x.shape[1]
        for layer in ("shared.0", "shared.1", "pooled"):
            x = self.layer(f"{name}.{layer}", x)
        x = x.max(2).values
        for layer in ("fc.0", "fc.1"):
            x = self.layer(f"{name}.{layer}", x)
        x = functional.linear(x, self.state[f"{name}.transform.weight"], self.state[f"{name}.transform.bias"])
        return x.view(-1, k, k)

    def encoder(self, points: Tensor, before: int, after: int, name: str = "") -> tuple[Tensor, list[Tensor], Tensor]:
        x = points.mT
        x = torch.einsum("bkn,bkl->bln", x, self.tnet(f"{name}input_transform", x))
        local = []
        for i in range(before):
            x = self.layer(f"{name}before.{i}", x)
            local.append(x)
        transform = self.tnet(f"{name}feature_transform", x)
        x = torch.einsum("bkn,bkl->bln", x, transform)
        local.append(x)
        for i in range(after):
            x = self.layer(f"{name}after.{i}", x)
            local.append(x)
        return self.layer(f"{name}pooled", x).max(2).values, local, transform


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", [(4, 33, 6), (2, 1, 6), (1, 50, 6)])
def test_pooled_layer_is_shared_layer_then_maximum(shape: tuple[int, ...], training: bool) -> None:
    torch.manual_seed(0)
    pooled = randomise(PooledLayer(shape[-1], 40).double()).train(training)
    shared = SharedLayer(shape[-1], 40).double().train(training)
    shared.load_state_dict(pooled.state_dict())
    inputs = [torch.randn(shape, dtype=torch.float64).relu_().requires_grad_() for _ in range(2)]
    inputs[1].data.copy_(inputs[0].data)
    outputs = [pooled(inputs[0]), shared(inputs[1]).amax(1)]
    torch.testing.assert_close(outputs[0], outputs[1])
    weight = torch.randn_like(outputs[0])
    for output in outputs:
        (output * weight).sum().backward()
    if shape[1] > 1:  # with one point all of them tie, and the gradient of a maximum over ties is a matter of taste
        torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    for name, parameter in pooled.named_parameters():
        torch.testing.assert_close(parameter.grad, shared.get_parameter(name).grad)
    for name, buffer in pooled.named_buffers():
        torch.testing.assert_close(buffer, shared.get_buffer(name))


def test_pooled_layer_in_one_chunk_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator takes all clouds at once where the CPU takes one at a time."""
    from adlbench.methods.nn import pointnet

    layer = randomise(PooledLayer(5, 12).double())
    x = torch.randn(3, 20, 5, dtype=torch.float64, requires_grad=True)
    results = []
    for chunk in (1, 3):
        monkeypatch.setattr(pointnet, "_clouds_at_once", lambda x, chunk=chunk: chunk)
        layer.zero_grad()
        x.grad = None
        layer(x).square().sum().backward()
        assert x.grad is not None
        results.append([x.grad.clone(), layer.linear.weight.grad.clone()])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other)


def test_pooled_layer_keeps_precision_far_from_the_origin() -> None:
    """Statistics from a covariance must not lose the variance next to a large mean."""
    torch.manual_seed(0)
    pooled, shared = PooledLayer(8, 16), SharedLayer(8, 16).double()
    shared.load_state_dict(pooled.state_dict())
    x = torch.randn(4, 100, 8) + 100
    torch.testing.assert_close(pooled(x).double(), shared(x.double()).amax(1), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("k", [3, 64])
def test_tnet_starts_at_the_identity(k: int) -> None:
    for net in (TNet(k), TNet(k).eval()):
        matrix = net(torch.randn(4, 30, k))
        assert torch.equal(matrix, torch.eye(k).expand(4, k, k))


def test_tnet_leaves_the_identity_with_the_first_step() -> None:
    net = TNet(3)
    net(torch.randn(4, 30, 3)).square().sum().backward()
    assert net.transform.weight.grad is not None
    assert net.transform.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("training", [True, False])
def test_encoder_equals_a_plain_restatement(training: bool) -> None:
    torch.manual_seed(0)
    for before, after, pooled in (((64, 64), (64, 128), 1024), ((16, 24, 24), (40,), 56)):
        net = randomise(PointNetEncoder(before, after, pooled).double()).train(training)
        points = torch.randn(4, 50, 3, dtype=torch.float64)
        expected, local, transform = Plain(net.state_dict(), training).encoder(points, len(before), len(after))
        encoding = net(points)
        torch.testing.assert_close(encoding.pooled, expected)
        torch.testing.assert_close(encoding.feature_transform, transform)
        assert [x.shape[-1] for x in encoding.local] == [*before, before[-1], *after]
        for one, other in zip(encoding.local, local, strict=True):
            torch.testing.assert_close(one, other.mT)
        assert net.local_width == sum(x.shape[-1] for x in encoding.local)


def test_gradients_of_the_encoder_equal_a_plain_restatement() -> None:
    torch.manual_seed(0)
    net = randomise(PointNetEncoder((8, 8), (8, 12), 20).double())
    points = torch.randn(3, 40, 3, dtype=torch.float64)
    leaves = {k: v.detach().clone().requires_grad_(v.is_floating_point()) for k, v in net.state_dict().items()}
    pooled, local, transform = Plain(leaves, training=True).encoder(points, 2, 2)
    (pooled.square().sum() + sum(x.square().sum() for x in local) + orthogonality_loss(transform)).backward()
    encoding = net(points)
    total = encoding.pooled.square().sum() + sum(x.square().sum() for x in encoding.local)
    (total + orthogonality_loss(encoding.feature_transform)).backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, leaves[name].grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("training", [True, False])
def test_pooled_feature_ignores_the_order_of_points(training: bool) -> None:
    net = randomise(PointNetEncoder().double()).train(training)
    points = torch.randn(3, 60, 3, dtype=torch.float64)
    order = torch.randperm(60)
    one, other = net(points), net(points[:, order])
    torch.testing.assert_close(one.pooled, other.pooled)
    torch.testing.assert_close(one.local[-1][:, order], other.local[-1])


def test_repeated_points_change_nothing_in_evaluation() -> None:
    """Theorem 2: the feature depends on a critical subset only."""
    net = randomise(PointNetEncoder()).eval()
    points = torch.randn(2, 40, 3)
    doubled = torch.cat([points, points[:, :25]], dim=1)
    torch.testing.assert_close(net(points).pooled, net(doubled).pooled)


def test_orthogonality_loss_in_closed_form() -> None:
    assert float(orthogonality_loss(torch.eye(5).expand(3, 5, 5))) == 0.0
    # A = 2 I: ||I - 4 I||_F^2 = 9 k
    assert float(orthogonality_loss(2 * torch.eye(4)[None])) == pytest.approx(36.0)
    rotation = torch.linalg.qr(torch.randn(6, 64, 64)).Q
    assert float(orthogonality_loss(rotation)) < 1e-8
    # not ||A (A^T - I)||, which a reimplementation has: that is 0 for A = 0
    assert float(orthogonality_loss(torch.zeros(1, 7, 7))) == pytest.approx(7.0)
    both = torch.stack([torch.zeros(3, 3), torch.eye(3)])
    assert float(orthogonality_loss(both)) == pytest.approx(1.5)  # a mean over the batch


def test_norm_momentum_reaches_every_layer() -> None:
    net = PointNetEncoder((8, 8), (8,), 16)
    set_norm_momentum(net, 1.0)
    points = torch.randn(4, 30, 3)
    net(points)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d)]
    assert len(norms) == 2 * 5 + 2 + 1 + 1
    assert {norm.momentum for norm in norms} == {1.0}
    # at momentum 1 the running statistics are this batch's
    expected = net.input_transform.shared[0].linear(points).flatten(0, 1)
    torch.testing.assert_close(net.input_transform.shared[0].norm.running_mean, expected.mean(0))
    pooled = net.pooled.linear(net(points).local[-1]).flatten(0, 1)
    torch.testing.assert_close(net.pooled.norm.running_var, pooled.var(0), atol=1e-5, rtol=1e-4)


def test_mixed_precision_keeps_the_pooled_statistics_in_fp32() -> None:
    torch.manual_seed(0)
    net = PointNetEncoder()
    points = torch.rand(2, 64, 3)
    exact = net(points).pooled.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = net(points)
    assert mixed.pooled.dtype == torch.float32
    assert float((mixed.pooled.detach() - exact).abs().mean() / exact.abs().mean()) < 0.05
    mixed.pooled.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())
