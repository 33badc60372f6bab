"""The deep autoencoder and PCA."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import sklearn.decomposition
import torch
from torch import Tensor, nn

from adlbench.benchmark.api import (
    AbsentSplit,
    ArraySplit,
    Budget,
    DataError,
    DataSchema,
    Method,
    Modality,
    Reconstructs,
    TrainingData,
)
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.context import CellContext
from adlbench.datasets.classification.digits import Digits
from adlbench.methods.reconstruction.autoencoder import Autoencoder, DeepAutoencoder
from adlbench.methods.reconstruction.pca import PCA


@pytest.fixture
def context(tmp_path: Path) -> CellContext:
    torch.manual_seed(0)
    return CellContext(
        device=torch.device("cpu"),
        precision="fp32",
        budget=Budget(steps=10),
        work_folder=tmp_path,
        seed_parts=("test",),
        clock=Clock(),
    )


@pytest.fixture(scope="module")
def digits() -> tuple[TrainingData, dict[str, Tensor]]:
    dataset = Digits()
    return TrainingData(dataset.schema(), dataset.load("all", "train")), dataset.load("all", "test").all()


def make_data(count: int = 20, channels: int = 3, size: int = 6) -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    schema = DataSchema(Modality.IMAGE, ("image",), count, count, channels=channels, image_size=(size, size))
    return TrainingData(schema, ArraySplit(image=image))


def train(method: Method, data: TrainingData, context: CellContext, steps: int) -> Reconstructs:
    method.setup(data, context)
    for step in range(steps):
        context.progress = step / steps
        method.step()
    predictor = method.predictor()
    assert isinstance(predictor, Reconstructs)
    return predictor


def squared_error(predictor: Reconstructs, items: dict[str, Tensor]) -> float:
    with torch.no_grad():
        error = predictor.reconstruct(items) - items["image"].float() / 255
    return float(error.square().flatten(1).sum(1).mean())


# --------------------------------------------------------------------------------------------------------- autoencoder
def test_the_papers_network():
    """784-1000-500-250-30 and back: rectified units inside, a linear code, logistic outputs."""
    net = DeepAutoencoder((1, 28, 28), (1000, 500, 250), 30)
    linear = [m for m in net.modules() if isinstance(m, nn.Linear)]
    widths = [784, 1000, 500, 250, 30, 250, 500, 1000, 784]
    assert [(m.in_features, m.out_features) for m in linear] == list(itertools.pairwise(widths))
    assert isinstance(net.encoder[-1], nn.Linear)
    assert isinstance(net.decoder[-1], nn.Sigmoid)
    code = net.encode(torch.rand(500, 1, 28, 28))
    assert (code < 0).any()
    restored = net(torch.rand(4, 1, 28, 28))
    assert restored.shape == (4, 1, 28, 28)
    assert 0 <= float(restored.detach().min()) <= float(restored.detach().max()) <= 1


def test_signals_keep_their_size_from_layer_to_layer():
    torch.manual_seed(0)
    net = DeepAutoencoder((1, 28, 28), (1000, 500, 250), 30)
    x = torch.randn(200, 784)
    for layer in net.encoder:
        x = layer(x)
        if isinstance(layer, nn.Linear) and layer.out_features > 30:
            assert 1.2 < float(x.detach().std()) < 1.7  # sqrt(2), of which the ReLU leaves a mean square of 1


def test_the_loss_is_the_reported_number(context):
    """Summed over an image's pixels; the mean over pixels would be 784 times less."""
    data = make_data()
    method = Autoencoder(hidden=(8,), code_size=2, batch_size=1000)
    method.setup(data, context)
    expected = squared_error(method.predictor(), data.train.all())
    assert float(method.step()["squared_error"]) == pytest.approx(expected, rel=1e-5)


def test_it_restores_what_fits_into_its_code(context):
    data = make_data(count=4, channels=1)
    method = Autoencoder(hidden=(64,), code_size=8, batch_size=4, learning_rate=1e-2)
    assert squared_error(train(method, data, context, 400), data.train.all()) < 0.05


