"""PSNR and SSIM against closed forms, scikit-image and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.metrics import image as image_metrics
from adlbench.benchmark.metrics.image import MAX_PSNR, psnr, quantize, ssim


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 6, 8, generator=generator)
    reference = torch.nn.functional.interpolate(coarse, size=(40, 52), mode="bilinear")[0]
    return (reference + 0.1 * torch.randn(3, 40, 52, generator=generator)).clamp(0, 1), reference


def test_quantize_is_what_a_png_would_hold() -> None:
    values = torch.tensor([-0.2, 0.0, 0.4 / 255, 0.6 / 255, 0.5, 1.0, 1.7])
    assert quantize(values).tolist() == [0, 0, 0, 1, 128, 255, 255]
    stored = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(quantize(stored), stored)
    assert torch.equal(quantize(stored / 255), stored)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_quantize_refuses_what_is_not_finite(value: float) -> None:
    with pytest.raises(AdlbenchError, match="1 of 2 values"):
        quantize(torch.tensor([0.5, value]))


def test_psnr_of_a_constant_error() -> None:
    reference = torch.full((2, 3, 4, 4), 0.5)
    offset = torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    torch.testing.assert_close(psnr(reference + offset, reference), torch.tensor([20.0, 40.0]), atol=1e-3, rtol=0)


def test_psnr_is_per_image_and_not_pooled() -> None:
    """Squared errors of 1e-2 and 1e-4 average to 30 dB; pooled they would give 22.97."""
    reference = torch.zeros(2, 1, 8, 8)
    image = torch.tensor([0.1, 0.01]).view(2, 1, 1, 1).expand(2, 1, 8, 8)
    assert psnr(image, reference).mean().item() == pytest.approx(30, abs=1e-3)


def test_equal_images_have_a_finite_psnr(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert psnr(pair[1], pair[1]).item() == pytest.approx(MAX_PSNR)
    assert ssim(pair[1], pair[1]).item() == pytest.approx(1, abs=1e-6)


def test_psnr_equals_skimage(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    expected = metrics.peak_signal_noise_ratio(pair[1].numpy(), pair[0].numpy(), data_range=1)
    assert psnr(*pair).item() == pytest.approx(expected, abs=1e-4)
    stored = [quantize(x) for x in pair]
    expected = metrics.peak_signal_noise_ratio(stored[1].numpy(), stored[0].numpy(), data_range=255)
    assert psnr(*stored).item() == pytest.approx(expected, abs=1e-4)


def test_ssim_equals_skimage_with_the_gaussian_window(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    image, reference = (x.double().numpy() for x in pair)
    expected = metrics.structural_similarity(image, reference, channel_axis=0, **options)
    assert ssim(*pair).item() == pytest.approx(expected, abs=1e-5)
    box = metrics.structural_similarity(image, reference, channel_axis=0, data_range=1.0)
    assert abs(box - expected) > 1e-3  # skimage's default is another quantity


@pytest.mark.parametrize("size", [(11, 11), (11, 150), (150, 11), (74, 75), (138, 139)])
@pytest.mark.parametrize("block", [1, 7, image_metrics.BLOCK])
def test_ssim_equals_skimage_at_the_borders_of_its_blocks(
    size: tuple[int, int], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    monkeypatch.setattr(image_metrics, "BLOCK", block)
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    image, noise = torch.rand(2, 2, 3, *size, generator=torch.Generator().manual_seed(3))
    reference = 0.7 * image + 0.3 * noise
    found = ssim(image, reference)
    for item in range(2):
        pair = (x[item].double().numpy() for x in (image, reference))
        expected = metrics.structural_similarity(*pair, channel_axis=0, **options)
        assert found[item].item() == pytest.approx(expected, abs=1e-5)


def test_gradient_of_ssim_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against finite differences of scikit-image's value in float64."""
    metrics = pytest.importorskip("skimage.metrics")
    options = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    image, reference = torch.rand(2, 1, 15, 17, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr(image_metrics, "BLOCK", 3)
    (found,) = torch.autograd.grad(ssim(image.requires_grad_(), reference), image)
    start, step = image.detach().double().numpy(), 1e-5
    for place in ((0, 0, 0), (0, 7, 8), (0, 14, 3), (0, 5, 16)):
        values = []
        for sign in (1, -1):
            moved = start.copy()
            moved[place] += sign * step
            values.append(metrics.structural_similarity(moved, reference.double().numpy(), channel_axis=0, **options))
        assert found[place].item() == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-6)


