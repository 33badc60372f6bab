"""The sparse residual network: its size, its strides, and that it learns and resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from adlbench.benchmark.api import AbsentSplit, ArraySplit, Budget, DataSchema, Modality, TrainingData
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.config import Catalog, build_method, resolve_method
from adlbench.benchmark.context import CellContext
from adlbench.methods.classification.sparse_resnet import SparseResNet, SparseResNetNetwork
from adlbench.methods.nn.sparse_tensor import quantise, sparse_tensor

MakeContext = Callable[..., CellContext]
SMALL = {
    "planes": (8, 16),
    "layers": (1, 1),
    "stem_channels": 8,
    "stem_stride": 1,
    "stem_pool": False,
    "head": False,
    "norm": "batch",
    "dropout": 0.2,
    "batch_size": 12,
    "voxel_size": 0.2,
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


def make_data(count: int = 36, points: int = 60) -> TrainingData:
    """Flat, long and round clouds."""
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(count) % 3
    shape = torch.tensor([[1.0, 0.1, 1.0], [0.1, 1.0, 0.1], [0.6, 0.6, 0.6]])
    clouds = torch.nn.functional.normalize(torch.randn(count, points, 3, generator=generator), dim=-1)
    schema = DataSchema(
        modality=Modality.POINTS,
        fields=("points", "label"),
        num_train=count,
        num_test=count,
        classes=("flat", "long", "round"),
        num_points=points,
    )
    return TrainingData(schema, ArraySplit(points=clouds * shape[label][:, None], label=label))


def run(method: SparseResNet, context: CellContext, steps: int, total: int) -> None:
    for _ in range(steps):
        method.step()
        context.step += 1
        context.progress = context.step / total


@pytest.mark.parametrize(
    ("layers", "count"), [((1, 1, 1, 1), 21_442_408), ((2, 2, 2, 2), 40_246_888)], ids=["ResNet14", "ResNet18"]
)
def test_as_many_parameters_as_minkowski_engines_examples(layers: tuple[int, ...], count: int) -> None:
    """Counted on examples/resnet.py of MinkowskiEngine 0.5.4 with 3 input channels and 40 classes."""
    with torch.device("meta"):
        net = SparseResNetNetwork(3, 40, layers=layers)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


def test_total_stride_is_192_as_in_the_example() -> None:
    voxels = quantise(torch.rand(2, 400, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1, 0.02)
    net = SparseResNetNetwork(1, 4, planes=(4, 4, 4, 4), stem_channels=4)
    x = sparse_tensor(torch.ones(len(voxels.coordinates), 1), voxels.coordinates, 2)
    assert net.stem(x).stride == 4
    assert net.stages(net.stem(x)).stride == 64
    assert net.head(net.stages(net.stem(x))).stride == 192
    assert net(x).shape == (2, 4)


def test_resolution_can_be_kept_for_small_objects() -> None:
    net = SparseResNetNetwork(
        1, 4, planes=(4, 4), layers=(1, 1), stem_channels=4, stem_stride=1, stem_pool=False, head=False
    )
    voxels = quantise(torch.rand(2, 50, 3, generator=torch.Generator().manual_seed(0)), 0.1)
    x = sparse_tensor(torch.ones(len(voxels.coordinates), 1), voxels.coordinates, 2)
    assert net.head(net.stages(net.stem(x))).stride == 4


def test_learns_shapes_and_predicts_each_item_for_itself(make_context: MakeContext) -> None:
    method, data = SparseResNet(**SMALL), make_data()  # type: ignore[arg-type]
    context = make_context(40)
    method.setup(data, context)
    run(method, context, 40, 40)
    batch = data.train.all()
    predictor = method.predictor()
    with torch.no_grad():
        logits = predictor.logits({"points": batch["points"]})
        alone = torch.cat([predictor.logits({"points": cloud[None]}) for cloud in batch["points"][:4]])
    assert (logits.argmax(1) == batch["label"]).float().mean() > 0.9
    torch.testing.assert_close(alone, logits[:4], atol=1e-4, rtol=1e-4)


def test_order_of_the_points_and_whole_voxels_of_shift_do_not_matter(make_context: MakeContext) -> None:
    method, data = SparseResNet(**SMALL), make_data()  # type: ignore[arg-type]
    method.setup(data, make_context())
    points = data.train.all()["points"][:3]
    predictor = method.predictor()
    with torch.no_grad():
        logits = predictor.logits({"points": points})
        shuffled = predictor.logits({"points": points[:, torch.randperm(points.shape[1])]})
    torch.testing.assert_close(shuffled, logits)


def test_resumes_to_the_bit(make_context: MakeContext) -> None:
    data, contexts = make_data(), []
    whole, first = SparseResNet(**SMALL), SparseResNet(**SMALL)  # type: ignore[arg-type]
    for method, steps in ((whole, 6), (first, 3)):
        contexts.append(make_context(6))
        method.setup(data, contexts[-1])
        run(method, contexts[-1], steps, 6)
    dropout_state = torch.get_rng_state()  # which the engine keeps with a checkpoint
    second, context = SparseResNet(**SMALL), make_context(6)  # type: ignore[arg-type]
    second.setup(data, context)
    second.load_state_dict(first.state_dict())
    context.load_state_dict(contexts[1].state_dict())
    context.step, context.progress = 3, 0.5
    torch.set_rng_state(dropout_state)
    run(second, context, 3, 6)
    state = second.net.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in whole.net.state_dict().items())


def test_restores_without_data(make_context: MakeContext) -> None:
    data = make_data()
    method, other = SparseResNet(**SMALL), SparseResNet(**SMALL)  # type: ignore[arg-type]
    method.setup(data, make_context())
    method.step()
    other.setup(TrainingData(data.schema, AbsentSplit(36)), make_context())
    other.load_state_dict(method.state_dict())
    points = {"points": data.train.all()["points"][:5]}
    with torch.no_grad():
        assert torch.equal(method.predictor().logits(points), other.predictor().logits(points))


def test_full_fidelity_is_the_example_and_short_keeps_the_resolution() -> None:
    spec = Catalog().spec("method", "sparse_resnet")
    full = build_method(spec, resolve_method(spec, {}, fidelity="full").parameters)
    short = build_method(spec, resolve_method(spec, {}, fidelity="short").parameters)
    assert isinstance(full, SparseResNet)
    assert isinstance(short, SparseResNet)
    defaults = SparseResNet()
    for name in ("planes", "layers", "stem_channels", "stem_stride", "stem_pool", "head", "norm", "dropout"):
        assert getattr(full, name) == getattr(defaults, name)
    assert short.stem_stride == 1


def test_logits_are_not_rounded_under_autocast() -> None:
    voxels = quantise(torch.rand(4, 200, 3, generator=torch.Generator().manual_seed(0)), 0.1)
    net = SparseResNetNetwork(3, 5, planes=(8, 16), layers=(1, 1), stem_channels=8, head=False)
    features = torch.randn(len(voxels.coordinates), 3, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(sparse_tensor(features, voxels.coordinates, 4))
    assert logits.dtype == torch.float32
    assert (logits != logits.bfloat16()).float().mean() > 0.9
