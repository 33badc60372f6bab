"""Visual analysis against captum, scikit-learn, torch's own attention and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from adlbench.benchmark.analysis.attention import attention_layers, attention_weights, patch_map, rollout
from adlbench.benchmark.analysis.deconvolution import deconvolution
from adlbench.benchmark.analysis.embedding import penultimate, tsne
from adlbench.benchmark.analysis.occlusion import occlusion_sensitivity
from adlbench.methods.classification.vit import VisionTransformer
from adlbench.methods.nn.interpolation import lerp, slerp


def small_net(inplace: bool = False) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.MaxPool2d(2), nn.BatchNorm2d(6), nn.ReLU(inplace=inplace),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(inplace=inplace), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 9, 5),
    )  # fmt: skip
    net[2].running_mean.uniform_(-0.2, 0.2)  # type: ignore[union-attr, operator]
    return net.eval()


@pytest.mark.parametrize(("window", "stride"), [(3, 1), (4, 3), (5, 2), (12, 1)])
def test_occlusion_equals_captum(window: int, stride: int) -> None:
    attr = pytest.importorskip("captum.attr")
    net, image = small_net(), torch.randn(3, 2, 12, 12)
    target = torch.tensor([0, 4, 2])
    shape = (2, window, window)
    expected = attr.Occlusion(net).attribute(image, shape, strides=(2, stride, stride), target=target)
    found = occlusion_sensitivity(net, image, target, window=window, stride=stride, batch_size=7)
    torch.testing.assert_close(found, expected[:, 0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found, expected[:, 1], rtol=1e-5, atol=1e-6)


def test_occlusion_of_a_linear_score_is_the_weighted_pixels() -> None:
    weight = torch.arange(16.0).view(1, 16)
    image = torch.ones(1, 1, 4, 4)
    found = occlusion_sensitivity(lambda x: x.flatten(1) @ weight.T, image, torch.tensor([0]), window=1, stride=1)
    torch.testing.assert_close(found, weight.view(1, 4, 4))


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU:UserWarning")
def test_deconvolution_equals_captum() -> None:
    attr = pytest.importorskip("captum.attr")
    image, target = torch.randn(4, 2, 12, 12), torch.tensor([0, 1, 2, 4])
    expected = attr.Deconvolution(small_net()).attribute(image.clone().requires_grad_(), target=target)
    found = deconvolution(small_net(inplace=True), lambda net: net(image), target)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-7)
    plain = image.clone().requires_grad_()
    small_net()(plain)[torch.arange(4), target].sum().backward()
    assert not torch.allclose(found, plain.grad)  # type: ignore[arg-type]


def test_deconvolution_puts_back_where_the_maxima_were() -> None:
    """One pooling and one ReLU by hand: the class weight, rectified, returns to the place of each window's maximum."""
    net = nn.Sequential(nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(4, 1, bias=False)).requires_grad_(False)
    net[3].weight.copy_(torch.tensor([[1.0, -2.0, 3.0, 4.0]]))  # type: ignore[union-attr, operator]
    image = torch.tensor([[1.0, 0, 0, 5], [0, 0, 0, 0], [0, 0, -1, -2], [0, 7, -3, -4]])[None, None]
    expected = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 4, 0], [0, 3, 0, 0]])[None, None]
    torch.testing.assert_close(deconvolution(net, lambda n: n(image), torch.tensor([0])), expected)


def vit(**changes: int) -> VisionTransformer:
    torch.manual_seed(1)
    settings = {"patch": 4, "width": 16, "depth": 3, "heads": 2, **changes}
    return VisionTransformer((8, 12), 1, 5, **settings).eval().requires_grad_(False)  # type: ignore[arg-type]


def test_attention_weights_are_those_of_torchs_attention() -> None:
    net, image = vit(depth=1), torch.randn(2, 1, 8, 12)
    (weights,) = attention_weights(net, lambda: net(image))
    (layer,) = attention_layers(net)
    fed: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, arguments: fed.append(arguments[0]))
    net(image)
    handle.remove()
    x = fed[0].transpose(0, 1)
    _, expected = functional.multi_head_attention_forward(
        x, x, x, 16, 2, layer.qkv.weight, layer.qkv.bias, None, None, False, 0.0, layer.proj.weight, layer.proj.bias,
        training=False, average_attn_weights=False,
    )  # fmt: skip
    assert expected is not None
    torch.testing.assert_close(weights, expected)


def test_rollout_by_hand() -> None:
    """Abnar and Zuidema's recursion in NumPy, layer by layer and head by head."""
    net, image = vit(), torch.randn(2, 1, 8, 12)
    weights = attention_weights(net, lambda: net(image))
    assert len(weights) == 3
    flow = rollout(weights)
    for item in range(2):
        expected = np.eye(7)
        for layer in weights:
            mixed = np.zeros((7, 7))
            for head in layer[item].numpy():
                mixed += 0.5 * head / len(layer[item])
            expected = (mixed + 0.5 * np.eye(7)) @ expected
        np.testing.assert_allclose(flow[item].numpy(), expected, atol=1e-6)
    torch.testing.assert_close(flow.sum(-1), torch.ones(2, 7))
    patches = patch_map(flow, 8, 12)
    assert patches is not None
    assert patches.shape == (2, 2, 3)


def test_tsne_is_scikit_learns_and_separates_blobs() -> None:
    from sklearn.manifold import TSNE
    from sklearn.metrics import silhouette_score

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 20)
    features = (rng.normal(size=(60, 10)) + 8 * np.eye(3, 10)[labels]).astype(np.float32)
    found = tsne(features, seed=3)
    expected = TSNE(2, perplexity=59 / 3, init="pca", learning_rate="auto", random_state=3).fit_transform(features)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert silhouette_score(found, labels) > 0.6
    assert np.array_equal(found, tsne(features, seed=3))


def test_penultimate_is_what_the_last_layer_sees() -> None:
    net, image = small_net(), torch.randn(3, 2, 12, 12)
    found = penultimate(net, lambda: net(image))
    assert found is not None
    torch.testing.assert_close(net[-1](found), net(image))  # type: ignore[operator, index]
    assert penultimate(nn.Flatten(), lambda: None) is None


def test_interpolations_end_at_their_ends_and_slerp_keeps_the_norm() -> None:
    start, end = functional.normalize(torch.randn(2, 64, generator=torch.Generator().manual_seed(0)), dim=-1)
    share = torch.linspace(0, 1, 9)[:, None]
    for path in (lerp(start, end, share), slerp(start, end, share)):
        torch.testing.assert_close(path[[0, -1]], torch.stack([start, end]))
    torch.testing.assert_close(slerp(start, end, share).norm(dim=-1), torch.ones(9))
    angles = (slerp(start, end, share)[:-1] * slerp(start, end, share)[1:]).sum(-1).clamp(-1, 1).acos()
    torch.testing.assert_close(angles, angles.mean().expand(8), rtol=1e-3, atol=1e-4)
