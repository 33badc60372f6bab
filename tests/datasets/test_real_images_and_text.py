"""Every set of images or text below $ADLBENCH_DATA, as published: counts, shapes, ranges, first items, and what networks say."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adlbench.benchmark.api import DataSchema, Dataset, Split, data_root
from adlbench.benchmark.config import Catalog, build_dataset
from adlbench.benchmark.metrics.extractors import load_extractor
from adlbench.datasets.formats.coco import read_coco_panoptic, read_panoptic_masks
from adlbench.datasets.formats.images import fit_image
from adlbench.datasets.formats.lists import read_captions
from adlbench.datasets.formats.text import read_text, words

pytestmark = pytest.mark.needs_data
CATALOG = Catalog()


def real(name: str, **parameters: object) -> Dataset:
    spec = CATALOG.spec("dataset", name, {f"parameters.{key}": value for key, value in parameters.items()})
    dataset = build_dataset(spec)
    if not os.environ.get("ADLBENCH_DATA") or dataset.missing():
        pytest.skip(f"{name} is not below $ADLBENCH_DATA")
    return dataset


def checked(dataset: Dataset) -> tuple[DataSchema, Split, Split]:
    """Both splits, in the counts, fields and shapes that the schema promises."""
    schema = dataset.schema()
    splits = [dataset.load("all", split) for split in ("train", "test")]
    for items, count in zip(splits, (schema.num_train, schema.num_test)):
        first = items.batch([0, len(items) - 1])
        assert len(items) == count
        assert set(first) == set(schema.fields)
        for name in {"image", "target_image"} & set(first):
            assert first[name].dtype == torch.uint8
            assert first[name].shape == (2, schema.channels, *schema.image_size)
        if "label" in first:
            labels = items.all()["label"]
            assert 0 <= int(labels.min()) <= int(labels.max()) < len(schema.classes)
    assert all(path.is_file() for path in dataset.sources())
    return schema, splits[0], splits[1]


def accuracy(extractor: str, items: Split) -> float:
    everything = items.all()
    net = load_extractor(extractor).net
    with torch.no_grad():
        logits = torch.cat([net(images)[1] for images in everything["image"].split(500)])
    return float((logits.argmax(1) == everything["label"]).float().mean())


def test_mnist_is_what_lenet_learnt() -> None:
    _, train, test = checked(real("mnist"))
    assert (len(train), len(test)) == (60_000, 10_000)
    assert torch.bincount(test.all()["label"]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert accuracy("lenet", test) >= 0.99


def test_fashion_mnist() -> None:
    schema, _, test = checked(real("fashion_mnist"))
    assert schema.num_test == 10_000
    everything = test.all()
    assert torch.bincount(everything["label"]).tolist() == [1000] * 10
    assert everything["label"][:5].tolist() == [9, 2, 1, 1, 6]  # boot, pullover, trousers, trousers, shirt
    assert float(everything["image"].float().mean() / 255) == pytest.approx(0.2868, abs=1e-3)


def test_cifar10_is_what_resnet20_learnt() -> None:
    schema, train, test = checked(real("cifar10"))
    assert schema.classes[:3] == ("airplane", "automobile", "bird")
    assert train.all()["label"][:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]  # the official order
    assert test.all()["label"][:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]
    means = test.all()["image"].float().mean((0, 2, 3)) / 255
    np.testing.assert_allclose(
        means, [0.4914, 0.4822, 0.4465], atol=0.02
    )  # red, green, blue, as everybody normalises them
    assert accuracy("resnet20", test) >= 0.90


def test_omniglot_small1() -> None:
    schema, train, test = checked(real("omniglot_small1"))
    assert (len(schema.classes), len(train), len(test)) == (136, 136 * 15, 136 * 5)
    assert len({name.partition("/")[0] for name in schema.classes}) == 5
    images = train.all()["image"].float() / 255
    assert 0.85 < float(images.mean()) < 0.97  # ink on paper
    whole = real("omniglot_small1", size=105).load("all", "test").all()["image"]
    assert whole.shape == (680, 1, 105, 105)
    assert whole.unique().tolist() == [0, 255]


def test_orl_faces_are_strangers() -> None:
    dataset = real("orl_faces")
    schema, train, test = checked(dataset)
    assert (len(schema.classes), len(train), len(test), schema.image_size) == (40, 370, 30, (112, 92))
    seen, unseen = set(train.all()["label"].tolist()), set(test.all()["label"].tolist())
    assert not seen & unseen
    assert [schema.classes[label] for label in sorted(unseen)] == ["s5", "s6", "s7"]
    first = dataset.sources()[0].read_bytes()
    header = b"P5\n92 112\n255\n"
    assert first.startswith(header)
    pixels = np.frombuffer(first[len(header) :], np.uint8).reshape(112, 92)
    assert (train.batch([0])["image"][0, 0].numpy() == pixels).all()


def test_camvid_has_the_sky_above_the_road() -> None:
    schema, train, test = checked(real("camvid"))
    assert (len(train), len(test), schema.image_size) == (16, 6, (360, 480))
    mask = train.all()["mask"].numpy()
    assert set(np.unique(mask)) <= {*range(11), 255}
    rows = np.arange(360)[None, :, None] * np.ones_like(mask)
    assert rows[mask == schema.classes.index("sky")].mean() < 120
    assert rows[mask == schema.classes.index("road")].mean() > 220
    share = (mask[mask != 255][:, None] == np.arange(11)).mean(0)
    assert share[schema.classes.index("road")] > 0.15
    assert share[schema.classes.index("building")] > 0.15


def iou(a: np.ndarray, b: np.ndarray) -> float:
    width = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = float(np.prod(width.clip(0)))
    return both / float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - both)


def test_coco128_boxes_are_those_of_the_panoptic_segments() -> None:
    """Two files that were written apart: YOLO's text and COCO's json."""
    schema, train, test = checked(real("coco128"))
    assert (len(schema.classes), len(train), len(test)) == (80, 24, 12)
    folder = data_root() / "coco128" / "panoptic_segmentation" / "annotations"
    panoptic = read_coco_panoptic(folder / "panoptic_train2017.json")
    images = data_root() / "coco128" / "images" / "train2017"
    order = sorted(path.name for path in images.iterdir())
    everything, overlaps = train.all(), []
    for image in panoptic.images:
        row = order.index(image.file_name)
        mask, number = read_panoptic_masks(
            folder / "panoptic_train2017" / image.segments_file, image, panoptic.is_thing
        )
        scale = 256 / max(image.height, image.width)
        for box, label in zip(everything["boxes"][row].numpy(), everything["box_label"][row].tolist()):
            if label < 0:
                continue
            category = panoptic.categories.index(schema.classes[label])
            best = 0.0
            for thing in np.unique(number[mask == category]):
                ys, xs = np.nonzero(number == thing)
                segment = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]) * scale
                best = max(best, iou(box, segment))
            overlaps.append(best)
    assert len(overlaps) > 100
    assert np.median(overlaps) > 0.9


def test_coco128_masks_fill_their_boxes() -> None:
    pytest.importorskip("pycocotools")
    schema, _, test = checked(real("coco128", masks=True))
    assert len(schema.classes) == 80
    items = test.all()
    for masks, boxes, labels in zip(items["box_mask"], items["boxes"], items["box_label"]):
        for mask, box in zip(masks[labels >= 0], boxes[labels >= 0]):
            left, top, right, bottom = box.tolist()
            if (right - left) * (bottom - top) < 400:
                continue
            ys, xs = np.nonzero(mask.numpy())
            found = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            np.testing.assert_allclose(found, [left, top, right, bottom], atol=2.0)
        assert not masks[labels < 0].any()


def test_coco128_panoptic_equals_the_semantic_masks() -> None:
    """The repository's own PNGs of COCO's category ids were made by other code."""
    schema, _, test = checked(real("coco128_panoptic"))
    assert (len(schema.classes), schema.num_train, schema.num_test) == (133, 24, 12)
    root = data_root() / "coco128"
    annotations = root / "panoptic_segmentation" / "annotations" / "panoptic_val2017.json"
    import json

    content = json.loads(annotations.read_text())
    ids = sorted(category["id"] for category in content["categories"])
    panoptic = read_coco_panoptic(annotations)
    for row, image in enumerate(panoptic.images):
        path = annotations.with_suffix("") / image.segments_file
        mask, number = read_panoptic_masks(path, image, panoptic.is_thing)
        semantic = np.asarray(
            Image.open(root / "semantic_segmentation" / "masks" / "val2017" / image.file_name.replace("jpg", "png"))
        )
        expected = np.array([*ids, *[0] * 123])[mask]  # 255, none, becomes 0
        assert (expected == semantic).all()
        assert number.max() == sum(panoptic.is_thing[label] for _, label in image.segments)
        item = test.batch([row])
        assert (item["image"][0].numpy() == fit_image(root / "images" / "val2017" / image.file_name, 256)).all()
        height, width = (round(side * 256 / max(image.height, image.width)) for side in (image.height, image.width))
        assert (item["mask"][0, height:] == 255).all()
        assert (item["mask"][0, :, width:] == 255).all()
        assert set(item["mask"].unique().tolist()) <= {*np.unique(mask).tolist(), 255}


def test_facades_are_maps_and_photographs() -> None:
    schema, train, test = checked(real("facades"))
    assert (len(train), len(test), schema.image_size) == (70, 16, (256, 256))
    items = test.all()
    spread = {name: items[name].float().amax(1) - items[name].float().amin(1) for name in ("image", "target_image")}
    assert spread["image"].mean() > 3 * spread["target_image"].mean()  # pure colours, and weathered stone


def test_tinyshakespeare_counts_as_nanogpt_does() -> None:
    schema, train, test = checked(real("tinyshakespeare"))
    assert len(schema.vocabulary) == 65
    assert schema.vocabulary[:3] == ("\n", " ", "!")
    text = read_text(data_root() / "tinyshakespeare" / "input.txt")
    assert len(text) == 1_115_394
    assert (len(train), len(test)) == ((1_003_854 - 1) // 256, (111_540 - 1) // 256)
    first = train.batch([0, 1])["tokens"]
    assert "".join(schema.vocabulary[token] for token in first[0, :14]) == "First Citizen:"
    assert first[0, -1] == first[1, 0]
    joined = train.all()["tokens"][:, :-1].flatten()
    assert "".join(schema.vocabulary[token] for token in joined[:5000]) == text[:5000]


def test_wikitext2_has_the_published_number_of_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = data_root() / "wikitext-2" / "valid.txt"
    if not os.environ.get("ADLBENCH_DATA") or not path.is_file():
        pytest.skip("wikitext-2 is not below $ADLBENCH_DATA")
    tokens = words(read_text(path))
    assert len(tokens) == 217_646  # Merity et al. 2017, table 1
    dataset = build_dataset(
        CATALOG.spec("dataset", "wikitext2", {"parameters.train": ["valid.txt"], "parameters.test": ["valid.txt"]})
    )
    schema, train, _ = checked(dataset)
    assert schema.vocabulary[0] == "the"
    assert "<unk>" in schema.vocabulary
    assert [schema.vocabulary[token] for token in train.batch([0])["tokens"][0, :6]] == [
        "<eos>",
        "=",
        "Homarus",
        "gammarus",
        "=",
        "<eos>",
    ]


def test_flickr8k_sample() -> None:
    _, train, test = checked(real("flickr8k_sample"))
    assert (len(train), len(test)) == (6, 3)
    captions = read_captions(data_root() / "flickr8k" / "captions.txt")
    assert sum(map(len, captions.values())) == 6_045
    second = [bytes(line).rstrip(b"\0").decode() for line in train.batch([1])["captions"][0].numpy()]  # 10815824_...
    assert second[1] == "A girl and her horse stand by a fire ."
    assert all((items.all()["captions"][:, :, 0] > 0).all() for items in (train, test))  # five sentences each