def test_it_beats_pca_on_the_digits_it_was_trained_on(digits, context):
    data, _ = digits
    items = data.train.all()
    pca = squared_error(train(PCA(code_size=4), data, context, 1), items)
    method = Autoencoder(hidden=(128, 64), code_size=4, batch_size=128, learning_rate=3e-3)
    assert squared_error(train(method, data, context, 300), items) < pca


def test_an_image_is_restored_by_itself(context):
    data = make_data()
    predictor = train(Autoencoder(hidden=(8,), code_size=2), data, context, 2)
    items = data.train.all()
    alone = torch.cat([predictor.reconstruct({"image": image[None]}) for image in items["image"]])
    torch.testing.assert_close(alone, predictor.reconstruct(items), rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------------------------------------------- PCA
def test_pca_against_scikit_learn(digits, context):
    data, test = digits
    predictor = train(PCA(code_size=8), data, context, 1)
    peer = sklearn.decomposition.PCA(8, svd_solver="full").fit(data.train.all()["image"].flatten(1).numpy() / 255.0)
    query = test["image"].flatten(1).numpy() / 255.0
    expected = peer.inverse_transform(peer.transform(query)).clip(0, 1)
    np.testing.assert_allclose(predictor.reconstruct(test).flatten(1).numpy(), expected, atol=1e-4)


def test_pca_reports_its_error_on_the_training_images_exactly(digits, context):
    data, _ = digits
    method = PCA(code_size=8)
    method.setup(data, context)
    reported = float(method.step()["squared_error"])
    image = data.train.all()["image"].flatten(1).double() / 255
    restored = method.mean + (image.float() - method.mean) @ method.components.T @ method.components
    assert reported == pytest.approx(float((restored - image).square().sum(1).mean()), rel=1e-4)
    torch.testing.assert_close(method.components @ method.components.T, torch.eye(8), rtol=0, atol=1e-5)


def test_pca_in_chunks(digits, context, monkeypatch):
    data, test = digits
    whole = train(PCA(code_size=8), data, context, 1).reconstruct(test)
    monkeypatch.setattr(PCA, "CHUNK", 100)
    torch.testing.assert_close(train(PCA(code_size=8), data, context, 1).reconstruct(test), whole, rtol=0, atol=1e-5)


def test_all_components_restore_everything(context):
    data = make_data(count=300, channels=1, size=4)
    assert squared_error(train(PCA(code_size=16), data, context, 1), data.train.all()) < 1e-8


def test_pca_of_one_image_is_that_image(context):
    data = make_data(count=1)
    assert squared_error(train(PCA(code_size=4), data, context, 1), data.train.all()) < 1e-8


def test_pca_skips_what_it_cannot_hold():
    schema = DataSchema(Modality.IMAGE, ("image",), 1, 1, channels=3, image_size=(256, 256))
    assert "covariance" in str(PCA().skip(schema))
    small = DataSchema(Modality.IMAGE, ("image",), 1, 1, channels=1, image_size=(5, 5))
    assert "25 pixels" in str(PCA(code_size=30).skip(small))
    assert PCA(code_size=25).skip(small) is None


# ---------------------------------------------------------------------------------------------------------------- both
@pytest.mark.parametrize("make", [lambda: PCA(code_size=3), lambda: Autoencoder(hidden=(8,), code_size=3)])
def test_loads_without_data(make, context):
    data = make_data()
    method = make()
    expected = train(method, data, context, 1).reconstruct(data.train.all())
    other = make()
    other.setup(TrainingData(data.schema, AbsentSplit(20)), context)
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.predictor().reconstruct(data.train.all()), expected)


@pytest.mark.parametrize("cls", [PCA, Autoencoder])
def test_an_empty_set_is_an_error(cls, context):
    with pytest.raises(DataError, match="no items"):
        cls().setup(make_data(count=0), context)
