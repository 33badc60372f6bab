"""DeepSDF: the released decoder, losses and test-time fit, and what is easily got wrong in them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adlbench.benchmark.api import AbsentSplit, ArraySplit, Batch, Budget, DataError, DataSchema, Modality, TrainingData
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.config import Catalog, build_method
from adlbench.benchmark.context import CellContext
from adlbench.methods.base.auto_decoder import fit_code, halving
from adlbench.methods.reconstruction.deepsdf import Decoder, DeepSDF, SignedSamples, clamped_error, decode

RADII = torch.linspace(0.3, 0.7, 5)
SMALL = {
    "width": 64, "depth": 4, "skip_layer": 2, "dropout": 0.0, "code_length": 8, "learning_rate": 3e-3,
    "code_learning_rate": 1e-2, "shapes_per_step": 5, "samples_per_shape": 128, "fit_iterations": 150, "fit_samples": 256,
}  # fmt: skip


def make_context(folder: Path, steps: int = 10, precision: str = "fp32") -> CellContext:
    torch.manual_seed(0)
    return CellContext(
        device=torch.device("cpu"),
        precision=precision,
        budget=Budget(steps=steps),
        work_folder=folder,
        seed_parts=("test",),
        clock=Clock(),
    )


def balls(radii: Tensor = RADII, samples: int = 2000) -> ArraySplit:
    points = torch.rand(len(radii), samples, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return ArraySplit(sdf_points=points, sdf=points.norm(dim=-1) - radii[:, None])


def make_data(split: ArraySplit | None = None) -> TrainingData:
    split = split or balls()
    return TrainingData(DataSchema(Modality.SHAPE, ("sdf_points", "sdf"), len(split), 1), split)


def train(method: DeepSDF, context: CellContext, steps: int, total: int) -> list[dict[str, float]]:
    history = []
    for _ in range(steps):
        context.progress = context.step / total
        history.append({name: float(value) for name, value in method.step().items()})
        context.step += 1
    context.progress = context.step / total
    return history


def observation(radius: float, samples: int = 1000) -> Batch:
    points = torch.rand(samples, 3, generator=torch.Generator().manual_seed(7)) * 2 - 1
    return {"sdf_points": points, "sdf": points.norm(dim=-1) - radius}


# ------------------------------------------------------------------------------------------------------------ the decoder
class PlainDecoder(nn.Module):
    """The released decoder written down once more: PyTorch's weight normalisation, everything concatenated per point."""

    def __init__(self, code_length: int, width: int, depth: int, skip: int):
        super().__init__()
        sizes = [code_length + 3] + depth * [width] + [1]
        self.skip, self.layers = skip, nn.ModuleList()
        for i in range(depth + 1):
            out = sizes[i + 1] - sizes[0] if i + 1 == skip else sizes[i + 1]
            layer: nn.Module = nn.Linear(sizes[i], out)
            self.layers.append(nn.utils.parametrizations.weight_norm(layer) if i < depth else layer)

    def forward(self, inputs: Tensor) -> Tensor:
        x = inputs
        for i, layer in enumerate(self.layers):
            if i == self.skip:
                x = torch.cat([x, inputs], 1)
            x = layer(x)
            if i < len(self.layers) - 1:
                x = torch.relu(x)
        return torch.tanh(x)


def copy_weights(plain: PlainDecoder, decoder: Decoder) -> None:
    for source, target in zip(plain.layers, [*decoder.hidden, decoder.output], strict=True):
        target.bias.data.copy_(source.bias)
        if hasattr(source, "parametrizations"):
            target.gain.data.copy_(source.parametrizations.weight.original0)
            target.weight.data.copy_(source.parametrizations.weight.original1)
        else:
            target.weight.data.copy_(source.weight)


@pytest.mark.parametrize(("length", "width", "depth", "skip"), [(5, 32, 8, 4), (256, 512, 8, 4), (3, 16, 3, 2)])
def test_decoder_equals_its_plain_statement(length: int, width: int, depth: int, skip: int) -> None:
    torch.manual_seed(0)
    plain, decoder = PlainDecoder(length, width, depth, skip), Decoder(length, width, depth, skip, dropout=0.0)
    for parameter in plain.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)  # away from where gain = |direction|
    copy_weights(plain, decoder)
    codes, points = torch.randn(2, length), torch.rand(2, 7, 3)
    codes_there, codes_here = codes.clone().requires_grad_(), codes.clone().requires_grad_()
    there = plain(torch.cat([codes_there[:, None].expand(-1, 7, -1), points], -1).reshape(14, -1)).reshape(2, 7)
    here = decoder(codes_here, points)
    torch.testing.assert_close(here, there, atol=1e-5, rtol=1e-5)
    there.square().sum().backward()
    here.square().sum().backward()
    torch.testing.assert_close(codes_here.grad, codes_there.grad, atol=1e-5, rtol=1e-4)
    layer, same = decoder.hidden[1], plain.layers[1].parametrizations.weight
    torch.testing.assert_close(layer.gain.grad, same.original0.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer.weight.grad, same.original1.grad, atol=1e-5, rtol=1e-4)


