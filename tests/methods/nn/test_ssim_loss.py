"""The SSIM loss against a convolution written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adlbench.methods.nn.ssim_loss import ssim


def reference_ssim(image: Tensor, reference: Tensor) -> Tensor:
    """As in the released code of 3D Gaussian Splatting: a convolution with zero padding, per channel."""
    offset = torch.arange(11, dtype=image.dtype) - 5
    window = torch.exp(-(offset**2) / (2 * 1.5**2))
    window = window / window.sum()
    kernel = (window[:, None] * window[None, :]).expand(3, 1, 11, 11)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(x[None], kernel, padding=5, groups=3)[0]

    mu_x, mu_y = blur(image), blur(reference)
    var_x, var_y = blur(image * image) - mu_x**2, blur(reference * reference) - mu_y**2
    cov = blur(image * reference) - mu_x * mu_y
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mu_x * mu_y + c1) * (2 * cov + c2) / ((mu_x**2 + mu_y**2 + c1) * (var_x + var_y + c2))).mean()


def images(height: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image, other = torch.rand(2, 3, height, width, dtype=torch.float64, generator=generator)
    return image.requires_grad_(), 0.5 * other + 0.5 * image.detach()


def test_value_and_gradient_equal_a_zero_padded_convolution() -> None:
    image, reference = images(17, 23)
    ours, theirs = ssim(image, reference), reference_ssim(image, reference)
    torch.testing.assert_close(ours, theirs)
    (ours_grad,), (theirs_grad,) = torch.autograd.grad(ours, image), torch.autograd.grad(theirs, image)
    torch.testing.assert_close(ours_grad, theirs_grad)


def test_an_image_equals_itself_and_may_be_smaller_than_the_window() -> None:
    image, reference = images(4, 5)
    torch.testing.assert_close(ssim(image, image), torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(ssim(image, reference), reference_ssim(image, reference))


def test_gradcheck_one_pixel_no_pixel_and_half_precision() -> None:
    image, reference = images(3, 4)
    assert torch.autograd.gradcheck(lambda x: ssim(x, reference), image)
    assert float(ssim(torch.ones(3, 1, 1), torch.ones(3, 1, 1))) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="at least one pixel"):
        ssim(torch.ones(3, 0, 4), torch.ones(3, 0, 4))
    half = image.detach().bfloat16()
    assert torch.equal(ssim(half, reference.bfloat16()), ssim(half.float(), reference.bfloat16().float()))
