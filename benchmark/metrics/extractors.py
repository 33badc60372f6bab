"""Networks whose features and class probabilities the distances between sets of images are computed from.

A distance is only as good as its features, and its name says which were used: "FID" is reserved for the original
Inception weights, everything else is "FD-<extractor>". A network with random weights is never used: it is blind to what
matters (a Fréchet distance on random features cannot tell blurred images from sharp ones).

Every extractor freezes its own preprocessing: it takes uint8 images [B, C, H, W] as they are stored and returns
``(features [B, D], logits [B, K])``. Weights are files whose sha256 is checked, loaded without unpickling objects.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from adlbench.benchmark.api import DataError, data_root

INCEPTION_VARIABLE = "ADLBENCH_INCEPTION"  # the path of Inception's weights, where they are not below the data root


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max-pooling, for MNIST: 32x32 bilinear, [0, 1]; features are the 84 units of F6."""

    def __init__(self) -> None:
        super().__init__()
        self.convnet = nn.ModuleDict({"c1": nn.Conv2d(1, 6, 5), "c3": nn.Conv2d(6, 16, 5), "c5": nn.Conv2d(16, 120, 5)})
        self.fc = nn.ModuleDict({"f6": nn.Linear(120, 84), "f7": nn.Linear(84, 10)})

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = functional.interpolate(image.float() / 255, size=(32, 32), mode="bilinear", align_corners=False)
        x = functional.max_pool2d(self.convnet["c1"](x).relu(), 2)  # [B, 6, 14, 14]
        x = functional.max_pool2d(self.convnet["c3"](x).relu(), 2)  # [B, 16, 5, 5]
        x = self.convnet["c5"](x).relu().flatten(1)  # [B, 120]
        features = self.fc["f6"](x).relu()
        return features, self.fc["f7"](features)


class DigitsNet(nn.Module):
    """Two convolutions for scikit-learn's 8x8 digits; features are its 32 hidden units."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.hidden = nn.Linear(32 * 4 * 4, 32)
        self.classifier = nn.Linear(32, 10)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv1(image.float() / 255).relu()
        x = functional.max_pool2d(self.conv2(x).relu(), 2).flatten(1)  # [B, 32 * 4 * 4]
        features = self.hidden(x).relu()
        return features, self.classifier(features)


class ResNet20(nn.Module):
    """He et al. 2016, section 4.2, n = 3, shortcuts without parameters; CIFAR-10; features are the 64 pooled channels."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(ResidualBlock(16, 16), ResidualBlock(16, 16), ResidualBlock(16, 16))
        self.layer2 = nn.Sequential(ResidualBlock(16, 32), ResidualBlock(32, 32), ResidualBlock(32, 32))
        self.layer3 = nn.Sequential(ResidualBlock(32, 64), ResidualBlock(64, 64), ResidualBlock(64, 64))
        self.linear = nn.Linear(64, 10)
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = (image.float() / 255 - self.mean) / self.std
        x = self.bn1(self.conv1(x)).relu()
        features = self.layer3(self.layer2(self.layer1(x))).mean((2, 3))
        return features, self.linear(features)


class ResidualBlock(nn.Module):
    def __init__(self, channels: int, width: int):
        super().__init__()
        self.stride = width // channels
        self.conv1 = nn.Conv2d(channels, width, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.stride > 1:  # option A of the paper: every second pixel, new channels zero, half of them on each side
            added = out.shape[1] - x.shape[1]
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, added // 2, added // 2))
        return (out + x).relu()


class Inception(nn.Module):
    """torch-fidelity's port of the 2015 Inception: 2048 pooled features, logits without bias (as the Inception Score's)."""

    def __init__(self, weights: Path):
        super().__init__()
        from torch_fidelity import FeatureExtractorInceptionV3

        # torch-fidelity unpickles freely. A file that loads under this restriction holds tensors only, so that is safe.
        torch.load(weights, map_location="cpu", weights_only=True)
        with torch.random.fork_rng(devices=[]):
            self.net = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(weights)
            )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features, logits = self.net(image.expand(-1, 3, -1, -1))
        return features, logits


@dataclass(frozen=True)
class ExtractorSpec:
    weights: str  # file name, in this folder or in weights/ below the data root
    sha256: str  # of that file, or its first digits
    dimension: int  # of the features
    channels: tuple[int, ...]  # of the images that it takes
    image_size: tuple[int, int] | None  # None: any, it resizes
    source: str  # where the file comes from
    reaches: str  # its accuracy as a classifier
    net: Callable[[], nn.Module] | None = None
    prefix: str = ""  # of the names in the file


