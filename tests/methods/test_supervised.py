"""The training helper, on a linear classifier written as its docstring says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from adlbench.benchmark.api import (
    AbsentSplit,
    ArraySplit,
    Batch,
    Budget,
    DataError,
    DataSchema,
    Modality,
    TaskKind,
    TrainingData,
)
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.context import CellContext
from adlbench.methods.base.images import normalise
from adlbench.methods.base.schedule import warmup_cosine
from adlbench.methods.base.supervised import SupervisedMethod


@dataclass(eq=False, kw_only=True)
class Linear(SupervisedMethod):
    serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.CLASSIFICATION})
    consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})

    def network(self, schema: DataSchema) -> nn.Module:
        inputs = schema.channels * schema.image_size[0] * schema.image_size[1]
        return nn.Sequential(
            nn.Flatten(), nn.Linear(inputs, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, len(schema.classes))
        )

    def logits(self, net: nn.Module, batch: Batch) -> Tensor:
        result: Tensor = net(normalise(batch["image"]))
        return result


MakeContext = Callable[..., CellContext]


@pytest.fixture
def make_context(tmp_path: Path) -> MakeContext:
    def make(seed: int = 0, steps: int = 8, precision: str = "fp32") -> CellContext:
        torch.manual_seed(seed)
        return CellContext(
            device=torch.device("cpu"),
            precision=precision,
            budget=Budget(steps=steps),
            work_folder=tmp_path,
            seed_parts=("test", seed),
            clock=Clock(),
        )

    return make


def make_data(count: int = 40, num_classes: int = 3, **changes: Any) -> TrainingData:
    """Two bright pixels say the class."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(0, num_classes, (count,), generator=generator)
    image = torch.randint(0, 60, (count, 1, 4, 4), generator=generator, dtype=torch.uint8)
    image[torch.arange(count), 0, 0, label] = 255
    fields: dict[str, Tensor] = {"image": image, "label": label, **changes}
    classes = tuple(f"c{i}" for i in range(num_classes))
    schema = DataSchema(
        Modality.IMAGE, ("image", "label"), count, count, classes=classes, channels=1, image_size=(4, 4)
    )
    return TrainingData(schema, ArraySplit(**fields))


def run(method: SupervisedMethod, context: CellContext, steps: int, total: int) -> dict[str, float]:
    values: dict[str, float] = {}
    for _ in range(steps):
        values = {name: float(value) for name, value in method.step().items()}
        context.step += 1
        context.progress = context.step / total
    return values


def test_it_learns(make_context: MakeContext):
    data = make_data()
    method = Linear(batch_size=20, learning_rate=0.05)
    context = make_context(steps=60)
    method.setup(data, context)
    run(method, context, 60, 60)
    items = data.train.all()
    predicted = method.predictor().logits(items).argmax(1)
    assert (predicted == items["label"]).all()
    assert context.samples == 60 * 20


def test_resumes_to_the_bit(make_context: MakeContext):
    """Dropout draws from the global generator, whose state the engine keeps; here by hand."""
    straight = Linear(batch_size=16, warmup=0.3, weight_decay=0.1)
    context = make_context()
    straight.setup(make_data(), context)
    run(straight, context, 3, 8)
    saved, position, random = straight.state_dict(), context.state_dict(), torch.get_rng_state()
    saved = {name: torch_copy(value) for name, value in saved.items()}
    run(straight, context, 5, 8)

    resumed, context = Linear(batch_size=16, warmup=0.3, weight_decay=0.1), make_context(seed=0)
    resumed.setup(make_data(), context)
    resumed.load_state_dict(saved)
    context.load_state_dict(position)
    context.progress = 3 / 8
    torch.set_rng_state(random)
    run(resumed, context, 5, 8)
    for name, value in straight.net.state_dict().items():
        assert torch.equal(value, resumed.net.state_dict()[name]), name


def torch_copy(value: Any) -> Any:
    import copy

    return copy.deepcopy(value)


def test_loads_without_data_and_predicts_the_same(make_context: MakeContext):
    data = make_data()
    trained, context = Linear(), make_context()
    trained.setup(data, context)
    run(trained, context, 4, 4)
    restored = Linear()
    restored.setup(TrainingData(data.schema, AbsentSplit(40)), make_context(seed=1))
    restored.load_state_dict(trained.state_dict())
    items = data.train.all()
    assert torch.equal(trained.predictor().logits(items), restored.predictor().logits(items))


