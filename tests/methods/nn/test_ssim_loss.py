"""The SSIM loss against a convolution written out: its value, its gradient, and its blocks."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from adlbench.benchmark.api import DataError
from adlbench.methods.nn import ssim_loss
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


def images(height: int, width: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    image, other = torch.rand(2, 3, height, width, dtype=torch.float64, generator=generator)
    return image.to(dtype).requires_grad_(), (0.5 * other + 0.5 * image.detach()).to(dtype)


@pytest.mark.parametrize(("dtype", "value", "gradient"), [(torch.float64, 1e-12, 1e-12), (torch.float32, 1e-6, 1e-5)])
@pytest.mark.parametrize("block", [3, 8, 64])
@pytest.mark.parametrize("size", [(17, 23), (1, 40), (40, 1), (64, 65), (63, 128)])
def test_value_and_gradient_equal_a_zero_padded_convolution(
    size: tuple[int, int],
    block: int,
    dtype: torch.dtype,
    value: float,
    gradient: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Blocks that divide the image and blocks that do not, smaller and larger than the window. The reference in float64."""
    monkeypatch.setattr(ssim_loss, "BLOCK", block)
    image, reference = images(*size, dtype)
    exact = image.detach().double().requires_grad_()
    ours, theirs = ssim(image, reference), reference_ssim(exact, reference.double())
    assert ours.item() == pytest.approx(theirs.item(), abs=value)
    (ours_grad,), (theirs_grad,) = torch.autograd.grad(3 * ours, image), torch.autograd.grad(3 * theirs, exact)
    torch.testing.assert_close(ours_grad.double(), theirs_grad, atol=gradient * float(theirs_grad.abs().max()), rtol=0)


def test_an_image_equals_itself_and_may_be_smaller_than_the_window() -> None:
    image, reference = images(4, 5)
    torch.testing.assert_close(ssim(image, image), torch.ones((), dtype=torch.float64))
    torch.testing.assert_close(ssim(image, reference), reference_ssim(image, reference))


def test_gradcheck_and_one_pixel() -> None:
    image, reference = images(3, 4)
    assert torch.autograd.gradcheck(lambda x: ssim(x, reference), image)
    assert float(ssim(torch.ones(3, 1, 1), torch.ones(3, 1, 1))) == pytest.approx(1.0)


def test_bfloat16_and_autocast_are_computed_in_float32() -> None:
    """In bfloat16 the variance of a smooth picture would be noise."""
    image, reference = (x.detach() for x in images(20, 30, torch.float32))
    half = image.bfloat16()
    assert torch.equal(ssim(half, reference.bfloat16()), ssim(half.float(), reference.bfloat16().float()))
    inside, outside = image.clone().requires_grad_(), image.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        value = ssim(inside, reference)
    assert torch.equal(value, ssim(outside, reference))
    value.backward(), ssim(outside, reference).backward()
    assert inside.grad is not None
    assert torch.equal(inside.grad, outside.grad)


def test_the_reference_has_no_gradient_and_an_image_that_is_not_a_leaf_passes_its_own_on() -> None:
    image, reference = images(12, 14)
    reference.requires_grad_()
    ssim((2 * image).sigmoid(), reference).backward()
    assert reference.grad is None
    assert image.grad is not None
    assert bool((image.grad != 0).any())


def test_more_than_2_to_the_31_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture without memory, for which there is no autocast: only its sizes are multiplied, strip by strip."""
    monkeypatch.setattr(ssim_loss, "GPU_BLOCK", 2**12)
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: nullcontext())
    side = 2**16
    assert ssim(torch.empty(1, side, side, device="meta"), torch.empty(1, side, side, device="meta")).shape == ()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [(((3, 0, 4), (3, 0, 4)), "at least one pixel"), (((3, 4, 4), (3, 4, 5)), r"\[3, 4, 4\] and \[3, 4, 5\]"),
     (((4, 4), (4, 4)), "channels, height, width")],
)  # fmt: skip
def test_wrong_use_is_named(sizes: tuple[tuple[int, ...], tuple[int, ...]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ssim(torch.ones(sizes[0]), torch.ones(sizes[1]))
    with pytest.raises(DataError, match="divide by 255"):
        ssim(torch.ones(3, 4, 4, dtype=torch.uint8), torch.ones(3, 4, 4))
