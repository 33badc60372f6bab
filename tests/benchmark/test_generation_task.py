"""Protocol generation-fd@1 on predictors whose score is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from adlbench.benchmark.api import AdlbenchError, ArraySplit, Batch, DataSchema, Modality
from adlbench.benchmark.tasks.base import Evaluation, EvaluationContext, EvaluationData
from adlbench.benchmark.tasks.generation import ImageGeneration, Stages, binarise, sheet
from adlbench.benchmark.tasks.protocols import evaluator_class


def digits() -> EvaluationData:
    from adlbench.datasets.classification.digits import Digits

    dataset = Digits()
    return EvaluationData(dataset.schema(), dataset.load("all", "train"), dataset.load("all", "test"), "")


def context(**changes: object) -> EvaluationContext:
    return EvaluationContext(**{"device": torch.device("cpu"), "seed": 1, **changes})  # type: ignore[arg-type]


class Copies:
    """Training images, drawn with replacement."""

    def __init__(self, image: Tensor):
        self.image = image.float() / 255

    def sample(self, n: int, seed: int) -> Tensor:
        return self.image[torch.randint(len(self.image), (n,), generator=torch.Generator().manual_seed(seed))]


class Pixels:
    """Independent grey pixels of a given brightness, with the likelihood of binary ones."""

    def __init__(self, p: float, channels: int = 1, size: int = 8):
        self.p, self.shape = p, (channels, size, size)

    def sample(self, n: int, seed: int) -> Tensor:
        return torch.rand(n, *self.shape, generator=torch.Generator().manual_seed(seed)) * 2 * self.p

    def log_likelihood(self, inputs: Batch) -> Tensor:
        assert set(inputs["image"].unique().tolist()) <= {0, 255}
        x = inputs["image"].double().flatten(1) / 255
        return (x * math.log(self.p) + (1 - x) * math.log(1 - self.p)).sum(1)


class Interpolating(Copies):
    def interpolate(self, seed: int, steps: int) -> Tensor:
        return torch.linspace(0, 1, steps).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)


@pytest.fixture(scope="module")
def copies() -> Evaluation:
    data = digits()
    return ImageGeneration().evaluate(Copies(data.train.all()["image"]), data, context())


def test_training_images_score_well_and_are_found_out(copies):
    assert copies.notes["fd_name"] == "FD-digits"
    assert copies.notes["num_generated"] == copies.notes["num_real"] == 360
    assert 0.3 < copies.values["fd_over_floor"] < 3  # halves have fewer images, training images other writers
    assert copies.values["precision"] > 0.7
    assert copies.values["recall"] > 0.7
    assert copies.values["classifier_score"] == pytest.approx(copies.notes["classifier_score_real"], abs=1)
    assert copies.values["neighbour_ratio"] == 0
    assert "likelihood" in copies.absent["nll"]


def test_noise_scores_badly_and_is_no_copy(copies):
    noise = ImageGeneration().evaluate(Pixels(0.3), digits(), context())
    assert noise.values["fd"] > 10 * copies.values["fd"]
    assert noise.values["kid"] > 10 * copies.values["kid"]
    assert noise.values["recall"] < 0.1
    assert noise.values["coverage"] < 0.1
    assert noise.values["neighbour_ratio"] > 1


def test_every_metric_has_a_value_or_a_reason(copies):
    assert {*copies.values, *copies.absent} == set(ImageGeneration.metrics)
    assert not {*copies.values} & {*copies.absent}
    assert all(math.isfinite(value) for value in copies.values.values())


def test_the_same_evaluation_twice_gives_the_same_numbers_and_another_seed_others(copies):
    data = digits()
    predictor = Copies(data.train.all()["image"])
    again = ImageGeneration().evaluate(predictor, data, context())
    assert again.values == copies.values
    assert np.array_equal(again.predictions["image"], copies.predictions["image"])
    assert ImageGeneration().evaluate(predictor, data, context(seed=2)).values["fd"] != copies.values["fd"]


def test_negative_log_likelihood_is_exact_and_on_the_same_binary_images_for_every_seed():
    data = digits()
    first, second = (ImageGeneration().evaluate(Pixels(0.4), data, context(seed=s)) for s in (1, 2))
    x = binarise(data.test.all()["image"]).double().flatten(1) / 255
    expected = -(x * math.log(0.4) + (1 - x) * math.log(0.6)).sum(1)
    np.testing.assert_allclose(first.items["nll"], expected)
    assert first.values["nll"] == pytest.approx(float(expected.mean())) == second.values["nll"]
    assert first.values["fd"] != second.values["fd"]


def test_binarisation_has_the_grey_value_as_its_probability():
    image = torch.tensor([0, 64, 255], dtype=torch.uint8).view(1, 1, 1, 3).expand(4000, 1, 1, 3)
    binary = binarise(image)
    assert set(binary.unique().tolist()) == {0, 255}
    shares = binary.float().mean((0, 1, 2)) / 255
    assert shares[0] == 0
    assert float(shares[1]) == pytest.approx(64 / 255, abs=0.02)
    assert shares[2] == 1  # a draw is below 1
    assert torch.equal(binary, binarise(image))


def test_fewer_items_and_caps():
    data = digits()
    predictor = Pixels(0.3)
    few = ImageGeneration().evaluate(predictor, data, context(max_items=40))
    assert few.notes["num_real"] == few.notes["num_generated"] == 40
    capped = ImageGeneration(max_images=50, likelihood_images=20, stored_images=5).evaluate(predictor, data, context())
    assert capped.notes["num_real"] == 50
    assert len(capped.items["nll"]) == capped.notes["nll_images"] == 20
    assert len(capped.predictions["image"]) == 5
    tiny = ImageGeneration().evaluate(predictor, data, context(max_items=4))
    assert "at least 8" in tiny.absent["fd"]
    assert "nll" in tiny.values


def test_images_are_quantised_before_they_are_scored():
    data = digits()

    class Slightly(Copies):
        def sample(self, n: int, seed: int) -> Tensor:
            return super().sample(n, seed) + 0.3 / 255

    exact, moved = (
        ImageGeneration().evaluate(kind(data.train.all()["image"]), data, context()) for kind in (Copies, Slightly)
    )
    assert exact.values == moved.values
    assert exact.predictions["image"].dtype == np.uint8


def test_colour_images_have_no_likelihood_and_their_own_extractor(monkeypatch, tmp_path):
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path))
    image = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    schema = DataSchema(Modality.IMAGE, ("image",), 20, 20, channels=3, image_size=(32, 32))
    data = EvaluationData(schema, ArraySplit(image=image), ArraySplit(image=image), "")
    result = ImageGeneration().evaluate(Pixels(0.3, 3, 32), data, context())
    assert "3 channels" in result.absent["nll"]
    assert "resnet20" in result.absent["fd"]  # its weights are not there: no value, and where they go
    assert str(tmp_path) in result.absent["fd"]
    assert result.values["neighbour_ratio"] > 0
    assert result.images["samples"].shape[2] == 3


def test_an_image_size_without_extractor_is_answered_with_the_option_to_set():
    schema = DataSchema(Modality.IMAGE, ("image",), 20, 20, channels=1, image_size=(12, 12))
    split = ArraySplit(image=torch.zeros(20, 1, 12, 12, dtype=torch.uint8))
    result = ImageGeneration().evaluate(Pixels(0.3, 1, 12), EvaluationData(schema, split, split, ""), context())
    assert "1x12x12: NAME" in result.absent["fd"]
    wrong = ImageGeneration(extractor={"1x12x12": "digits"}).evaluate(
        Pixels(0.3, 1, 12), EvaluationData(schema, split, split, ""), context()
    )
    assert "(8, 8)" in wrong.absent["fd"]


def test_wrong_predictions_are_named():
    with pytest.raises(AdlbenchError, match=r"\[360, 1, 9, 9\], not \[360, 1, 8, 8\]"):
        ImageGeneration().evaluate(Pixels(0.3, 1, 9), digits(), context())
    with pytest.raises(AdlbenchError, match="NaN"):
        ImageGeneration().evaluate(Pixels(math.nan), digits(), context())


def test_pictures(copies):
    assert copies.images["samples"].dtype == np.uint8
    assert copies.images["samples"].shape == (8 * 58, 8 * 58, 3)
    pairs = copies.images["samples above, nearest training images below"]
    assert np.array_equal(pairs[:58], pairs[58:])  # a copy is its own nearest training image
    assert "interpolation between latent codes" not in copies.images
    data = digits()
    shown = ImageGeneration().evaluate(Interpolating(data.train.all()["image"]), data, context(max_items=16)).images
    assert shown["interpolation between latent codes"].shape == (4 * 58, 10 * 58, 3)
    assert sheet(torch.zeros(5, 3, 8, 8, dtype=torch.uint8), columns=3).shape == (2 * 58, 3 * 58, 3)


def test_inference_makes_the_images_that_it_counts():
    data = digits()
    call, samples = ImageGeneration().inference(Pixels(0.3), data, context(), 32)
    image = call()
    assert isinstance(image, Tensor)
    assert len(image) == samples == 32


def test_progress_goes_from_stage_to_stage():
    seen: list[float] = []
    ImageGeneration(batch_size=100).evaluate(Pixels(0.3), digits(), context(progress=seen.append))
    assert seen == sorted(seen)
    assert seen[-1] == pytest.approx(1)
    stages = Stages(seen.append, first=0.25, second=0.75)
    stages("second", 0.5)
    assert seen[-1] == pytest.approx(0.625)


def test_the_protocol_names_this_evaluator():
    assert evaluator_class("generation-fd@1") is ImageGeneration
