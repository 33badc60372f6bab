from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from adlbench.benchmark.api import AdlbenchError, ArraySplit, Batch, DataSchema, Modality
from adlbench.benchmark.tasks.base import EvaluationContext, EvaluationData
from adlbench.benchmark.tasks.image_reconstruction import ImageReconstruction
from adlbench.benchmark.tasks.protocols import evaluator_class

CONTEXT = EvaluationContext(device=torch.device("cpu"), seed=0)


def make_data(count: int = 6, size: int = 16, channels: int = 1) -> EvaluationData:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    schema = DataSchema(Modality.IMAGE, ("image",), count, count, channels=channels, image_size=(size, size))
    return EvaluationData(schema, ArraySplit(image=image), ArraySplit(image=image), "")


class Adds:
    def __init__(self, value: float):
        self.value = value

    def reconstruct(self, inputs: Batch) -> Tensor:
        return inputs["image"].float() / 255 + self.value


def test_protocol_names_it():
    assert evaluator_class("image-rgb8@1") is ImageReconstruction


def test_a_perfect_reconstruction():
    result = ImageReconstruction().evaluate(Adds(0.0), make_data(), CONTEXT)
    assert result.values["squared_error"] == 0.0
    assert result.values["psnr"] == 100.0
    assert result.values["ssim"] == pytest.approx(1.0)


def test_errors_below_half_a_level_vanish_in_quantisation():
    data = make_data()
    result = ImageReconstruction().evaluate(Adds(0.4 / 255), data, CONTEXT)
    assert result.values["squared_error"] == 0.0
    assert (result.predictions["image"] == data.test.all()["image"].numpy()).all()


def test_squared_error_is_summed_over_pixels_and_channels():
    class Black:
        def reconstruct(self, inputs: Batch) -> Tensor:
            return torch.zeros_like(inputs["image"], dtype=torch.float32)

    data = make_data(channels=3)
    result = ImageReconstruction(batch_size=4).evaluate(Black(), data, CONTEXT)
    truth = data.test.all()["image"].double().numpy() / 255
    np.testing.assert_allclose(result.items["squared_error"], (truth**2).sum((1, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(result.items["psnr"], -10 * np.log10((truth**2).mean((1, 2, 3))), rtol=1e-5)
    for name, values in result.items.items():
        assert values.mean() == pytest.approx(result.values[name])


def test_ssim_is_absent_with_a_reason_below_its_window():
    result = ImageReconstruction().evaluate(Adds(0.1), make_data(size=8), CONTEXT)
    assert "8x8" in result.absent["ssim"]
    assert set(result.values) | set(result.absent) == set(ImageReconstruction.metrics)
    assert result.images["truth above, reconstruction below"].shape[2] == 3


def test_max_items():
    result = ImageReconstruction().evaluate(Adds(0.1), make_data(), replace(CONTEXT, max_items=2))
    assert len(result.items["psnr"]) == len(result.predictions["image"]) == 2


def test_broken_output_is_an_error():
    class Wrong:
        def reconstruct(self, inputs: Batch) -> Tensor:
            return inputs["image"][:, :, :4].float()

    with pytest.raises(AdlbenchError, match="came back as"):
        ImageReconstruction().evaluate(Wrong(), make_data(), CONTEXT)
    with pytest.raises(AdlbenchError, match="NaN"):
        ImageReconstruction().evaluate(Adds(float("nan")), make_data(), CONTEXT)
    with pytest.raises(AdlbenchError, match="no items"):
        ImageReconstruction().evaluate(Adds(0.0), make_data(count=0), CONTEXT)


def test_inference_repeats_a_set_that_is_smaller_than_the_batch():
    call, samples = ImageReconstruction().inference(Adds(0.0), make_data(count=3), CONTEXT, 8)
    output = call()
    assert isinstance(output, Tensor)
    assert samples == len(output) == 8
