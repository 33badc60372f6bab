"""Feature extractors: the right weights, the stated accuracy, and a remedy where they are not there."""

from __future__ import annotations

import io
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from adlbench.benchmark.api import DataError, data_root
from adlbench.benchmark.metrics import extractors
from adlbench.benchmark.metrics.extractors import (
    EXTRACTORS,
    DigitsNet,
    Inception,
    LeNet,
    load_extractor,
    read_weights,
    weights_file,
)


def test_digits_extractor_needs_no_download_and_knows_its_digits(monkeypatch, tmp_path):
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path))
    from adlbench.datasets.classification.digits import Digits

    extractor = load_extractor("digits", channels=1, image_size=(8, 8))
    items = Digits().load("all", "test").all()
    features, logits = extractor.net(items["image"])
    assert features.shape == (len(items["label"]), extractor.dimension)
    assert (logits.argmax(1) == items["label"]).float().mean() >= 0.97
    assert extractor.metric_name == "FD-digits"
    assert not any(p.requires_grad for p in extractor.net.parameters())
    assert not extractor.net.training


def test_the_committed_weights_are_small_and_are_what_their_script_makes(tmp_path):
    from adlbench.benchmark.metrics.make_digits_extractor import accuracy, train

    assert weights_file("digits").stat().st_size < 200_000
    assert accuracy(train(epochs=3), "test") > 0.6  # the script works; all its epochs take ten seconds


@pytest.mark.needs_data
def test_lenet_reads_mnist():
    from adlbench.datasets.classification.mnist import MNIST

    if MNIST().missing() or not (data_root() / "weights" / EXTRACTORS["lenet"].weights).is_file():
        pytest.skip("no MNIST, or no weights of its LeNet, below the data root")
    items = MNIST().load("all", "test").all()
    features, logits = load_extractor("lenet", 1, (28, 28)).net(items["image"])
    assert (logits.argmax(1) == items["label"]).float().mean() >= 0.99
    assert features.shape[1] == 84
    assert features.min() == 0  # after the rectifier


class _ArraysOnly(pickle.Unpickler):
    """CIFAR's batches are pickles; a test reads arrays and nothing else out of them."""

    def find_class(self, module: str, name: str) -> object:
        if module.startswith("numpy") and name in ("_reconstruct", "ndarray", "dtype", "scalar"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name}")


@pytest.mark.needs_data
def test_resnet20_reads_cifar10():
    path = data_root() / "cifar10" / "cifar-10-batches-py" / "test_batch"
    if not path.is_file() or not (data_root() / "weights" / EXTRACTORS["resnet20"].weights).is_file():
        pytest.skip("no CIFAR-10, or no weights of its ResNet, below the data root")
    batch = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
    image = torch.from_numpy(np.asarray(batch[b"data"])).view(-1, 3, 32, 32)
    _, logits = load_extractor("resnet20", 3, (32, 32)).net(image)
    assert (logits.argmax(1) == torch.tensor(batch[b"labels"])).float().mean() >= 0.9


def test_absent_weights_are_answered_with_where_they_go(monkeypatch, tmp_path):
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path))
    monkeypatch.delenv("ADLBENCH_INCEPTION", raising=False)
    with pytest.raises(DataError, match=r"put .*github\.com/\S+ at .*weights/lenet_mnist\.pth"):
        load_extractor("lenet")
    with pytest.raises(DataError, match="ADLBENCH_INCEPTION"):
        load_extractor("inception")


def test_other_weights_under_the_same_name_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path))
    (tmp_path / "weights").mkdir()
    torch.save(LeNet().state_dict(), tmp_path / "weights" / "lenet_mnist.pth")
    with pytest.raises(DataError, match="sha256"):
        load_extractor("lenet")
    monkeypatch.setenv("ADLBENCH_INCEPTION", str(tmp_path / "weights" / "lenet_mnist.pth"))
    with pytest.raises(DataError, match="sha256"):  # so nothing else can be reported as FID
        load_extractor("inception")


def test_only_inception_is_called_fid():
    net = DigitsNet()
    assert extractors.Extractor("inception", "0" * 64, 2048, net).metric_name == "FID"
    assert all(
        extractors.Extractor(name, "0" * 64, 1, net).metric_name == f"FD-{name}"
        for name in EXTRACTORS
        if name != "inception"
    )


def test_an_extractor_is_refused_for_images_it_was_not_made_for():
    with pytest.raises(DataError, match="channels"):
        load_extractor("digits", channels=3, image_size=(8, 8))
    with pytest.raises(DataError, match="pixels"):
        load_extractor("digits", channels=1, image_size=(28, 28))
    with pytest.raises(DataError, match="did you mean 'lenet'"):
        load_extractor("lenett")


def test_weights_cannot_run_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(pickle.UnpicklingError):
        read_weights(tmp_path / "evil.pth")
    with pytest.raises(pickle.UnpicklingError):
        Inception(tmp_path / "evil.pth")
    np.savez(tmp_path / "evil.npz", weight=np.array([Evil()], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_weights(tmp_path / "evil.npz")
    assert not (tmp_path / "ran").exists()


def test_loading_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    load_extractor("digits")
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_inception_takes_grey_images_and_gives_both_layers(monkeypatch, tmp_path):
    from torch_fidelity import FeatureExtractorInceptionV3

    empty = tmp_path / "empty.pth"
    torch.save({}, empty)
    with monkeypatch.context() as patch:  # a net with random weights, to have a file of the right layout
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        state = FeatureExtractorInceptionV3(
            "inception", ["2048"], feature_extractor_weights_path=str(empty)
        ).state_dict()
    torch.save(state, tmp_path / "inception.pth")
    net = Inception(tmp_path / "inception.pth").eval()
    features, logits = net(torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8))
    assert features.shape == (2, 2048)
    assert logits.shape == (2, 1008)
    shutil.rmtree(tmp_path)
