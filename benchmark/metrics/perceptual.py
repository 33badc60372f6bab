"""LPIPS (Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric"), v0.1.

The ``lpips`` package ships its linear heads only. The trunk's ImageNet weights are a file of torchvision's that has to
be there; with a random trunk the distance is a number that depends on the seed, so then there is no value at all.
Values of different nets (alex, vgg, squeeze) are different metrics: the net is always named.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import AdlbenchError, data_root
from adlbench.benchmark.metrics.image import unit_float

ENVIRONMENT_VARIABLE = "ADLBENCH_LPIPS_WEIGHTS"  # a file of the trunk's weights, or a folder that holds it

# torchvision's files; the hexadecimal digits in a name are the first of its sha256.
TRUNKS = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth", "squeeze": "squeezenet1_1-b8a52dc0.pth"}
SMALLEST = {"alex": 31, "vgg": 16, "squeeze": 17}  # pixels; below that a pooling layer has nothing left


class LPIPSUnavailable(AdlbenchError):
    """There is no LPIPS here, and why."""


class LPIPS(nn.Module):
    """``lpips.LPIPS(net)`` with the trunk's weights from a local file. Raises LPIPSUnavailable without them."""

    def __init__(self, net: str = "vgg"):
        super().__init__()
        path = trunk_file(net)
        try:
            import lpips
        except ImportError as error:
            raise LPIPSUnavailable("the package lpips is not installed; pip install lpips") from error
        self.net = net
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # lpips calls torchvision by an old name
            # `pnet_rand` skips the download; `pretrained` is about the linear heads, which are in the package.
            self.model = lpips.LPIPS(net=net, version="0.1", pretrained=True, pnet_rand=True, verbose=False)
        _load_trunk(self.model.net, path)
        self.requires_grad_(False)
        self.eval()

    def check_size(self, height: int, width: int) -> None:
        """Raises LPIPSUnavailable for images that are too small for the net."""
        if min(height, width) < SMALLEST[self.net]:
            raise LPIPSUnavailable(
                f"LPIPS with {self.net} needs images of at least {SMALLEST[self.net]} pixels, not {height}x{width}"
            )

    def forward(self, image: Tensor, reference: Tensor) -> Tensor:
        """uint8 or float in [0, 1], [N, 3, H, W] -> [N]. Scaled to [-1, 1] here, which is what the net expects.

        In float32 whatever autocast says; bfloat16 images are read as float32. No image gives no value. Raises AdlbenchError
        for two shapes, or not three channels: the net would spread one channel, or one image, over all.
        """
        if image.shape != reference.shape or image.dim() != 4 or image.shape[1] != 3:
            raise AdlbenchError(
                f"LPIPS of images {tuple(image.shape)} and {tuple(reference.shape)}; both must be [N, 3, height, width]"
            )
        self.check_size(*image.shape[-2:])
        if not len(image):
            return torch.zeros(0, device=image.device)
        with torch.autocast(image.device.type, enabled=False):
            distance: Tensor = self.model(2 * unit_float(image) - 1, 2 * unit_float(reference) - 1)
        return distance.flatten()


def trunk_file(net: str) -> Path:
    """Where the trunk's weights lie. Raises LPIPSUnavailable with the remedy when they are absent or damaged."""
    if net not in TRUNKS:
        raise AdlbenchError(f"LPIPS has no net {net!r}; it has {', '.join(TRUNKS)}")
    name = TRUNKS[net]
    given = os.environ.get(ENVIRONMENT_VARIABLE)
    place = Path(given) if given else data_root() / "weights"
    path = place if place.is_file() else place / name
    if not path.is_file():
        # The reason is written into records that other people read, so it names the variable and not this machine's folder.
        raise LPIPSUnavailable(
            f"no ImageNet weights for LPIPS with {net}: put https://download.pytorch.org/models/{name} into "
            f"$ADLBENCH_DATA/weights, or name the file in ${ENVIRONMENT_VARIABLE}"
        )
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if not digest.startswith(prefix := name.rsplit("-", 1)[1].removesuffix(".pth")):
        raise LPIPSUnavailable(f"{path} is not torchvision's {name}: its sha256 starts with {digest[:8]}, not {prefix}")
    return path


def _load_trunk(trunk: nn.Module, path: Path) -> None:
    """torchvision calls a layer ``features.3.weight``, lpips ``slice2.3.weight``."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    state = {name: weights["features." + name.split(".", 1)[1]] for name in trunk.state_dict()}
    trunk.load_state_dict(state)
