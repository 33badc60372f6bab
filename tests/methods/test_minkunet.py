"""MinkUNet: its sizes, its symmetry, what it learns from and what it is evaluated on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adlbench.benchmark.api import AbsentSplit, AdlbenchError, ArraySplit, Budget, DataSchema, Modality, TrainingData
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.context import CellContext
from adlbench.methods.nn.sparse_conv import SparseBatchNorm, SparseConv
from adlbench.methods.nn.sparse_tensor import quantise, sparse_tensor
from adlbench.methods.segmentation.minkunet import IGNORE_LABEL, MinkUNet, MinkUNetNetwork

MakeContext = Callable[..., CellContext]
A = (32, 64, 128, 256, 128, 128, 96, 96)
C = (32, 64, 128, 256, 256, 128, 96, 96)
SMALL = {
    "planes": (8, 16, 16, 8),
    "layers": (1, 1, 1, 1),
    "stem_channels": 8,
    "stem_kernel": 3,
    "batch_size": 6,
    "voxel_size": 0.2,
    "features": ("constant", "normals"),
    "optimizer_name": "adamw",
    "learning_rate": 0.01,
}


@pytest.fixture
def make_context(tmp_path: Path) -> MakeContext:
    def make(steps: int = 10) -> CellContext:
        torch.manual_seed(0)
        return CellContext(
            device=torch.device("cpu"),
            precision="fp32",
            budget=Budget(steps=steps),
            work_folder=tmp_path,
            seed_parts=("test",),
            clock=Clock(),
        )

    return make


def make_data(count: int = 12, points: int = 100) -> TrainingData:
    """Points and normals of a ball: what lies above y = 0.1 is part 1, the rest part 0."""
    generator = torch.Generator().manual_seed(0)
    clouds = torch.nn.functional.normalize(torch.randn(count, points, 3, generator=generator), dim=-1)
    schema = DataSchema(
        modality=Modality.POINTS,
        fields=("points", "normals", "point_label"),
        num_train=count,
        num_test=count,
        parts=("lower", "upper"),
        num_points=points,
    )
    return TrainingData(schema, ArraySplit(points=clouds, normals=clouds, point_label=(clouds[..., 1] > 0.1).long()))


def inputs(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: batch[name] for name in ("points", "normals")}


def run(method: MinkUNet, context: CellContext, steps: int, total: int) -> dict[str, float]:
    values: dict[str, float] = {}
    for _ in range(steps):
        values = {name: float(value) for name, value in method.step().items()}
        context.step += 1
        context.progress = context.step / total
    return values


@pytest.mark.parametrize(
    ("planes", "layers", "count"),
    [
        (A, (1, 1, 1, 1, 1, 1, 1, 1), 8_024_500),
        (A, (2, 2, 2, 2, 2, 2, 2, 2), 15_493_172),
        (C, (2, 3, 4, 6, 2, 2, 2, 2), 37_856_052),
    ],
    ids=["14A", "18A", "34C"],
)
def test_as_many_parameters_as_minkowski_engines_examples(
    planes: tuple[int, ...], layers: tuple[int, ...], count: int
) -> None:
    """Counted on examples/minkunet.py of MinkowskiEngine 0.5.4 with 3 input channels and 20 classes."""
    with torch.device("meta"):
        net = MinkUNetNetwork(3, 20, planes, layers)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def test_decoders_answer_on_the_encoders_voxels() -> None:
    voxels = quantise(torch.rand(2, 200, 3, generator=torch.Generator().manual_seed(0)) * 20, 1.0)
    net = MinkUNetNetwork(1, 5, (4, 4, 4, 4, 4, 4, 4, 4), (1,) * 8, stem_channels=4)
    x = sparse_tensor(torch.ones(len(voxels.coordinates), 1), voxels.coordinates, 2)
    assert net(x).shape == (len(voxels.coordinates), 5)
    assert net.encoders[-1](net.down[-1](_down_to(net, x, 3))).stride == 16


def _down_to(net: MinkUNetNetwork, x, levels: int):  # type: ignore[no-untyped-def]
    x = net.stem(x)
    for down, encoder in list(zip(net.down, net.encoders, strict=True))[:levels]:
        x = encoder(down(x))
    return x


def test_convolutions_before_a_normalisation_have_no_bias_and_only_the_last_has_one() -> None:
    net = MinkUNetNetwork(1, 5, (4, 4), (1, 1))
    biased = [module for module in net.modules() if isinstance(module, SparseConv) and module.bias is not None]
    assert biased == [net.final]
    assert all(norm.momentum == 0.1 for norm in net.modules() if isinstance(norm, SparseBatchNorm))


def test_learns_and_answers_for_every_point(make_context: MakeContext) -> None:
    method, data, context = MinkUNet(**SMALL), make_data(), make_context(40)  # type: ignore[arg-type]
    method.setup(data, context)
    run(method, context, 40, 40)
    batch = data.train.all()
    with torch.no_grad():
        logits = method.predictor().logits(inputs(batch))
    assert logits.shape == (12, 100, 2)
    assert (logits.argmax(-1) == batch["point_label"]).float().mean() > 0.9


def test_points_of_one_voxel_get_one_answer(make_context: MakeContext) -> None:
    method, data = MinkUNet(**SMALL), make_data()  # type: ignore[arg-type]
    method.setup(data, make_context())
    points = data.train.all()["points"][:2]
    with torch.no_grad():
        logits = method.predictor().logits({"points": points, "normals": points})
    voxels = quantise(points, 0.2)
    flat, index = logits.flatten(0, 1), voxels.point_to_voxel.flatten()
    first = torch.stack([(index == row).nonzero()[0, 0] for row in range(len(voxels.coordinates))])
    assert torch.equal(flat, flat[first][index])


def test_voxels_of_mixed_labels_are_not_learnt_from(make_context: MakeContext) -> None:
    method, data = MinkUNet(**{**SMALL, "voxel_size": 0.5}), make_data()  # type: ignore[arg-type]
    method.setup(data, make_context())
    batch = data.train.all()
    voxels = quantise(batch["points"], 0.5)
    mixed = voxels.labels(batch["point_label"], IGNORE_LABEL) == IGNORE_LABEL
    with torch.no_grad():
        values = method.loss(method.net, batch)
    assert float(values["mixed_voxels"]) == pytest.approx(float(mixed.float().mean()))
    assert 0 < float(values["mixed_voxels"]) < 0.5
    label = batch["point_label"].clone()
    hit = mixed[voxels.point_to_voxel]
    label[hit] = 1 - label[hit]  # still mixed
    with torch.no_grad():
        other = method.loss(method.net, {**batch, "point_label": label})
    assert float(other["loss"]) == pytest.approx(float(values["loss"]), rel=1e-5)


def test_a_batch_with_nothing_but_mixed_voxels_has_a_finite_loss(make_context: MakeContext) -> None:
    method, data = MinkUNet(**{**SMALL, "voxel_size": 10.0}), make_data()  # type: ignore[arg-type]
    method.setup(data, make_context())
    batch = data.train.all()
    batch["points"] = batch["points"].abs()
    with torch.no_grad():
        values = method.loss(method.net, batch)
    assert float(values["loss"]) == 0.0
    assert float(values["mixed_voxels"]) == 1.0


def test_resumes_to_the_bit_and_restores_without_data(make_context: MakeContext) -> None:
    data, contexts = make_data(), [make_context(6), make_context(6)]
    whole, first = MinkUNet(**SMALL), MinkUNet(**SMALL)  # type: ignore[arg-type]
    whole.setup(data, contexts[0])
    run(whole, contexts[0], 6, 6)
    first.setup(data, contexts[1])
    run(first, contexts[1], 3, 6)
    second, context = MinkUNet(**SMALL), make_context(6)  # type: ignore[arg-type]
    second.setup(data, context)
    second.load_state_dict(first.state_dict())
    context.load_state_dict(contexts[1].state_dict())
    context.step, context.progress = 3, 0.5
    run(second, context, 3, 6)
    state = second.net.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.net.state_dict().items())
    absent = MinkUNet(**SMALL)  # type: ignore[arg-type]
    absent.setup(TrainingData(data.schema, AbsentSplit(12)), make_context())
    absent.load_state_dict(whole.state_dict())
    shown = inputs(data.train.all())
    with torch.no_grad():
        assert torch.equal(absent.predictor().logits(shown), whole.predictor().logits(shown))


def test_planes_and_layers_must_pair_up(make_context: MakeContext) -> None:
    with pytest.raises(AdlbenchError, match="as long as each other, and even"):
        MinkUNet(**{**SMALL, "planes": (8, 16, 8)}).setup(make_data(), make_context())  # type: ignore[arg-type]


def test_a_set_without_parts_is_skipped_with_the_reason() -> None:
    schema = DataSchema(Modality.POINTS, ("points", "label"), 1, 1, classes=("a", "b"))
    assert "point_label" in str(MinkUNet().skip(schema))


def test_logits_are_not_rounded_under_autocast() -> None:
    voxels = quantise(torch.rand(2, 200, 3, generator=torch.Generator().manual_seed(0)), 0.1)
    net = MinkUNetNetwork(3, 5, (8, 16, 16, 8), (1, 1, 1, 1), 8, 3)
    features = torch.randn(len(voxels.coordinates), 3, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(sparse_tensor(features, voxels.coordinates, 2))
    assert logits.dtype == torch.float32
    assert (logits != logits.bfloat16()).float().mean() > 0.9
