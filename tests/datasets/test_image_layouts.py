"""Layouts of which no real bytes are at hand: written here as their authors publish them, and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from formats_images_text import cifar_batch, coco_objects, omniglot_zip, panoptic_annotation, panoptic_png
from PIL import Image

from adlbench.benchmark.api import DataError
from adlbench.datasets.captioning.flickr8k import Flickr8k
from adlbench.datasets.classification.celeba import CelebA
from adlbench.datasets.classification.cifar10 import CIFAR10
from adlbench.datasets.classification.image_folder import ImageFolder
from adlbench.datasets.classification.omniglot import Omniglot
from adlbench.datasets.detection.coco import Coco
from adlbench.datasets.segmentation.camvid import CamVid
from adlbench.datasets.segmentation.coco_panoptic import CocoPanopticSet
from adlbench.datasets.text.text_file import TextFile
from adlbench.datasets.translation.paired_images import PairedImages
from adlbench.datasets.verification.orl_faces import OrlFaces


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path))
    return tmp_path


def draw(path: Path, size: tuple[int, int], value: int = 100, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 50, 20)).save(path)


def put(path: Path, content: str | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


# --------------------------------------------------------------------------------------------------------------- CelebA
def write_celeba(folder: Path, **files: str) -> None:
    rows = [("000001.jpg", "1 -1", 0), ("000002.jpg", "-1 -1", 1), ("000003.jpg", "1 1", 2), ("000004.jpg", "-1 1", 0)]
    put(folder / "list_attr_celeba.txt", "4\nSmiling Male\n" + "".join(f"{n}  {v}\n" for n, v, _ in rows))
    put(folder / "list_eval_partition.txt", "".join(f"{name} {part}\n" for name, _, part in rows))
    for number, (name, _, _) in enumerate(rows):
        draw(folder / "img_align_celeba" / name, (178, 218), 60 * number)


@pytest.mark.parametrize("in_memory", [True, False])
def test_celeba(root: Path, in_memory: bool) -> None:
    write_celeba(root / "celeba")
    dataset = CelebA(in_memory=in_memory)
    schema = dataset.schema()
    assert (schema.num_train, schema.num_test, schema.classes) == (2, 1, ("not Smiling", "Smiling"))
    assert schema.attributes == ("Smiling", "Male")
    train = dataset.load("all", "train").all()
    assert train["label"].tolist() == [1, 0]
    assert train["attributes"].tolist() == [[True, False], [False, True]]
    assert train["image"].shape == (2, 3, 64, 64)
    assert train["image"][1, 0].float().mean() == pytest.approx(
        180, abs=2
    )  # the fourth picture: the second is validation
    with pytest.raises(DataError, match="attribute=Tall: there is none"):
        CelebA(attribute="Tall").schema()


def test_celeba_damaged(root: Path) -> None:
    write_celeba(root / "celeba")
    put(root / "celeba" / "list_eval_partition.txt", "000001.jpg 0\n")
    with pytest.raises(DataError, match=r"does not say to which part 000002.jpg belongs"):
        CelebA().schema()
    write_celeba(root / "celeba")
    (root / "celeba" / "img_align_celeba" / "000004.jpg").unlink()
    with pytest.raises(DataError, match=r"000004.jpg does not exist"):
        CelebA().load("all", "train").all()


# ------------------------------------------------------------------------------------------------------------- ImageNet
def test_imagenet_is_decoded_when_asked_for(root: Path) -> None:
    for split in ("train", "val"):
        for number, name in enumerate(("n01440764", "n01443537")):
            draw(root / "imagenet" / split / name / f"{name}_1.JPEG", (300, 250), 100 * number)
    dataset = ImageFolder(path="imagenet", test="val", size=224, in_memory=False)
    split = dataset.load("all", "train")
    assert split.batch([1])["image"].shape == (1, 3, 224, 224)
    assert split.batch([1, 0])["label"].tolist() == [1, 0]
    put(root / "imagenet" / "val" / "n01440764" / "n01440764_1.JPEG", b"\xff\xd8damaged")
    test = dataset.load("all", "test")  # nothing is decoded yet
    assert test.batch([1])["label"].tolist() == [1]
    with pytest.raises(DataError, match=r"val/n01440764/n01440764_1.JPEG cannot be read"):
        test.batch([0])


# ---------------------------------------------------------------------------------------------------------------- CIFAR
def test_cifar_batches(root: Path) -> None:
    import pickle

    folder = root / "cifar10" / "cifar-10-batches-py"
    put(folder / "batches.meta", pickle.dumps({b"label_names": [b"class %d" % i for i in range(10)]}, 2))
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        put(folder / name, cifar_batch())
    assert (CIFAR10().schema().num_train, CIFAR10().schema().num_test) == (6, 3)
    put(folder / "data_batch_4", cifar_batch())
    with pytest.raises(DataError, match=r"data_batch_3 is missing and later batches are there"):
        CIFAR10().load("all", "train")
    put(folder / "batches.meta", pickle.dumps({b"label_names": [b"a", b"b"]}, 2))
    with pytest.raises(DataError, match="labels past the 2 classes"):
        CIFAR10().load("all", "test")


# ------------------------------------------------------------------------------------------------------------- Omniglot
def test_omniglot_tests_on_other_characters(root: Path) -> None:
    put(root / "omniglot" / "images_background.zip", omniglot_zip())
    put(root / "omniglot" / "images_evaluation.zip", omniglot_zip(("Angelic/character01/0965_01",)))
    schema = Omniglot().schema()
    assert schema.classes == ("Greek/character01", "Greek/character02", "Angelic/character01")
    assert Omniglot().load("all", "test").all()["label"].tolist() == [2]
    with pytest.raises(DataError, match="train_drawers=0 leaves nothing for the train split"):
        Omniglot(test="").load("all", "train")


# ----------------------------------------------------------------------------------------------------------------- COCO
def write_coco(folder: Path) -> None:
    for split in ("train2017", "val2017"):
        put(folder / "annotations" / f"instances_{split}.json", json.dumps(coco_objects()))
        draw(folder / split / "a.jpg", (5, 4))
        draw(folder / split / "b.jpg", (12, 10))


@pytest.mark.parametrize("in_memory", [True, False])
def test_coco_scales_boxes_with_their_images(root: Path, in_memory: bool) -> None:
    pytest.importorskip("pycocotools")
    write_coco(root / "coco")
    dataset = Coco(size=24, masks=True, in_memory=in_memory)
    assert dataset.schema().classes == ("person", "dog")
    items = dataset.load("all", "train").all()
    assert items["image"].shape == (2, 3, 24, 24)
    assert items["boxes"][1].tolist() == [[2, 4, 11, 10], [0, 0, 24, 20]]  # b.jpg is 12 wide: everything doubles
    assert items["box_label"].tolist() == [[0, -1], [1, 0]]
    assert items["box_crowd"].tolist() == [[False, False], [False, True]]
    assert items["box_mask"].shape == (2, 2, 24, 24)
    assert not items["box_mask"][0, 1].any()
    assert not items["box_mask"][1, :, 20:].any()  # below the picture


def test_coco_that_does_not_fit_together(root: Path) -> None:
    write_coco(root / "coco")
    draw(root / "coco" / "train2017" / "b.jpg", (13, 10))
    with pytest.raises(DataError, match=r"b.jpg is not 12x10 pixels"):
        Coco().load("all", "train").all()
    put(
        root / "coco" / "annotations" / "instances_val2017.json",
        json.dumps(coco_objects(categories=[{"id": 1, "name": "x"}, {"id": 18, "name": "y"}])),
    )
    with pytest.raises(DataError, match="name other categories"):
        Coco().schema()


def test_coco_panoptic_layout(root: Path) -> None:
    for split in ("train2017", "val2017"):
        draw(root / "coco" / split / "a.jpg", (5, 4))
        put(root / "coco" / "annotations" / f"panoptic_{split}.json", json.dumps(panoptic_annotation()))
        put(root / "coco" / "annotations" / f"panoptic_{split}" / "a.png", panoptic_png())
    dataset = CocoPanopticSet(size=5)
    item = dataset.load("all", "test").batch([0])
    assert item["mask"][0, 0].tolist() == [255, 0, 0, 1, 1]
    assert item["mask"][0, 4].tolist() == [255] * 5  # below the picture
    assert item["instance"][0, 0].tolist() == [0, 1, 1, 0, 0]
    assert dataset.missing() is None
    assert len(dataset.sources()) == 6


# ---------------------------------------------------------------------------------------------------------------- faces
def test_orl_faces_as_the_archive_has_them(root: Path) -> None:
    for person in ("s1", "s2", "s10", "s5"):
        for number in (1, 2, 10):
            draw(root / "orl_faces" / person / f"{number}.pgm", (92, 112), number * 10, "L")
    schema = OrlFaces().schema()
    assert (schema.num_train, schema.num_test) == (9, 3)
    assert schema.classes == ("s1", "s2", "s5", "s10")
    assert OrlFaces().load("all", "test").all()["label"].tolist() == [2, 2, 2]
    assert OrlFaces().load("all", "test").all()["image"][:, 0, 0, 0].tolist() == [10, 20, 100]
    draw(root / "orl_faces" / "s1" / "2.pgm", (90, 112), 9, "L")
    with pytest.raises(DataError, match=r"s1/2.pgm is 90x112 pixels, others 92x112"):
        OrlFaces().load("all", "train")


def test_a_face_in_both_splits(root: Path) -> None:
    for part in ("training", "testing"):
        draw(root / "orl_faces" / part / "s1" / "1.pgm", (92, 112), 9, "L")
    with pytest.raises(DataError, match=r"s1 is in training/ and in testing/"):
        OrlFaces().schema()


# --------------------------------------------------------------------------------------------------------------- CamVid
def write_camvid(folder: Path, label: int = 3, size: tuple[int, int] = (8, 6)) -> None:
    for split in ("train", "test"):
        draw(folder / split / "a.png", (8, 6))
        draw(folder / f"{split}annot" / "a.png", size, label, "L")
        put(folder / f"{split}.txt", f"/SegNet/CamVid/{split}/a.png /SegNet/CamVid/{split}annot/a.png\n")


@pytest.mark.parametrize(("label", "expected"), [(0, 0), (10, 10), (11, 255)])
def test_camvid_labels(root: Path, label: int, expected: int) -> None:
    write_camvid(root / "CamVid", label)
    assert CamVid().load("all", "test").all()["mask"].unique().tolist() == [expected]


def test_camvid_damaged(root: Path) -> None:
    write_camvid(root / "CamVid", 12)
    with pytest.raises(DataError, match="has label 12; there are 0 to 11"):
        CamVid().load("all", "train")
    write_camvid(root / "CamVid", size=(8, 5))
    with pytest.raises(DataError, match=r"trainannot/a.png is 8x5 pixels, others 8x6"):
        CamVid().load("all", "train")


# ---------------------------------------------------------------------------------------------------------------- pairs
@pytest.mark.parametrize("source_right", [True, False])
def test_pairs_in_both_directions(root: Path, source_right: bool) -> None:
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[:, 4:] = 200
    for split in ("train", "test"):
        (root / "facades" / split).mkdir(parents=True)
        Image.fromarray(pixels).save(root / "facades" / split / "1.png")
    items = PairedImages(source_right=source_right).load("all", "train").all()
    assert (items["image"] == (200 if source_right else 0)).all()
    assert (items["target_image"] == (0 if source_right else 200)).all()
    draw(root / "facades" / "train" / "2.png", (10, 4))
    with pytest.raises(DataError, match=r"2.png has halves of 5x4 pixels, others 4x4"):
        PairedImages().load("all", "train")


# ----------------------------------------------------------------------------------------------------------------- text
@pytest.mark.parametrize("names", [("wiki.train.tokens", "wiki.test.tokens"), ("train.txt", "test.txt")])
def test_words_of_the_test_that_training_does_not_have(root: Path, names: tuple[str, str]) -> None:
    put(root / "wikitext-2" / names[0], "the cat saw the dog\n")
    put(root / "wikitext-2" / names[1], "the cow saw the dog\n")
    parameters: dict[str, Any] = {"folder": "wikitext-2", "unit": "words", "length": 2}
    dataset = TextFile(train=("wiki.train.tokens", "train.txt"), test=("wiki.test.tokens", "test.txt"), **parameters)
    vocabulary = dataset.schema().vocabulary
    assert vocabulary == ("the", "<eos>", "cat", "dog", "saw", "<unk>")
    tokens = dataset.load("all", "test").all()["tokens"]
    assert [[vocabulary[token] for token in row] for row in tokens] == [["the", "<unk>", "saw"], ["saw", "the", "dog"]]


def test_text_that_is_too_short(root: Path) -> None:
    put(root / "tinyshakespeare" / "input.txt", "To be, or not to be")
    with pytest.raises(DataError, match="the test text has 2 characters, too few for length=256"):
        TextFile().load("all", "test")


# ------------------------------------------------------------------------------------------------------------- captions
def test_flickr8k_by_the_authors_lists(root: Path) -> None:
    folder = root / "flickr8k"
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        draw(folder / "Flicker8k_Dataset" / name, (40, 30))
    put(
        folder / "Flickr8k.token.txt", "".join(f"{n}.jpg#{i}\tSentence {i} of {n} .\n" for n in "abc" for i in range(2))
    )
    put(folder / "Flickr_8k.trainImages.txt", "c.jpg\na.jpg\n")
    put(folder / "Flickr_8k.testImages.txt", "b.jpg\n")
    dataset = Flickr8k(size=16)
    assert (dataset.schema().num_train, dataset.schema().num_test) == (2, 1)
    captions = dataset.load("all", "train").batch([0])["captions"][0]
    assert bytes(captions[1].numpy()).decode() == "Sentence 1 of c ."
    put(folder / "Flickr_8k.testImages.txt", "d.jpg\n")
    with pytest.raises(DataError, match=r"no sentence for d.jpg"):
        dataset.load("all", "test")
    (folder / "Flickr_8k.testImages.txt").unlink()
    assert "Flickr_8k.testImages.txt" in str(dataset.missing())
