"""A cell on two devices: two processes on the CPU that exchange gradients through gloo, against one with the same batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sphere_scene import context as scene_context
from sphere_scene import orbit, sphere_scene
from tests_support import CATALOG, toy
from torch import Tensor, nn

from adlbench.benchmark.api import AdlbenchError, Budget, Context, DataError, Method, Predictor, TrainingData
from adlbench.benchmark.cell import read_checkpoint
from adlbench.benchmark.execution.base import make_executor
from adlbench.benchmark.parallel import Ranks
from adlbench.benchmark.plan import CellSpec, plan
from adlbench.benchmark.records import Record, read_arrays, read_record
from adlbench.benchmark.specs import Request
from adlbench.methods.novel_view_synthesis import nerf
from adlbench.methods.novel_view_synthesis.gaussian_splatting import GaussianSplatting

EXECUTOR = replace(CATALOG.spec("executor", "local"), grace_seconds=20.0)


def _run(cell: CellSpec, results: Path) -> tuple[Path, Record]:
    make_executor(EXECUTOR, 1).run([cell], results, lambda event: None)
    return cell.folder(results), read_record(cell.folder(results))


def _digits(method: str, devices: int, steps: int = 6, **nodes: Any) -> CellSpec:
    request = Request(
        task=("classification",),
        dataset=("digits",),
        method=(method,),
        fidelity="smoke",
        device="cpu",
        devices=devices,
        nodes={"method.budget.steps": steps, **nodes},
    )
    (cell,) = plan(request).cells
    return cell


# ---------------------------------------------------------------------------------------------------------- same as one
def test_a_classifier_on_two_devices_is_the_one_on_one(tmp_path: Path) -> None:
    """With augmentation, weight decay, a schedule and clipping of the gradients' norm."""
    (one, alone), (two, shared) = (_run(_digits("vit", devices), tmp_path) for devices in (1, 2))
    assert (alone.status, shared.status) == ("done", "done"), shared.reason
    assert one != two  # measured on other hardware, so another cell
    assert shared.hardware.startswith("2 x ")
    assert (shared.steps, shared.samples) == (alone.steps, alone.samples)
    curves = [json.loads((folder / "curve.json").read_text())[-1] for folder in (one, two)]
    assert curves[0]["loss"] == pytest.approx(curves[1]["loss"], abs=1e-5)  # the mean over both shares
    assert curves[0]["accuracy"] == pytest.approx(curves[1]["accuracy"], abs=1e-6)
    predictions = [read_arrays(folder / "predictions.npz") for folder in (one, two)]
    for name, expected in predictions[0].items():
        np.testing.assert_allclose(predictions[1][name], expected, atol=1e-5)
    assert shared.metrics == pytest.approx(alone.metrics, abs=1e-5)
    assert shared.train_step_flops == pytest.approx(alone.train_step_flops, rel=0.05)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """OpenMP's threads do not live on in a fork of a process that used them; a cell forks before it computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _shared(devices: int, folder: Path, make: Any, steps: int) -> Any:
    """What ``make(ranks)``, a method after setup, is after ``steps`` on so many devices."""
    ranks = Ranks()

    def follow(other: Ranks) -> None:
        method = make(other)
        other.attach(method, torch.device("cpu"))
        for count, _ in other.orders():
            other.agree([method.step() for _ in range(count)][-1])

    with ranks.started(follow, devices, folder, "cpu"):
        method = make(ranks)
        ranks.attach(method, torch.device("cpu"))
        for _ in range(steps):
            ranks.order(1, 0.0)
            values = ranks.agree(method.step())
        ranks.order(0, 1.0)
    return method, values


def test_a_scene_on_two_devices_is_the_one_on_one(
    tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each renders its half of the rays. Depths are evenly spread here: random ones would be drawn for each half.

    Three steps: later, the difference in rounding (3e-8) puts samples of the fine network into other bins.
    """
    stratified, pdf = nerf.stratified_depths, nerf.sample_pdf
    monkeypatch.setattr(nerf, "stratified_depths", lambda near, far, n, generator=None: stratified(near, far, n))
    monkeypatch.setattr(nerf, "sample_pdf", lambda edges, weights, n, generator=None: pdf(edges, weights, n))
    contexts = []

    def make(ranks: Ranks) -> nerf.NeRF:
        context = scene_context()
        context._ranks = ranks
        method = nerf.NeRF(depth=2, width=16, skip_layer=0, coarse_samples=8, fine_samples=8, batch_rays=64)
        method.setup(sphere_scene(3), context)
        contexts.append(context)
        return method

    (alone, values), (shared, others) = (_shared(devices, tmp_path, make, 3) for devices in (1, 2))
    assert values["loss"] == pytest.approx(others["loss"], abs=1e-5)
    assert contexts[0].samples == contexts[-1].samples == 3 * 64
    weights = [torch.cat([p.flatten() for p in method.field.parameters()]) for method in (alone, shared)]
    torch.testing.assert_close(weights[1], weights[0], atol=1e-6, rtol=0)
    expected, found = (method.predictor().render(orbit(1, 8, turn=0.3)).rgb for method in (alone, shared))
    assert (found - expected).abs().mean() < 1e-5  # a pixel whose fine samples change bins differs by more


