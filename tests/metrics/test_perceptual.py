"""LPIPS: never with a random trunk, inputs in [-1, 1], the trunk's layers where they belong."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from adlbench.benchmark.api import AdlbenchError
from adlbench.benchmark.metrics import perceptual
from adlbench.benchmark.metrics.perceptual import ENVIRONMENT_VARIABLE, LPIPS, LPIPSUnavailable, trunk_file

lpips = pytest.importorskip("lpips")
models = pytest.importorskip("torchvision.models")


@pytest.fixture
def trunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-in weights of AlexNet under a name that carries their own hash: the plumbing can be tested offline."""
    torch.manual_seed(0)
    path = tmp_path / "weights.pth"
    torch.save(models.alexnet(weights=None).state_dict(), path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(perceptual.TRUNKS, "alex", f"alexnet-{digest}.pth")
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(path))
    return path


def test_without_weights_there_is_no_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setenv("ADLBENCH_DATA", str(tmp_path))
    with pytest.raises(LPIPSUnavailable, match=r"vgg16-397923af.pth into \$ADLBENCH_DATA/weights"):
        LPIPS("vgg")


def test_weights_are_found_below_the_data_root(trunk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENVIRONMENT_VARIABLE)
    monkeypatch.setenv("ADLBENCH_DATA", str(trunk.parent))
    place = trunk.parent / "weights" / perceptual.TRUNKS["alex"]
    place.parent.mkdir()
    place.write_bytes(trunk.read_bytes())
    assert trunk_file("alex") == place


def test_another_file_is_refused(trunk: Path) -> None:
    trunk.write_bytes(trunk.read_bytes()[:-1])
    with pytest.raises(LPIPSUnavailable, match="sha256"):
        LPIPS("alex")


def test_unknown_net() -> None:
    with pytest.raises(AdlbenchError, match="'resnet'"):
        LPIPS("resnet")


def test_trunk_is_the_files_and_input_is_scaled(trunk: Path) -> None:
    """Every convolution is torchvision's; [0, 1] and uint8 go in and the net sees [-1, 1]."""
    before = torch.get_rng_state()
    metric = LPIPS("alex")
    assert torch.equal(torch.get_rng_state(), before)
    weights = torch.load(trunk, weights_only=True)
    torch.testing.assert_close(metric.model.net.slice5[-2].weight, weights["features.10.weight"])
    generator = torch.Generator().manual_seed(1)
    image, reference = (torch.randint(0, 256, (2, 3, 40, 33), generator=generator, dtype=torch.uint8) for _ in "xy")
    value = metric(image, reference)
    assert value.shape == (2,)
    torch.testing.assert_close(value, metric(image / 255, reference / 255))
    torch.testing.assert_close(value, metric.model(image / 127.5 - 1, reference / 127.5 - 1).flatten())
    wrong = metric.model(image / 255, reference / 255).flatten()
    assert not torch.allclose(value, wrong, rtol=1e-2)
    torch.testing.assert_close(metric(image, image), torch.zeros(2))


def test_no_image_bfloat16_and_autocast(trunk: Path) -> None:
    metric = LPIPS("alex")
    assert metric(torch.zeros(0, 3, 40, 40), torch.zeros(0, 3, 40, 40)).shape == (0,)
    image, reference = torch.rand(2, 2, 3, 40, 33, generator=torch.Generator().manual_seed(2))
    with torch.autocast("cpu", torch.bfloat16):
        inside = metric(image, reference)
    assert torch.equal(inside, metric(image, reference))
    half = image.bfloat16(), reference.bfloat16()
    assert torch.equal(metric(*half), metric(*(x.float() for x in half)))


def test_images_that_would_be_spread_over_others_are_refused(trunk: Path) -> None:
    metric, image, grey = LPIPS("alex"), torch.zeros(2, 3, 40, 33), torch.zeros(2, 1, 40, 33)
    for pair in ((image, image[:1]), (image, grey), (image, image[0]), (grey, grey)):
        with pytest.raises(AdlbenchError, match=r"both must be \[N, 3, height, width\]"):
            metric(*pair)


def test_images_that_are_too_small_have_no_value(trunk: Path) -> None:
    with pytest.raises(LPIPSUnavailable, match="at least 31 pixels"):
        LPIPS("alex")(torch.zeros(1, 3, 24, 24), torch.zeros(1, 3, 24, 24))
