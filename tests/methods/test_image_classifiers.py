"""CNN, ViT, nearest neighbours and the majority class."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from adlbench.benchmark.api import (
    AbsentSplit,
    ArraySplit,
    Budget,
    DataError,
    DataSchema,
    Method,
    Modality,
    PredictsLogits,
    TrainingData,
)
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.context import CellContext
from adlbench.datasets.classification.digits import Digits
from adlbench.methods.classification.cnn import CNN
from adlbench.methods.classification.knn import KNNPixels, NearestImages
from adlbench.methods.classification.majority import MajorityClass
from adlbench.methods.classification.vit import VisionTransformer, ViT
from adlbench.methods.nn.transformer import SelfAttention, TransformerBlock

LEARNED: list[tuple[type[CNN] | type[ViT], dict[str, Any]]] = [
    (CNN, {"widths": (8, 16)}),
    (ViT, {"patch": 2, "width": 16, "depth": 2, "heads": 2}),
]


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


def make_data(count: int = 30, num_classes: int = 10, size: int = 8, channels: int = 1) -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    schema = DataSchema(
        Modality.IMAGE,
        ("image", "label"),
        count,
        count,
        classes=tuple(map(str, range(num_classes))),
        channels=channels,
        image_size=(size, size),
    )
    image = torch.randint(0, 256, (count, channels, size, size), generator=generator, dtype=torch.uint8)
    label = torch.randint(0, num_classes, (count,), generator=generator)
    return TrainingData(schema, ArraySplit(image=image, label=label))


def digits() -> tuple[TrainingData, dict[str, Tensor]]:
    dataset = Digits()
    return TrainingData(dataset.schema(), dataset.load("all", "train")), dataset.load("all", "test").all()


def train(method: Method, data: TrainingData, context: CellContext, steps: int) -> PredictsLogits:
    method.setup(data, context)
    for step in range(steps):
        context.progress = step / steps
        method.step()
    predictor = method.predictor()
    assert isinstance(predictor, PredictsLogits)
    return predictor


def top1(predictor: PredictsLogits, items: dict[str, Tensor]) -> float:
    with torch.no_grad():
        return float((predictor.logits(items).argmax(1) == items["label"]).float().mean())


# ------------------------------------------------------------------------------------------------------------- learned
@pytest.mark.parametrize(("cls", "parameters"), LEARNED)
@pytest.mark.parametrize(("channels", "size", "count"), [(1, 8, 30), (3, 12, 1)])
def test_steps_and_predicts(cls, parameters, channels, size, count, context):
    data = make_data(count, channels=channels, size=size)
    predictor = train(cls(**parameters, batch_size=16), data, context, 2)
    logits = predictor.logits(data.train.all())
    assert logits.shape == (count, 10)
    assert logits.isfinite().all()


@pytest.mark.parametrize(("cls", "parameters"), LEARNED)
def test_an_item_is_predicted_by_itself(cls, parameters, context):
    """Normalisation over the batch must not reach evaluation."""
    data = make_data()
    predictor = train(cls(**parameters), data, context, 3)
    items = data.train.all()
    alone = torch.cat([predictor.logits({"image": image[None]}) for image in items["image"]])
    torch.testing.assert_close(alone, predictor.logits(items), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("cls", "parameters"), LEARNED)
def test_the_test_set_is_not_augmented(cls, parameters, context):
    data = make_data()
    predictor = train(cls(**parameters, shift=3.0, rotation=30.0), data, context, 1)
    assert torch.equal(predictor.logits(data.train.all()), predictor.logits(data.train.all()))


def test_augmentation_keeps_labels_and_changes_images():
    data = make_data()
    for method in (CNN(shift=2.0), ViT(shift=2.0)):
        batch = data.train.all()
        changed = method.augment(dict(batch), torch.Generator().manual_seed(0))
        assert torch.equal(changed["label"], batch["label"])
        assert not torch.equal(changed["image"], batch["image"])


def test_skip_says_which_images_do_not_fit():
    schema = make_data(size=10).schema
    assert "8x8" not in str(CNN().skip(schema))
    assert CNN(widths=(4, 8, 16)).skip(schema) is None
    assert "16 pixels" in str(CNN(widths=(4, 8, 16, 32)).skip(schema))
    assert ViT(patch=5).skip(schema) is None
    assert "10x10" in str(ViT(patch=4).skip(schema))
    assert "classes" in str(ViT(patch=5).skip(replace(schema, classes=())))


def test_cnn_learns_digits(context):
    data, test = digits()
    method = CNN(widths=(8, 16), learning_rate=5e-3, batch_size=128, shift=0.5, dropout=0.0)
    assert top1(train(method, data, context, 100), test) > 0.9


def test_vit_learns_digits(context):
    data, _ = digits()
    items = data.train.batch(range(60))
    few = TrainingData(data.schema, ArraySplit(**items))
    method = ViT(patch=2, width=32, depth=2, heads=2, learning_rate=3e-3, batch_size=60, shift=0, rotation=0, zoom=0)
    assert top1(train(method, few, context, 60), items) > 0.9


# ----------------------------------------------------------------------------------------------------------------- ViT
def make_vit(classes: int = 10) -> VisionTransformer:
    torch.manual_seed(0)
    return VisionTransformer((8, 8), 1, classes, patch=2, width=16, depth=2, heads=4)


def test_vit_starts_from_equal_classes():
    """The head starts at zero, so that the first loss is ln K and the first gradient reaches only the head."""
    logits = make_vit()(torch.randn(4, 1, 8, 8))
    assert (logits == 0).all()
    loss = nn.functional.cross_entropy(logits, torch.arange(4))
    assert float(loss.detach()) == pytest.approx(math.log(10))


def test_vit_normalises_first_with_the_papers_epsilon():
    for module in make_vit().modules():
        if isinstance(module, nn.LayerNorm):
            assert module.eps == 1e-6
        if isinstance(module, nn.GELU):
            assert module.approximate == "none"
        if isinstance(module, SelfAttention):
            assert module.qkv.bias is not None


def test_vit_knows_positions_only_through_their_embedding():
    net = make_vit()
    nn.init.normal_(net.head.weight)
    image = torch.randn(2, 1, 8, 8)
    turned = image.flip(2, 3).unfold(2, 2, 2).unfold(3, 2, 2).flip(4, 5)  # patches change places, upright inside
    turned = turned.permute(0, 1, 2, 4, 3, 5).reshape(2, 1, 8, 8)
    assert not torch.allclose(net(image), net(turned), atol=1e-4)
    nn.init.zeros_(net.pos_embed)
    torch.testing.assert_close(net(image), net(turned), rtol=1e-4, atol=1e-5)


def test_block_against_torch():
    torch.manual_seed(0)
    own = TransformerBlock(16, 4, 32)
    peer = nn.TransformerEncoderLayer(
        16, 4, 32, dropout=0.0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
    )
    pairs = [
        (own.norm1.weight, peer.norm1.weight),
        (own.attn.qkv.weight, peer.self_attn.in_proj_weight),
        (own.attn.qkv.bias, peer.self_attn.in_proj_bias),
        (own.attn.proj.weight, peer.self_attn.out_proj.weight),
        (own.attn.proj.bias, peer.self_attn.out_proj.bias),
        (own.mlp[0].weight, peer.linear1.weight),
        (own.mlp[0].bias, peer.linear1.bias),
        (own.mlp[2].weight, peer.linear2.weight),
        (own.mlp[2].bias, peer.linear2.bias),
    ]
    with torch.no_grad():
        for mine, theirs in pairs:
            theirs.normal_(std=0.3)
            mine.copy_(theirs)
    x = torch.randn(3, 5, 16)
    torch.testing.assert_close(own(x), peer(x), rtol=1e-4, atol=1e-5)


def test_causal_attention_does_not_look_ahead():
    attention = SelfAttention(8, 2, causal=True)
    x = torch.randn(1, 6, 8, requires_grad=True)
    attention(x)[0, 2].sum().backward()
    assert x.grad is not None
    assert (x.grad[0, 3:] == 0).all()
    assert (x.grad[0, :3] != 0).any(1).all()


# ------------------------------------------------------------------------------------------------------------- trivial
@pytest.mark.parametrize("neighbours", [1, 3, 7])
def test_neighbours_against_scikit_learn(neighbours, context):
    data, test = digits()
    predictor = train(KNNPixels(neighbours=neighbours), data, context, 1)
    items = data.train.all()
    peer = KNeighborsClassifier(neighbours).fit(items["image"].flatten(1).numpy() / 255.0, items["label"].numpy())
    query = test["image"].flatten(1).numpy() / 255.0
    logits = predictor.logits(test)
    assert (logits.argmax(1).numpy() == peer.predict(query)).mean() > 0.995  # equal distances may be ordered otherwise
    votes = peer.predict_proba(query) * neighbours
    expected = np.log((votes + 0.1) / (neighbours + 1))
    assert np.isclose(logits.numpy(), expected, atol=1e-5).all(1).mean() > 0.99
    np.testing.assert_allclose(logits.exp().sum(1).numpy(), 1.0, rtol=1e-5)
    assert context.samples == 1437


def test_neighbours_in_chunks(monkeypatch):
    data, test = digits()
    items = data.train.all()
    make = lambda: NearestImages(items["image"].flatten(1), items["label"], 10, 3)  # noqa: E731
    whole = make().logits(test)
    monkeypatch.setattr(NearestImages, "CHUNK", 100)
    torch.testing.assert_close(make().logits(test), whole)


def test_more_neighbours_than_images(context):
    data = make_data(count=2)
    predictor = train(KNNPixels(neighbours=5), data, context, 1)
    assert predictor.logits(data.train.all()).isfinite().all()


def test_majority_rates_by_frequency(context):
    data = make_data()
    labels = torch.tensor([2] * 5 + [0] * 3 + [1] * 2)
    data = TrainingData(data.schema, ArraySplit(image=torch.zeros(10, 1, 8, 8, dtype=torch.uint8), label=labels))
    predictor = train(MajorityClass(), data, context, 1)
    logits = predictor.logits({"image": torch.zeros(4, 1, 8, 8, dtype=torch.uint8)})
    expected = np.log(np.array([4, 3, 6, 1, 1, 1, 1, 1, 1, 1]) / 20)
    np.testing.assert_allclose(logits.numpy(), np.tile(expected, (4, 1)), rtol=1e-5)
    assert predictor.logits({"points": torch.zeros(3, 5, 3)}).shape == (3, 10)
    assert Modality.POINTS in MajorityClass.consumes


@pytest.mark.parametrize("cls", [KNNPixels, MajorityClass])
def test_trivial_methods_load_without_data(cls, context):
    data = make_data()
    predictor = train(cls(), data, context, 1)
    other = cls()
    other.setup(TrainingData(data.schema, AbsentSplit(30)), context)
    method = cls()
    method.setup(data, context)
    method.step()
    other.load_state_dict(method.state_dict())
    items = data.train.all()
    assert torch.equal(other.predictor().logits(items), predictor.logits(items))


@pytest.mark.parametrize("cls", [CNN, ViT, KNNPixels, MajorityClass])
def test_an_empty_set_and_wrong_labels_are_errors(cls, context):
    with pytest.raises(DataError, match="no items"):
        cls().setup(make_data(count=0), context)
    data = make_data()
    with pytest.raises(DataError, match="names 2 classes"):
        cls().setup(TrainingData(replace(data.schema, classes=("a", "b")), data.train), context)