def test_gaussians_on_two_devices_are_those_on_one(tmp_path: Path, one_thread: None) -> None:
    """Each renders half of a step's views. Both add, remove and fade the same Gaussians, by the statistics of all views."""

    class Hurried(GaussianSplatting):
        """Goes through its schedule in ten steps, of which the fifth and the seventh control the density."""

        steps = 0

        def step(self) -> Mapping[str, Tensor]:
            self.context.progress = self.steps / 10
            self.steps += 1
            return super().step()

    def make(ranks: Ranks) -> GaussianSplatting:
        context = scene_context()
        context._ranks = ranks
        method = Hurried(
            initial_points=60, iterations=10, densify_from=3, densify_until=8, densify_every=2, gradient_threshold=1e-6,
            split_above=0.02, reset_every=6, sh_every=3, views_per_step=4,
        )  # fmt: skip
        method.setup(sphere_scene(6), context)
        return method

    (alone, values), (shared, others) = (_shared(devices, tmp_path, make, 10) for devices in (1, 2))
    assert len(alone.cloud) == len(shared.cloud) > 60
    assert values == pytest.approx(others, abs=1e-5)
    assert alone.context.samples == shared.context.samples
    different = [(a - b).abs().flatten() for a, b in zip(alone.cloud.parameters(), shared.cloud.parameters())]
    # Adam's eps of 1e-15 makes a step of the full rate from a gradient that is nothing but rounding
    assert (torch.cat(different) > 1e-5).float().mean() < 1e-3
    expected, found = (made.predictor().render(orbit(2, 16, turn=0.3)).rgb for made in (alone, shared))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_two_devices_go_on_from_a_checkpoint_to_the_bit(tmp_path: Path) -> None:
    budget = Budget(steps=20)
    straight, first = _run(replace(toy(budget=budget), devices=2), tmp_path)
    assert first.status == "done", first.reason
    stopping = replace(toy(budget=budget, misbehave="stops once", at_step=10), devices=2)
    assert _run(stopping, tmp_path)[1].status == "interrupted"
    folder, record = _run(stopping, tmp_path)
    assert (record.status, record.num_resumes, record.metrics) == ("done", 1, first.metrics)
    weights = [read_checkpoint(path)["method"]["net"]["weight"] for path in (straight, folder)]  # type: ignore[index]
    assert torch.equal(*weights)


# ------------------------------------------------------------------------------------------------------- what does not work
def test_a_lost_rank_ends_the_cell(tmp_path: Path) -> None:
    _, record = _run(replace(toy(misbehave="loses a rank", budget=Budget(steps=20)), devices=2), tmp_path)
    assert record.status == "failed"
    assert "rank 1 ended with exit code -9" in record.reason


def test_batch_normalisation_is_refused_on_a_cpu(tmp_path: Path) -> None:
    _, record = _run(_digits("cnn", 2), tmp_path)
    assert record.status == "failed"
    assert "devices=2: CNN.net normalises over the batch" in record.reason


def test_what_does_not_share_its_batches_is_skipped() -> None:
    request = Request(task=("toy",), method=("toy_majority",), fidelity="smoke", devices=2, plugins=("toybench",))
    (skip,) = plan(request, CATALOG).skipped
    assert skip.reason == "devices=2: toy_majority does not share its batches among devices (Method.shares_batches)"


def test_which_scene_methods_are_planned_on_two_devices() -> None:
    request = Request(task=("novel_view_synthesis",), dataset=("tabletop",), fidelity="smoke", devices=2, device="cpu")
    made = plan(request)
    assert {cell.method.name for cell in made.cells} == {"nerf", "gaussian_splatting"}


def test_a_batch_that_cannot_be_parted_is_refused() -> None:
    context = scene_context()
    context._ranks = Ranks(1, 2)
    assert context.share(torch.arange(6)).tolist() == [3, 4, 5]
    with pytest.raises(DataError, match="a batch of 5 cannot be shared by devices=2"):
        context.share(torch.arange(5))


class _Drifts(Method):
    """Keeps a mean of its share in a parameter, which no gradient knows of."""

    serves: ClassVar = frozenset()
    consumes: ClassVar = frozenset()

    def __init__(self, context: Context):
        self.context, self.net = context, nn.Linear(1, 1)

    def setup(self, data: TrainingData, context: Context) -> None: ...

    def step(self) -> Mapping[str, Tensor]:
        with torch.no_grad():
            self.net.weight.fill_(self.context.share(torch.arange(4.0)).mean())
        return {"loss": self.net.weight.detach().sum()}

    def predictor(self) -> Predictor:
        raise NotImplementedError


def test_parameters_that_drift_apart_are_noticed(tmp_path: Path, one_thread: None) -> None:
    def make(ranks: Ranks) -> _Drifts:
        context = scene_context()
        context._ranks = ranks
        torch.manual_seed(0)
        return _Drifts(context)

    with pytest.raises(AdlbenchError, match="devices=2: the devices' copies of _Drifts differ"):
        _shared(2, tmp_path, make, 3)
    assert _shared(1, tmp_path, make, 3)[1]["loss"] == 1.5


def test_gradients_that_are_accumulated_are_averaged_once(tmp_path: Path, one_thread: None) -> None:
    """Two backward passes before a step: the gradient is that of the sum, as on one device."""

    class Twice(_Drifts):
        def step(self) -> Mapping[str, Tensor]:
            x = self.context.share(torch.arange(1.0, 5.0))
            self.net.zero_grad()
            for power in (1, 2):
                (self.net.weight * x**power).mean().backward()
            assert self.net.weight.grad is not None
            return {"gradient": self.net.weight.grad.sum()}

    def make(ranks: Ranks) -> Twice:
        context = scene_context()
        context._ranks = ranks
        torch.manual_seed(0)
        return Twice(context)

    assert _shared(2, tmp_path, make, 2)[1]["gradient"] == pytest.approx(2.5 + 7.5)
