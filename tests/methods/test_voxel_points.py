"""From point clouds to sparse tensors, and what augmentation may do to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from adlbench.benchmark.api import AdlbenchError, ArraySplit, Budget, DataSchema, Modality, TrainingData
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.context import CellContext
from adlbench.methods.base.voxel_points import random_turns
from adlbench.methods.classification.sparse_resnet import SparseResNet

MakeContext = Callable[[], CellContext]


@pytest.fixture
def make_context(tmp_path: Path) -> MakeContext:
    def make() -> CellContext:
        torch.manual_seed(0)
        return CellContext(
            device=torch.device("cpu"),
            precision="fp32",
            budget=Budget(steps=4),
            work_folder=tmp_path,
            seed_parts=("test",),
            clock=Clock(),
        )

    return make


def make_data() -> TrainingData:
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(4, 50, 3, generator=generator) - 0.5
    normals = torch.nn.functional.normalize(torch.randn(4, 50, 3, generator=generator), dim=-1)
    schema = DataSchema(
        modality=Modality.POINTS,
        fields=("points", "normals", "label"),
        num_train=4,
        num_test=4,
        classes=("a", "b"),
        num_points=50,
    )
    return TrainingData(schema, ArraySplit(points=points, normals=normals, label=torch.tensor([0, 1, 0, 1])))


def small(**parameters: object) -> SparseResNet:
    sizes = {"planes": (4,), "layers": (1,), "stem_channels": 4, "stem_stride": 1, "stem_pool": False, "head": False}
    return SparseResNet(**{"norm": "batch", "batch_size": 4, "voxel_size": 0.25, **sizes, **parameters})  # type: ignore[arg-type]


@pytest.mark.parametrize("up_axis", [0, 1, 2])
def test_turns_keep_the_up_axis_and_lengths(up_axis: int) -> None:
    turns = random_turns(64, up_axis, torch.Generator().manual_seed(0))
    torch.testing.assert_close(turns @ turns.mT, torch.eye(3).expand(64, 3, 3))
    up = torch.eye(3)[up_axis]
    torch.testing.assert_close(up @ turns, up.expand(64, 3))
    assert (torch.det(turns) < 0).any()
    assert (torch.det(turns) > 0).any()
    assert torch.equal(
        random_turns(3, up_axis, torch.Generator(), rotate=False, flip=0.0), torch.eye(3).expand(3, 3, 3)
    )


def test_normals_turn_with_the_points_and_keep_their_length() -> None:
    batch = make_data().train.all()
    batch["normals"] = batch["points"] / batch["points"].norm(dim=-1, keepdim=True)
    changed = small(scale=0.3).augment(batch, torch.Generator().manual_seed(1))
    lengths = changed["points"].norm(dim=-1, keepdim=True)
    torch.testing.assert_close(changed["normals"], changed["points"] / lengths)
    zoom = (lengths / batch["points"].norm(dim=-1, keepdim=True)).flatten(1)
    assert (zoom.amax(1) - zoom.amin(1)).max() < 1e-5  # one per cloud
    assert 0.7 <= zoom.min() < zoom.max() <= 1.3


def test_augmentation_follows_from_its_generator_and_can_be_off() -> None:
    batch = make_data().train.all()
    one, other = (small(jitter_sigma=0.01).augment(batch, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one["points"], other["points"])
    off = small(rotate=False, flip=0.0, scale=0.0).augment(batch, torch.Generator().manual_seed(5))
    torch.testing.assert_close(off["points"], batch["points"])


def test_features_are_what_their_names_say(make_context: MakeContext) -> None:
    method, data = small(features=("constant", "offset", "position", "normals")), make_data()
    method.setup(data, make_context())
    batch = data.train.all()
    x, voxels = method.voxels(batch)
    assert x.features.shape == (len(voxels.coordinates), 10)
    assert (x.features[:, 0] == 1).all()
    assert x.features[:, 1:4].abs().max() <= 0.5
    members = batch["points"].flatten(0, 1)[voxels.point_to_voxel.flatten() == 3]
    centre = (voxels.coordinates[3, 1:] + 0.5) * 0.25
    torch.testing.assert_close(x.features[3, 1:4], (members.mean(0) - centre) / 0.25)
    torch.testing.assert_close(x.features[3, 4:7], members.mean(0))
    normals = batch["normals"].flatten(0, 1)[voxels.point_to_voxel.flatten() == 3]
    torch.testing.assert_close(x.features[3, 7:], normals.mean(0))


def test_what_cannot_work_is_said_before_it_runs(make_context: MakeContext) -> None:
    data = make_data()
    bare = replace(data.schema, fields=("points", "label"))
    assert "normals" in str(small(features=("normals",)).skip(bare))
    assert small().skip(data.schema) is None
    for parameters, words in (
        ({"features": ("colour",)}, "constant, offset, position, normals"),
        ({"features": ()}, "choose one or more"),
        ({"voxel_size": 0.0}, "must be positive"),
        ({"backend": "spconv"}, "auto, torch, minkowski"),
        ({"optimizer_name": "lion"}, "neither 'sgd' nor 'adamw'"),
        ({"norm": "layer"}, "neither 'instance' nor 'batch'"),
        ({"planes": (4, 8)}, "differ in length"),
    ):
        with pytest.raises(AdlbenchError, match=words):
            small(**parameters).setup(data, make_context())


def test_the_rate_is_cosine_or_polynomial_after_the_warm_up() -> None:
    cosine, poly = small(learning_rate=1.0), small(learning_rate=1.0, poly_power=0.9, warmup=0.1)
    assert cosine.learning_rate_at(0.5) == pytest.approx(0.5)
    assert poly.learning_rate_at(0.05) == pytest.approx(0.5)
    assert poly.learning_rate_at(0.5) == pytest.approx(0.5**0.9)
    assert poly.learning_rate_at(1.0) == 0.0
