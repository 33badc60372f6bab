"""Protocol field-rgb8@1 with predictors whose scores are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from adlbench.benchmark.api import AdlbenchError, ArraySplit
from adlbench.benchmark.tasks.base import Evaluation, EvaluationContext, EvaluationData
from adlbench.benchmark.tasks.field_reconstruction import FieldReconstruction, pixel_centres, pixel_indices
from adlbench.benchmark.tasks.protocols import evaluator_class
from adlbench.datasets.reconstruction import photographs
from adlbench.datasets.reconstruction.photographs import Photographs, read_photograph

SIZE = 32


class Picture:
    """A predictor that looks the value up in an image [H, W, C]."""

    def __init__(self, image: np.ndarray):
        self.image = torch.from_numpy(image.astype(np.float32))
        self.asked: list[Tensor] = []

    def query(self, points: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        self.asked.append(points)
        height, width, channels = self.image.shape
        return self.image.reshape(-1, channels)[pixel_indices(points, height, width)]


def data_of(name: str = "camera", held_out: bool = False) -> EvaluationData:
    dataset = Photographs(photographs=(name,), size=SIZE, held_out=held_out)
    return EvaluationData(dataset.schema(name), dataset.load(name, "train"), dataset.load(name, "test"), "")


def score(predictor: Picture, data: EvaluationData, max_items: int | None = None, batch_size: int = 300) -> Evaluation:
    context = EvaluationContext(torch.device("cpu"), seed=0, max_items=max_items)
    return FieldReconstruction(batch_size=batch_size).evaluate(predictor, data, context)


def test_the_protocol_names_this_evaluator() -> None:
    assert evaluator_class("field-rgb8@1") is FieldReconstruction


def test_coordinates_of_the_engine_and_of_the_dataset_are_the_same() -> None:
    theirs = photographs.pixel_centres(5, 7).reshape(-1, 2)
    np.testing.assert_allclose(pixel_centres(5, 7).numpy(), theirs, atol=1e-7)
    assert pixel_indices(torch.from_numpy(theirs), 5, 7).tolist() == list(range(35))


@pytest.mark.parametrize("held_out", [False, True])
def test_the_truth_scores_a_hundred(held_out: bool) -> None:
    result = score(Picture(read_photograph("camera", SIZE)), data_of(held_out=held_out))
    assert result.values["psnr"] == 100.0
    assert ("ssim" in result.values) == (not held_out)
    if held_out:
        assert "not all the pixels" in result.absent["ssim"]
    else:
        assert result.values["ssim"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["camera", "astronaut"])
def test_values_agree_with_skimage_on_what_is_stored(name: str) -> None:
    rng = np.random.default_rng(0)
    truth = read_photograph(name, SIZE)
    noisy = truth + rng.normal(0, 0.1, truth.shape)  # partly outside [0, 1]
    result = score(Picture(noisy), data_of(name))
    stored = np.round(255 * np.clip(noisy.astype(np.float32), 0, 1)).astype(np.uint8)
    wanted = np.round(255 * truth).astype(np.uint8)
    np.testing.assert_array_equal(result.predictions["value"].reshape(wanted.shape), stored)
    assert result.values["psnr"] == pytest.approx(peak_signal_noise_ratio(wanted, stored), abs=1e-4)
    # scikit-image filters with a window cut at 3.5 sigma and then leaves the border away: the same 11x11, the same region
    expected = structural_similarity(
        wanted, stored, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=-1, data_range=255
    )
    assert result.values["ssim"] == pytest.approx(expected, abs=1e-4)
    assert result.items["psnr"].shape == (1,)


def test_held_out_pixels_alone_are_scored() -> None:
    data = data_of(held_out=True)
    image = read_photograph("camera", SIZE)
    image[::2, ::2] = 0.0  # wrong at every training pixel
    predictor = Picture(image)
    assert score(predictor, data).values["psnr"] == 100.0
    image[1, 1] += 0.5 if image[1, 1] < 0.5 else -0.5
    count = SIZE * SIZE * 3 // 4
    assert score(Picture(image), data).values["psnr"] == pytest.approx(10 * np.log10(count / 0.25), abs=0.05)


def test_the_order_of_the_samples_does_not_matter() -> None:
    data = data_of()
    order = np.random.default_rng(0).permutation(SIZE * SIZE)
    shuffled = replace(data, test=ArraySplit(**data.test.batch(order)))
    noisy = Picture(read_photograph("camera", SIZE) + np.random.default_rng(1).normal(0, 0.05, (SIZE, SIZE, 1)))
    first, second = score(noisy, data), score(noisy, shuffled)
    assert first.values == pytest.approx(second.values)
    for name, picture in first.images.items():
        np.testing.assert_array_equal(picture, second.images[name])


def test_a_limit_on_items_does_not_cut_the_signal() -> None:
    """A signal is one item: the first row of a picture says nothing about it."""
    image = read_photograph("camera", SIZE) + np.random.default_rng(0).normal(0, 0.05, (SIZE, SIZE, 1))
    assert score(Picture(image), data_of(), max_items=16).values == score(Picture(image), data_of()).values


def test_the_picture_shows_truth_prediction_and_error() -> None:
    image = read_photograph("camera", SIZE)
    image[5, 6] = 1.0 - image[5, 6]
    for held_out in (False, True):
        (picture,) = score(Picture(image), data_of(held_out=held_out)).images.values()
        assert picture.shape == (SIZE, 3 * SIZE, 3)
        assert picture.dtype == np.uint8
        truth, drawn, error = np.split(picture.astype(int), 3, axis=1)
        np.testing.assert_array_equal(truth[..., 0], np.round(255 * read_photograph("camera", SIZE)[..., 0]))
        np.testing.assert_array_equal(drawn[..., 0], np.round(255 * image[..., 0]))
        assert error[5, 6, 0] == min(255, 4 * abs(truth[5, 6, 0] - drawn[5, 6, 0]))
        assert (error.sum(-1) > 0).sum() == 1


def test_the_predictor_is_asked_in_batches_and_progress_ends_at_one() -> None:
    seen: list[float] = []
    predictor = Picture(read_photograph("camera", SIZE))
    context = EvaluationContext(torch.device("cpu"), seed=0, progress=seen.append)
    FieldReconstruction(batch_size=100).evaluate(predictor, data_of(), context)
    assert max(len(points) for points in predictor.asked) == 100
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


def test_values_that_are_not_finite_or_misshapen_are_errors() -> None:
    image = read_photograph("camera", SIZE)
    image[3, 3] = np.nan
    with pytest.raises(AdlbenchError, match="diverged"):
        score(Picture(image), data_of())
    with pytest.raises(AdlbenchError, match="came back as"):
        score(Picture(np.zeros((SIZE, SIZE, 3))), data_of())


def test_inference_asks_for_so_many_samples() -> None:
    predictor = Picture(read_photograph("camera", SIZE))
    context = EvaluationContext(torch.device("cpu"), seed=0)
    call, samples = FieldReconstruction().inference(predictor, data_of(), context, 5000)
    assert samples == 5000
    call()
    assert len(predictor.asked[-1]) == 5000
