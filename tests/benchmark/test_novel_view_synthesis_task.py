"""The protocol nvs-rgb8@1 on renderings whose scores are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from sphere_scene import orbit, photograph, schema, views

from adlbench.benchmark.api import AdlbenchError, ArraySplit, Cameras, Rendering
from adlbench.benchmark.metrics.perceptual import ENVIRONMENT_VARIABLE
from adlbench.benchmark.tasks.base import EvaluationContext, EvaluationData
from adlbench.benchmark.tasks.novel_view_synthesis import NovelViewSynthesis
from adlbench.benchmark.tasks.view_pictures import colour_map

CONTEXT = EvaluationContext(torch.device("cpu"), seed=0)


@dataclass
class Stub:
    """Renders the sphere as it is, then changed."""

    change: Callable[[Rendering], Rendering] = lambda rendering: rendering

    def render(self, cameras: Cameras) -> Rendering:
        image, depth = photograph(cameras)
        return self.change(Rendering(image.float() / 255, depth, (depth > 0).float()))


@pytest.fixture(autouse=True)
def _no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(tmp_path))


def data(number: int = 3, size: int = 16, **changes: Any) -> EvaluationData:
    test = views(number, size, turn=0.3)
    return EvaluationData(schema(test, **changes), views(4, size), test, "")


def test_the_truth_itself() -> None:
    result = NovelViewSynthesis().evaluate(Stub(), data(), CONTEXT)
    assert result.values == pytest.approx({"psnr": 100, "ssim": 1, "depth_abs_rel": 0, "depth_rmse": 0}, abs=1e-5)
    assert {name: values.shape for name, values in result.items.items()} == dict.fromkeys(result.values, (3,))
    assert "vgg16-397923af.pth" in result.absent["lpips"]
    assert np.array_equal(result.predictions["image"], data().test.all()["image"].numpy())
    assert result.notes["num_items"] == 3


def test_a_constant_error_per_view_and_its_mean() -> None:
    """Views that are off by 10 and by 20 grey levels: the mean of two PSNRs, and not the PSNR of the mean error."""
    test = ArraySplit(**{**views(2).fields, "image": torch.full((2, 16, 16, 3), 100, dtype=torch.uint8)})

    class Grey:
        calls = 0

        def render(self, cameras: Cameras) -> Rendering:
            Grey.calls += 1
            rgb = torch.full((1, 16, 16, 3), (100 + 10 * Grey.calls) / 255)
            return Rendering(rgb, torch.ones(1, 16, 16), torch.ones(1, 16, 16))

    result = NovelViewSynthesis().evaluate(Grey(), EvaluationData(schema(test), test, test, ""), CONTEXT)
    expected = [20 * np.log10(255 / 10), 20 * np.log10(255 / 20)]
    np.testing.assert_allclose(result.items["psnr"], expected, rtol=1e-5)
    assert result.values["psnr"] == pytest.approx(np.mean(expected), rel=1e-5)


def test_what_is_scored_is_what_would_be_stored() -> None:
    """Less than half a grey level off is no error; values beyond [0, 1] are clipped."""
    stub = Stub(lambda r: Rendering(torch.where(r.rgb == 1, 1.7, r.rgb + 0.4 / 255), r.depth, r.opacity))
    assert NovelViewSynthesis().evaluate(stub, data(), CONTEXT).values["psnr"] == pytest.approx(100)


def test_depth_counts_on_surfaces_only() -> None:
    stub = Stub(lambda r: Rendering(r.rgb, torch.where(r.depth > 0, r.depth * 1.1, 77.0), r.opacity))
    result = NovelViewSynthesis().evaluate(stub, data(), CONTEXT)
    assert result.values["depth_abs_rel"] == pytest.approx(0.1, rel=1e-5)
    depth = data().test.all()["depth"].double()
    rmse = [(0.1 * view[view > 0]).square().mean().sqrt().item() for view in depth]
    np.testing.assert_allclose(result.items["depth_rmse"], rmse, rtol=1e-5)


def test_without_known_depth_and_with_small_pictures_values_are_absent_with_a_reason() -> None:
    small = data(size=8, fields=("image", "intrinsics", "world_to_camera"))
    del small.test.fields["depth"]  # type: ignore[attr-defined]
    result = NovelViewSynthesis().evaluate(Stub(), small, CONTEXT)
    assert set(result.values) == {"psnr"}
    assert "does not know the depth" in result.absent["depth_rmse"]
    assert "8x8" in result.absent["ssim"]


def test_a_view_without_any_surface_has_no_depth_score() -> None:
    some = data()
    some.test.fields["depth"][1] = 0  # type: ignore[attr-defined]
    result = NovelViewSynthesis().evaluate(Stub(), some, CONTEXT)
    assert np.isnan(result.items["depth_rmse"]).tolist() == [False, True, False]
    assert result.values["depth_rmse"] == pytest.approx(0, abs=1e-6)
    some.test.fields["depth"][:] = 0  # type: ignore[attr-defined]
    result = NovelViewSynthesis().evaluate(Stub(), some, CONTEXT)
    assert "no test view shows a surface" in result.absent["depth_rmse"]
    assert "depth_rmse" not in result.values


@pytest.mark.parametrize("name", ["rgb", "depth"])
def test_a_diverged_model_has_no_score(name: str) -> None:
    def broken(r: Rendering) -> Rendering:
        return Rendering(**{**vars(r), name: getattr(r, name) * float("nan")})

    with pytest.raises(AdlbenchError, match="NaN"):
        NovelViewSynthesis().evaluate(Stub(broken), data(), CONTEXT)


def test_a_wrong_shape_is_named() -> None:
    stub = Stub(lambda r: Rendering(r.rgb.permute(0, 3, 1, 2), r.depth, r.opacity))
    with pytest.raises(AdlbenchError, match=r"rgb was rendered as \(1, 3, 16, 16\)"):
        NovelViewSynthesis().evaluate(stub, data(), CONTEXT)


def test_only_the_first_items_and_progress() -> None:
    seen: list[float] = []
    limited = EvaluationContext(torch.device("cpu"), seed=0, max_items=2, progress=seen.append)
    result = NovelViewSynthesis(pictures=1).evaluate(Stub(), data(), limited)
    assert len(result.items["psnr"]) == 2
    assert seen == [0.5, 1.0]


def test_an_empty_test_split() -> None:
    empty = data()
    nothing = ArraySplit(**{name: value[:0] for name, value in empty.test.all().items()})
    with pytest.raises(AdlbenchError, match="no views"):
        NovelViewSynthesis().evaluate(Stub(), EvaluationData(empty.schema, empty.train, nothing, ""), CONTEXT)


def test_pictures_have_a_panel_for_what_the_predictor_offers() -> None:
    def uncertain(r: Rendering) -> Rendering:
        return Rendering(r.rgb, r.depth, r.opacity, {"depth_variance": torch.ones_like(r.depth)})

    plain, more = (
        next(iter(NovelViewSynthesis(pictures=2).evaluate(stub, data(), CONTEXT).images.values()))
        for stub in (Stub(), Stub(uncertain))
    )
    assert plain.dtype == np.uint8
    assert plain.shape == (2 * 132, 4 * 132 - 4, 3)
    assert more.shape == (2 * 132, 5 * 132 - 4, 3)


def test_colour_map_gets_brighter() -> None:
    ramp = colour_map(np.linspace(-0.5, 1.5, 50)[None]).astype(int).sum(-1)[0]
    assert (np.diff(ramp) >= 0).all()
    assert ramp[0] < 60
    assert ramp[-1] > 650


def test_inference_counts_rays_and_repeats_a_small_set() -> None:
    class Counting(Stub):
        sizes: list[int] = []  # noqa: RUF012

        def render(self, cameras: Cameras) -> Rendering:
            self.sizes.append(len(cameras))
            return super().render(cameras)

    call, samples = NovelViewSynthesis().inference(Counting(), data(3), CONTEXT, batch_size=5)
    call()
    assert (Counting.sizes, samples) == ([5], 5 * 256)


def test_evaluates_twice_to_the_same() -> None:
    stub = Stub(lambda r: Rendering(r.rgb * 0.9, r.depth + 0.1, r.opacity))
    first, second = (NovelViewSynthesis().evaluate(stub, data(), CONTEXT) for _ in range(2))
    assert first.values == second.values


def test_cameras_of_the_scene_look_at_it() -> None:
    """The stub's own check: the sphere is in the middle of every picture."""
    depth = photograph(orbit(4, 16))[1]
    assert (depth[:, 8, 8] > 0).all()
    assert (depth[:, 0, 0] == 0).all()