def test_no_image_and_bfloat16(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    assert ssim(torch.zeros(0, 3, 16, 16), torch.zeros(0, 3, 16, 16)).shape == (0,)
    assert psnr(torch.zeros(0, 3, 16, 16), torch.zeros(0, 3, 16, 16)).shape == (0,)
    half = [x.bfloat16() for x in pair]
    assert torch.equal(ssim(*half), ssim(*(x.float() for x in half)))
    assert torch.equal(psnr(*half), psnr(*(x.float() for x in half)))
    with pytest.raises(AdlbenchError, match="0 channels"):
        ssim(torch.zeros(0, 16, 16), torch.zeros(0, 16, 16))


def test_ssim_differs_from_torchmetrics_by_the_border_only(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    """torchmetrics reflects at the border and keeps it; inside, its map is the same."""
    functional = pytest.importorskip("torchmetrics.functional.image")
    image, reference = pair[0][None], pair[1][None]
    value, full = functional.structural_similarity_index_measure(
        image, reference, data_range=1.0, return_full_image=True
    )
    assert ssim(image, reference).item() == pytest.approx(full[..., 5:-5, 5:-5].mean().item(), abs=1e-5)
    assert ssim(image, reference).item() != pytest.approx(value.item(), abs=1e-5)


def test_ssim_of_constant_images_in_closed_form() -> None:
    """No variance, no covariance: only the luminance term is left, (2ab + C1) / (a^2 + b^2 + C1)."""
    a, b, c1 = 0.3, 0.6, 0.01**2
    value = ssim(torch.full((1, 16, 16), a), torch.full((1, 16, 16), b)).item()
    assert value == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1), abs=1e-5)


def test_ssim_keeps_leading_dimensions_and_orders(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    noisier = (pair[1] + 3 * (pair[0] - pair[1])).clamp(0, 1)
    stack = torch.stack([torch.stack([pair[1], pair[0]]), torch.stack([noisier, pair[0]])])  # [2, 2, 3, H, W]
    values = ssim(stack, pair[1].expand_as(stack))
    assert values.shape == (2, 2)
    assert values[0, 0] > values[0, 1] > values[1, 0]
    torch.testing.assert_close(values[0, 1], ssim(*pair))


def test_ssim_is_differentiable(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    image = pair[0].clone().requires_grad_()
    before = ssim(image, pair[1])
    before.backward()
    assert image.grad is not None
    after = ssim((image + 0.05 * image.grad / image.grad.abs().max()).detach(), pair[1])
    assert after > before


def test_ssim_is_in_full_precision_under_autocast(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        inside = ssim(*pair)
    assert torch.equal(inside, ssim(*pair))


def test_errors_name_the_sizes() -> None:
    with pytest.raises(AdlbenchError, match="11x11"):
        ssim(torch.zeros(3, 8, 40), torch.zeros(3, 8, 40))
    with pytest.raises(AdlbenchError, match=r"\(3, 4, 5\) and \(3, 5, 4\)"):
        psnr(torch.zeros(3, 4, 5), torch.zeros(3, 5, 4))
    with pytest.raises(AdlbenchError, match="shape"):
        psnr(torch.zeros(4, 5), torch.zeros(4, 5))


def test_uint8_and_float_agree() -> None:
    stored = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 16, 16), dtype=np.uint8))
    torch.testing.assert_close(psnr(stored[:1], stored[1:]), psnr(stored[:1] / 255, stored[1:] / 255))
    torch.testing.assert_close(ssim(stored[:1], stored[1:]), ssim(stored[:1] / 255, stored[1:] / 255))