def test_size_at_the_papers_configuration() -> None:
    decoder = Decoder(code_length=256)
    assert sum(p.numel() for p in decoder.parameters()) == 1_843_195  # 1.84 M, the gains included
    assert [tuple(layer.weight.shape) for layer in decoder.hidden] == [
        (512, 259), (512, 512), (512, 512), (253, 512), (512, 512), (512, 512), (512, 512), (512, 512)
    ]  # fmt: skip
    assert not hasattr(decoder.output, "gain")
    assert decoder.dropout == 0.2


def test_defaults_are_the_released_specification() -> None:
    method, catalog = DeepSDF(), Catalog()
    spec = catalog.spec("method", "deepsdf")
    full = next(preset for preset in spec.presets if preset.when.fidelity == "full")
    set_by_yaml = build_method(spec, {**spec.parameters, **full.set.parameters})
    assert vars(set_by_yaml) == vars(method)
    assert (method.clamp, method.code_regularization, method.code_bound) == (0.1, 1e-4, 1.0)
    assert (method.fit_iterations, method.fit_learning_rate, method.fit_init) == (800, 5e-3, 0.01)


@pytest.mark.parametrize("width", [96, 128, 512])
def test_no_seed_starts_beyond_the_clamp(width: int) -> None:
    """There the clamped prediction has no gradient, and training would never begin."""
    for seed in range(20):
        torch.manual_seed(seed)
        net = Decoder(64, width, depth=8, skip=4, dropout=0.0)
        with torch.no_grad():
            distances = net(torch.randn(4, 64) / 8, torch.rand(4, 200, 3) * 2 - 1)
        assert distances.abs().max() < 0.1


def test_output_goes_through_tanh() -> None:
    decoder = Decoder(4, width=16, depth=2, skip=1)
    decoder.output.bias.data.fill_(5.0)
    decoder.output.weight.data.zero_()
    torch.testing.assert_close(decoder(torch.zeros(1, 4), torch.zeros(1, 2, 3)), torch.full((1, 2), math.tanh(5.0)))


def test_dropout_is_on_in_training_only() -> None:
    torch.manual_seed(0)
    decoder = Decoder(4, width=64, dropout=0.2)
    codes, points = torch.randn(1, 4), torch.rand(1, 50, 3)
    assert not torch.equal(decoder(codes, points), decoder(codes, points))
    decoder.eval()
    assert torch.equal(decoder(codes, points), decoder(codes, points))


def test_positions_keep_their_precision_under_bfloat16() -> None:
    """Two positions that are the same number in bfloat16 get different distances."""
    torch.manual_seed(0)
    decoder = Decoder(4, width=64, dropout=0.0)
    codes, points = torch.randn(1, 4), torch.tensor([[[0.7501, 0, 0], [0.7499, 0.0, 0.0]]])
    assert points.bfloat16().unique().numel() == 2
    weights = decoder.weights()
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        entering = nn.functional.linear(points, weights[0][0][:, -3:])
        assert torch.equal(entering[0, 0], entering[0, 1])  # what happens to them otherwise
        answer = decode(weights, codes, points + torch.tensor([0.0, 0.1, 0.2]), skip=4)
    exact = decode(weights, codes, points + torch.tensor([0.0, 0.1, 0.2]), skip=4)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, exact, atol=5e-3, rtol=0)


# ------------------------------------------------------------------------------------------------------------- the losses
def test_prediction_and_truth_are_both_clamped() -> None:
    predicted = torch.tensor([0.05, 0.5, 0.5, -0.3, 0.02], requires_grad=True)
    truth = torch.tensor([0.02, 0.3, -0.4, -0.9, 0.8])
    error = clamped_error(predicted, truth, 0.1)
    torch.testing.assert_close(error, torch.tensor([0.03, 0.0, 0.2, 0.0, 0.08]))
    error.sum().backward()
    assert predicted.grad is not None
    assert predicted.grad.tolist() == [1, 0, 0, 0, -1]  # beyond the clamp nothing pulls