EXTRACTORS: Mapping[str, ExtractorSpec] = {
    "digits": ExtractorSpec(
        "digits_extractor.npz",
        "dd82c8c430e57c020900c5bc564e30ddab47a8d67beff9c2dc5d2cc5654479f7",
        32,
        (1,),
        (8, 8),
        "benchmark/metrics/make_digits_extractor.py",
        "97.8 % on the test items of the dataset digits",
        DigitsNet,
    ),
    "lenet": ExtractorSpec(
        "lenet_mnist.pth",
        "7b3591ba5a63752a7e728d7f7e511266556a2ec66844810da9f475e07019b85e",
        84,
        (1,),
        (28, 28),
        "mnist_classifier/weights/lenet_epoch=12_test_acc=0.991.pth of github.com/csinva/gan-vae-pretrained-pytorch",
        "99.1 % on MNIST's test images",
        LeNet,
    ),
    "resnet20": ExtractorSpec(
        "resnet20_cifar10.th",
        "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8",
        64,
        (3,),
        (32, 32),
        "pretrained_models/resnet20-12fca82f.th of github.com/akamaster/pytorch_resnet_cifar10",
        "91.7 % on CIFAR-10's test images",
        ResNet20,
        prefix="module.",
    ),
    "inception": ExtractorSpec(
        "weights-inception-2015-12-05-6726825d.pth",
        "6726825d",
        2048,
        (1, 3),
        None,
        "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
        "",
    ),
}


@dataclass(frozen=True)
class Extractor:
    """A network with its weights, ready: uint8 [B, C, H, W] -> (features [B, D], logits [B, K])."""

    name: str
    sha256: str  # of the weights
    dimension: int
    net: nn.Module

    @property
    def metric_name(self) -> str:
        return "FID" if self.name == "inception" else f"FD-{self.name}"

    @property
    def identifier(self) -> str:
        """Name and weights. Whatever is kept under it cannot be mistaken for what other weights would have given."""
        return f"adlbench-{self.name}-{self.sha256[:16]}"


def load_extractor(name: str, channels: int | None = None, image_size: tuple[int, int] | None = None) -> Extractor:
    """The extractor of that name, in eval mode on the CPU.

    Raises DataError when there is none of that name, when it does not take images of ``channels`` and ``image_size``
    (where given), or when its weights are absent or are not the ones that belong to it.
    """
    if name not in EXTRACTORS:
        nearest = difflib.get_close_matches(name, EXTRACTORS, 1, 0)[0]
        raise DataError(f"no feature extractor {name!r}; did you mean {nearest!r}? There are {', '.join(EXTRACTORS)}")
    spec = EXTRACTORS[name]
    if channels is not None and channels not in spec.channels:
        raise DataError(
            f"the extractor {name} takes images of {spec.channels} channels, not {channels}; choose another"
        )
    if None not in (image_size, spec.image_size) and image_size != spec.image_size:
        raise DataError(
            f"the extractor {name} takes images of {spec.image_size} pixels, not {image_size}; choose another"
        )
    path = weights_file(name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(spec.sha256):
        raise DataError(
            f"{path} has sha256 {digest[:16]}…, not {spec.sha256[:16]}…: it is damaged or another file. Get it from {spec.source}"
        )
    if spec.net is None:
        net: nn.Module = Inception(path)
    else:
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn and thrown away
            net = spec.net()
        net.load_state_dict(read_weights(path, spec.prefix))
    return Extractor(name, digest, spec.dimension, net.eval().requires_grad_(False))


def weights_file(name: str) -> Path:
    """Where the weights of the extractor lie. Raises DataError with the remedy when they are absent."""
    spec = EXTRACTORS[name]
    shipped = Path(__file__).parent / spec.weights
    if shipped.is_file():
        return shipped
    given = os.environ.get(INCEPTION_VARIABLE) if name == "inception" else None
    path = Path(given) if given else data_root() / "weights" / spec.weights
    if not path.is_file():
        variable = f" (or name the file in ${INCEPTION_VARIABLE})" if name == "inception" else ""
        raise DataError(f"no weights for the extractor {name}: put {spec.source} at {path}{variable}")
    return path


def read_weights(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors of a state dict (.npz or torch.save), without ``prefix``. Nothing but arrays is unpickled."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    state = torch.load(path, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state)
    return {key.removeprefix(prefix): value for key, value in state.items()}
