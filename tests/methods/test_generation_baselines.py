"""The fitted Gaussian and the training-set bootstrap."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adlbench.benchmark.api import (
    AbsentSplit,
    AdlbenchError,
    ArraySplit,
    Budget,
    DataSchema,
    Method,
    Modality,
    ScoresLikelihood,
    TrainingData,
)
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.context import CellContext
from adlbench.methods.generation.bootstrap import TrainingBootstrap
from adlbench.methods.generation.gaussian import FittedGaussian


def context() -> CellContext:
    return CellContext(
        device=torch.device("cpu"),
        precision="fp32",
        budget=Budget(steps=1),
        work_folder=Path("."),
        seed_parts=("test",),
        clock=Clock(),
    )


def schema(size: tuple[int, int] = (3, 3), count: int = 5000) -> DataSchema:
    return DataSchema(Modality.IMAGE, ("image",), count, 8, channels=1, image_size=size)


def images() -> torch.Tensor:
    """Nine correlated pixels well inside 0..255, the last one always black."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(9, 9, generator=generator)
    x = 128 + 6 * torch.randn(5000, 9, generator=generator) @ mixing.T
    x[:, 8] = 0
    return x.round().clamp(0, 255).to(torch.uint8).view(-1, 1, 3, 3)


def fitted(method: Method) -> Method:
    method.setup(TrainingData(schema(), ArraySplit(image=images())), context())
    method.step()
    return method


def test_gaussian_has_the_moments_of_the_training_images():
    method = fitted(FittedGaussian())
    x = images().flatten(1).double() / 255
    torch.testing.assert_close(method.mean.double(), x.mean(0), rtol=1e-5, atol=1e-6)
    covariance = torch.cov(x.T, correction=0)
    torch.testing.assert_close(method.root.double() @ method.root.T.double(), covariance, rtol=1e-3, atol=1e-6)
    drawn = method.predictor().sample(20_000, seed=0).flatten(1).double()
    torch.testing.assert_close(drawn.mean(0), x.mean(0), rtol=0, atol=5e-3)
    torch.testing.assert_close(torch.cov(drawn.T), covariance, rtol=0.1, atol=3e-4)
    assert drawn[:, 8].max() < 1e-6  # a pixel without variance
    assert method.num_parameters() == 9 + 45


def test_gaussian_refuses_what_has_too_many_pixels():
    assert "covariance" in str(FittedGaussian().skip(schema((128, 128))))
    assert FittedGaussian().skip(schema((28, 28))) is None


def test_bootstrap_gives_training_images_and_nothing_else():
    method = fitted(TrainingBootstrap(max_images=300))
    drawn = (method.predictor().sample(1000, seed=0) * 255).round().to(torch.uint8)
    kept = {bytes(image.numpy().tobytes()) for image in method.images}
    training = {bytes(image.numpy().tobytes()) for image in images()}
    assert len(method.images) == 300
    assert {bytes(image.numpy().tobytes()) for image in drawn} <= kept <= training
    assert len({bytes(image.numpy().tobytes()) for image in drawn}) > 200  # with replacement, all over the set


@pytest.mark.parametrize("kind", [FittedGaussian, TrainingBootstrap])
def test_they_restore_without_data_and_repeat_themselves(kind):
    method = fitted(kind())
    restored = kind()
    restored.setup(TrainingData(schema(), AbsentSplit(5000)), context())
    restored.load_state_dict(method.state_dict())
    image = method.predictor().sample(7, seed=5)
    assert torch.equal(restored.predictor().sample(7, seed=5), image)
    assert not torch.equal(restored.predictor().sample(7, seed=6), image)
    assert image.shape == (7, 1, 3, 3)
    assert not isinstance(method.predictor(), ScoresLikelihood)


def test_bootstrap_without_its_step_says_so():
    method = TrainingBootstrap()
    method.setup(TrainingData(schema(), AbsentSplit(10)), context())
    with pytest.raises(AdlbenchError, match="budget"):
        method.predictor()