def test_regulariser_is_the_norm_in_training_and_warms_up(tmp_path: Path) -> None:
    context = make_context(tmp_path, steps=100)
    method = DeepSDF(**{**SMALL, "code_regularization": 0.5, "regularization_warmup": 0.1})
    method.setup(make_data(), context)
    codes = method.codes.weight.detach()
    for progress, warm in ((0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.9, 1.0)):
        context.progress = progress
        terms = method.loss(torch.arange(5), codes, method.generator)
        torch.testing.assert_close(terms["loss"] - terms["sdf_error"], 0.5 * warm * codes.norm(dim=1).mean())


def test_regulariser_is_the_mean_square_in_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []

    def spy(loss: object, start: Tensor, iterations: int, learning_rate: float) -> Tensor:
        losses.append((loss, start, iterations, learning_rate))
        return start

    monkeypatch.setattr("adlbench.methods.reconstruction.deepsdf.fit_code", spy)
    base = {**SMALL, "fit_samples": 64}
    codes = torch.full((8,), 2.0)
    values = []
    for strength in (0.0, 0.5):
        method = DeepSDF(**{**base, "code_regularization": strength})
        method.setup(make_data(), make_context(tmp_path))
        method.predictor().adapt(observation(0.5))
        loss, start, iterations, rate = losses[-1]
        assert (iterations, rate) == (150, 5e-3)
        assert float(start.std()) < 0.03  # starts near 0, not like the codes of the training shapes
        values.append(loss(codes))  # type: ignore[operator]
    torch.testing.assert_close(values[1] - values[0], torch.tensor(0.5 * 4.0))


def test_samples_are_half_inside_half_outside() -> None:
    points = torch.rand(3, 1000, 3)
    sdf = torch.stack([points[0, :, 0] - 0.05, points[1, :, 0] - 0.95, points[2, :, 0] + 1.0])  # the third: no inside
    samples = SignedSamples(points, sdf)
    drawn, distances = samples.draw(torch.tensor([1, 0, 2, 0]), 400, torch.Generator().manual_seed(0))
    assert drawn.shape == (4, 400, 3)
    assert (distances <= 0).sum(1).tolist() == [200, 200, 0, 200]
    torch.testing.assert_close(drawn[0, :, 0] - 0.95, distances[0])  # position and distance stay together
    assert len(drawn[1, 200:].unique(dim=0)) > 150
    first = samples.draw(torch.tensor([1]), 50, torch.Generator().manual_seed(3))
    again = samples.draw(torch.tensor([1]), 50, torch.Generator().manual_seed(3))
    assert torch.equal(first[0], again[0])


# -------------------------------------------------------------------------------------------------------------- the codes
def test_codes_start_and_stay_in_bounds(tmp_path: Path) -> None:
    wide = DeepSDF(code_length=256, width=320, depth=2, skip_layer=1, shapes_per_step=2, samples_per_shape=4)
    schema = DataSchema(Modality.SHAPE, ("sdf_points", "sdf"), 400, 1)
    wide.setup(TrainingData(schema, AbsentSplit(400)), make_context(tmp_path))
    assert float(wide.codes.weight.detach().std()) == pytest.approx(1 / 16, rel=0.02)
    assert float(wide.codes.weight.detach().norm(dim=1).mean()) == pytest.approx(1, rel=0.02)

    method = DeepSDF(**{**SMALL, "code_bound": 0.5})
    method.setup(make_data(), make_context(tmp_path))
    method.codes.weight.data.mul_(10)
    method.step()
    assert (
        float(method.codes.weight.detach().norm(dim=1).max()) < 0.5 + 3e-2
    )  # one step of Adam past it, until looked up again


def test_rates_of_decoder_and_codes_are_halved_together(tmp_path: Path) -> None:
    assert [halving(p, 4) for p in (0, 0.24, 0.26, 0.5, 0.76, 1.0)] == [1, 1, 0.5, 0.25, 0.125, 0.125]
    context = make_context(tmp_path)
    method = DeepSDF(**SMALL)
    method.setup(make_data(), context)
    context.progress = 0.6
    method.step()
    assert [group["lr"] for group in method.optimizer.param_groups] == [3e-3 / 4, 1e-2 / 4]


def test_fit_lowers_its_rate_in_the_second_half() -> None:
    """Adam's first steps are as long as the rate: a linear loss moves the code by the sum of the rates."""
    moved = fit_code(lambda code: code.sum(), torch.zeros(3), iterations=10, learning_rate=0.1)
    torch.testing.assert_close(moved, torch.full((3,), -(5 * 0.1 + 5 * 0.01)), atol=1e-4, rtol=0)