def test_predictor_is_frozen_and_in_eval_mode(make_context: MakeContext):
    data = make_data()
    method, context = Linear(learning_rate=0.1), make_context()
    method.setup(data, context)
    run(method, context, 2, 8)
    predictor, items = method.predictor(), data.train.all()
    before = predictor.logits(items)
    assert torch.equal(before, predictor.logits(items))  # no dropout
    assert torch.equal(before[:1], predictor.logits({k: v[:1] for k, v in items.items()})) or torch.allclose(
        before[:1], predictor.logits({k: v[:1] for k, v in items.items()}), atol=1e-6
    )  # no statistics of the batch
    run(method, context, 3, 8)
    assert torch.equal(before, predictor.logits(items))
    assert method.net.training


def test_initial_weights_follow_from_the_seed_and_the_layers_alone(make_context: MakeContext):
    nets = []
    for seed, drawn in ((0, 0), (0, 17), (1, 0)):
        context = make_context(seed=seed)
        torch.rand(drawn)  # whatever somebody drew before
        method = Linear()
        method.setup(make_data(), context)
        nets.append(method.net[1].weight.detach().clone())  # type: ignore[index]
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])


def test_a_batch_larger_than_the_set_is_the_set(make_context: MakeContext):
    method, context = Linear(batch_size=1000), make_context()
    method.setup(make_data(count=7), context)
    run(method, context, 2, 2)
    assert context.samples == 14


def test_one_class_only(make_context: MakeContext):
    method, context = Linear(), make_context()
    data = make_data(num_classes=1)
    assert method.skip(data.schema) is None
    method.setup(data, context)
    assert run(method, context, 2, 2)["loss"] == 0.0


def test_bf16_keeps_float32_weights_and_logits(make_context: MakeContext):
    method, context = Linear(batch_size=20, learning_rate=0.05), make_context(precision="bf16", steps=60)
    data = make_data()
    method.setup(data, context)
    values = run(method, context, 60, 60)
    assert values["accuracy"] > 0.9
    logits = method.predictor().logits(data.train.all())
    assert logits.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in method.net.parameters())


def test_weight_decay_spares_biases_and_normalisation(make_context: MakeContext):
    method = Linear(weight_decay=0.1)
    method.setup(make_data(), make_context())
    decayed = {id(p) for g in method.optimizer.param_groups if g["weight_decay"] > 0 for p in g["params"]}
    for name, parameter in method.net.named_parameters():
        assert (id(parameter) in decayed) == (parameter.ndim > 1), name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": torch.zeros(40, 1, 4, 4)}, "images must be uint8"),
        ({"label": torch.full((40,), 3)}, "holds 3..3, but the schema names 3 classes"),
        ({"label": torch.full((40,), -1)}, "holds -1..-1"),
        ({"weight": torch.full((40,), torch.nan)}, "'weight' of the training items is not finite in 40 of 40"),
    ],
)
def test_broken_items_are_errors(make_context: MakeContext, changes: dict[str, Tensor], message: str):
    method, context = Linear(), make_context()
    with pytest.raises(DataError, match=message):  # noqa: PT012 - float images are found in the first step
        method.setup(make_data(**changes), context)
        method.step()


def test_an_empty_set_is_an_error(make_context: MakeContext):
    with pytest.raises(DataError, match="no items"):
        Linear().setup(make_data(count=0), make_context())


def test_skip_says_what_is_missing():
    schema = make_data().schema
    assert Linear().skip(schema) is None
    no_labels = DataSchema(Modality.IMAGE, ("image",), 1, 1, channels=1, image_size=(4, 4))
    assert "'label'" in str(Linear().skip(no_labels))
    no_classes = DataSchema(Modality.IMAGE, ("image", "label"), 1, 1, channels=1, image_size=(4, 4))
    assert "no classes" in str(Linear().skip(no_classes))


def test_rate_rises_then_falls_to_zero():
    method = Linear(learning_rate=2.0, warmup=0.25)
    assert method.learning_rate_at(0.0) == pytest.approx(0.02)
    assert method.learning_rate_at(0.125) == pytest.approx(1.0)
    assert method.learning_rate_at(0.25) == pytest.approx(2.0)
    assert method.learning_rate_at(0.625) == pytest.approx(1.0)
    assert method.learning_rate_at(1.0) == pytest.approx(0.0, abs=1e-9)
    assert warmup_cosine(0.0) == 1.0
    assert warmup_cosine(0.5, warmup=1.0) == 0.5