# -------------------------------------------------------------------------------------------------------------- the whole
@pytest.fixture(scope="module")
def learnt(tmp_path_factory: pytest.TempPathFactory) -> DeepSDF:
    context = make_context(tmp_path_factory.mktemp("deepsdf"), steps=300)
    method = DeepSDF(**SMALL)
    method.setup(make_data(), context)
    history = train(method, context, 300, 300)
    assert history[-1]["sdf_error"] < 0.2 * history[0]["sdf_error"]
    return method


def test_unseen_shape_is_fitted(learnt: DeepSDF) -> None:
    predictor = learnt.predictor()
    seen = observation(0.45)
    with torch.no_grad():  # as evaluation may call it
        shape = predictor.adapt(seen)
        again = predictor.adapt(seen)
    assert torch.equal(shape.code, again.code)
    answer = shape.query(seen["sdf_points"])
    assert answer.shape == (1000, 1)
    near = seen["sdf"].abs() < 0.08
    assert (answer[:, 0] - seen["sdf"])[near].abs().mean() < 0.02
    other = predictor.adapt(observation(0.65))
    assert (other.query(seen["sdf_points"]) < shape.query(seen["sdf_points"]))[near].float().mean() > 0.95


def test_shapes_between_two_codes_lie_between_two_shapes(learnt: DeepSDF) -> None:
    predictor = learnt.predictor()
    small, large = predictor.adapt(observation(0.35)), predictor.adapt(observation(0.65))
    grid = torch.rand(20000, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    volumes = [
        float((predictor.interpolate(small, large, t).query(grid) < 0).float().mean()) for t in (0, 0.25, 0.5, 0.75, 1)
    ]
    assert volumes == sorted(volumes)
    assert volumes[1] > volumes[0] + 0.005
    assert torch.equal(predictor.interpolate(small, large, 0.0).code, small.code)


def test_predictor_is_frozen(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    method = DeepSDF(**{**SMALL, "dropout": 0.2, "fit_iterations": 3})
    method.setup(make_data(), context)
    shape = method.predictor().adapt(observation(0.5))
    points = torch.rand(20, 3)
    before = shape.query(points)
    method.step()
    assert torch.equal(shape.query(points), before)
    assert method.net.training


def test_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    data, settings = make_data(), {**SMALL, "shapes_per_step": 2, "dropout": 0.2}
    context = make_context(tmp_path)
    whole = DeepSDF(**settings)
    whole.setup(data, context)
    torch.manual_seed(1)
    train(whole, context, 6, 6)

    context = make_context(tmp_path)
    first = DeepSDF(**settings)
    first.setup(data, context)
    torch.manual_seed(1)
    train(first, context, 3, 6)
    state, sampling, global_state = first.state_dict(), first.generator.get_state(), torch.get_rng_state()

    context = make_context(tmp_path)
    second = DeepSDF(**settings)
    second.setup(data, context)
    second.load_state_dict(state)
    second.generator.set_state(sampling)
    torch.set_rng_state(global_state)
    context.step = 3
    train(second, context, 3, 6)
    for a, b in zip(whole.net.state_dict().values(), second.net.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(whole.codes.weight, second.codes.weight)


def test_restored_without_data_it_predicts_the_same(tmp_path: Path) -> None:
    data = make_data()
    method = DeepSDF(**{**SMALL, "fit_iterations": 5})
    method.setup(data, make_context(tmp_path))
    method.step()
    restored = DeepSDF(**{**SMALL, "fit_iterations": 5})
    restored.setup(TrainingData(data.schema, AbsentSplit(5)), make_context(tmp_path))
    restored.load_state_dict(method.state_dict())
    points = torch.rand(10, 3)
    answers = [m.predictor().adapt(observation(0.4)).query(points) for m in (method, restored)]
    assert torch.equal(*answers)


def test_counts_what_it_draws(tmp_path: Path) -> None:
    context = make_context(tmp_path)
    method = DeepSDF(**{**SMALL, "shapes_per_step": 64})  # more than there are
    method.setup(make_data(), context)
    method.step()
    assert context.samples == 5 * 128
    assert method.num_parameters() == sum(p.numel() for p in method.net.parameters()) + 5 * 8


def test_wrong_input_is_named(tmp_path: Path) -> None:
    assert "sdf" in str(DeepSDF().skip(DataSchema(Modality.SHAPE, ("surface_points",), 1, 1)))
    split = balls()
    split.fields["sdf"][2, 5] = float("nan")
    with pytest.raises(DataError, match="sdf"):
        DeepSDF(**SMALL).setup(make_data(split), make_context(tmp_path))
