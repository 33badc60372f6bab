"""SIREN and Fourier features: initialisation, coordinate conventions, and what they are for."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from scipy import stats

from adlbench.benchmark.api import AbsentSplit, ArraySplit, Budget, DataError, DataSchema, Modality, TrainingData
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.context import CellContext
from adlbench.datasets.reconstruction.photographs import Photographs, pixel_centres
from adlbench.methods.nn.positional_encoding import FourierFeatures
from adlbench.methods.reconstruction.coordinate_mlp import (
    CoordinateMLP,
    ReluMLP,
    SineLayer,
    Siren,
    ToUnitSquare,
    log_linear_frequencies,
)


def context_of(folder: Path, steps: int, seed: int = 0) -> CellContext:
    return CellContext(
        device=torch.device("cpu"),
        precision="fp32",
        budget=Budget(steps=steps),
        work_folder=folder,
        seed_parts=("test", seed),
        clock=Clock(),
    )


def train(method: CoordinateMLP, data: TrainingData, context: CellContext, steps: int) -> None:
    method.setup(data, context)
    for step in range(steps):
        context.step, context.progress = step, step / steps
        method.step()


def data_of(size: int, held_out: bool = False) -> tuple[TrainingData, ArraySplit]:
    dataset = Photographs(size=size, held_out=held_out)
    return TrainingData(dataset.schema("camera"), dataset.load("camera", "train")), dataset.load("camera", "test")


def psnr(method: CoordinateMLP, split: ArraySplit) -> float:
    items = split.all()
    with torch.no_grad():
        error = method.predictor().query(items["coords"]) - items["value"]
    return float(-10 * error.square().mean().log10())


# ---------------------------------------------------------------------------------------------------------------- SIREN
@pytest.fixture(scope="module")
def siren() -> Siren:
    torch.manual_seed(0)
    return Siren(2, 1, width=256, depth=5, omega_0=30.0).requires_grad_(False)  # type: ignore[return-value]


def test_siren_weights_are_drawn_from_the_papers_intervals(siren: Siren) -> None:
    first, hidden, output = siren[0].weight, siren[1].weight, siren[-1].weight
    assert first.abs().max() == pytest.approx(1 / 2, rel=0.01)
    assert hidden.abs().max() == pytest.approx(math.sqrt(6 / 256) / 30, rel=0.01)
    assert output.abs().max() == pytest.approx(math.sqrt(6 / 256) / 30, rel=0.05)
    for weight in (first, hidden):
        bound = float(weight.abs().max())
        assert stats.kstest(weight.detach().flatten().numpy() / bound, "uniform", args=(-1, 2)).statistic < 0.05


def test_siren_activations_keep_their_distribution_at_any_depth(siren: Siren) -> None:
    """Theorem 1.8 of the supplement: sums that are standard normal, sines that follow the arcsine law."""
    torch.manual_seed(1)
    activation = siren[0](torch.rand(4096, 2) * 2 - 1)
    for layer in list(siren)[1:-1]:
        argument = 30.0 * activation @ layer.weight.T  # biases apart
        assert argument.std() == pytest.approx(1.0, abs=0.12)
        assert stats.kstest(argument.detach().flatten()[::97].numpy(), "norm").statistic < 0.05
        activation = layer(activation)
        law = stats.arcsine(loc=-1, scale=2)
        assert activation.var() == pytest.approx(0.5, abs=0.05)
        assert stats.kstest(activation.detach().flatten()[::97].numpy(), law.cdf).statistic < 0.06


def test_omega_multiplies_weights_and_biases_in_every_layer(siren: Siren) -> None:
    coords = torch.rand(10, 2) * 2 - 1
    expected = coords
    for layer in list(siren)[:-1]:
        expected = torch.sin(30.0 * (expected @ layer.weight.T + layer.bias))
    expected = expected @ siren[-1].weight.T + siren[-1].bias
    torch.testing.assert_close(siren(coords), expected, rtol=1e-4, atol=1e-5)


def test_forgetting_omega_in_the_initialisation_destroys_it() -> None:
    """The pitfall the layer guards against: undivided weights make neighbouring pixels unrelated."""
    torch.manual_seed(0)
    good, bad = (Siren(2, 1, 128, 3, 30.0) for _ in range(2))
    for layer in list(bad)[1:-1]:
        assert isinstance(layer, SineLayer)
        layer.weight.data *= 30.0
    coords = torch.from_numpy(pixel_centres(1, 2048)[0])
    roughness = {}
    for name, net in (("good", good), ("bad", bad)):
        value = net(coords).detach()[:, 0]
        roughness[name] = float((value.diff().square().mean() / (2 * value.var())).sqrt())
    assert roughness["good"] < 0.2
    assert roughness["bad"] > 0.7  # 1 is white noise


def test_siren_stays_in_float32_under_autocast(siren: Siren) -> None:
    coords = torch.rand(100, 2) * 2 - 1
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(siren(coords), siren(coords))
        mixed = siren(coords)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, siren(coords))


# ----------------------------------------------------------------------------------------------------- Fourier features
def test_fourier_features_see_coordinates_in_the_unit_square() -> None:
    coords = torch.from_numpy(pixel_centres(4, 4)).reshape(-1, 2)
    unit = ToUnitSquare()(coords)
    torch.testing.assert_close(unit[:4, 0], torch.tensor([0.125, 0.375, 0.625, 0.875]))
    torch.manual_seed(0)
    encoding = FourierFeatures(2, 16, sigma=10.0)
    net = ReluMLP(encoding, 2, 1, 8, 1)
    phase = 2 * math.pi * ((coords + 1) / 2) @ encoding.frequencies.T
    encoded = torch.cat([phase.cos(), phase.sin()], dim=-1)
    torch.testing.assert_close(net[1](net[0](coords)), encoded, rtol=1e-4, atol=1e-4)


def test_gaussian_frequencies_have_the_standard_deviation_sigma() -> None:
    method = CoordinateMLP(activation="relu", encoding="gaussian", sigma=10.0, num_features=4096)
    schema = DataSchema(Modality.FIELD, ("coords", "value"), 4, 4, channels=1, image_size=(2, 2))
    torch.manual_seed(0)
    net = method.network(schema)
    assert isinstance(net, ReluMLP)
    frequencies = net[1].frequencies
    assert frequencies.std() == pytest.approx(10.0, rel=0.03)
    assert stats.kstest(frequencies.flatten().numpy() / 10, "norm").statistic < 0.03
    assert not any(parameter is frequencies for parameter in net.parameters())  # B is fixed


def test_positional_frequencies_are_axis_aligned_and_end_below_two_to_the_sigma() -> None:
    frequencies = log_linear_frequencies(2, 256, 6.0)
    assert frequencies.shape == (256, 2)
    assert ((frequencies == 0).sum(1) >= 1).all()
    assert frequencies[:128, 0].max() == frequencies[128:, 1].max() == 63.0  # 2^6 - 1 cycles per image
    assert frequencies.min() == 0.0
    torch.testing.assert_close(frequencies[127, 0] + 1, torch.tensor(64.0))
    ratio = (frequencies[1:128, 0] + 1) / (frequencies[:127, 0] + 1)
    torch.testing.assert_close(ratio, ratio[:1].expand(127), rtol=1e-4, atol=0)


def test_sizes_are_the_papers() -> None:
    def count(net: torch.nn.Module) -> int:
        return sum(p.numel() for p in net.parameters())

    assert count(Siren(2, 1, 256, 3, 30.0)) == (2 * 256 + 256) + 3 * (256 * 256 + 256) + 257 == 198_401
    # "4 layers": three hidden ones of 256 and the output, behind 512 features
    assert count(ReluMLP(FourierFeatures(2, 256), 2, 3, 256, 3)) == (512 + 1) * 256 + 2 * (257 * 256) + 257 * 3


# -------------------------------------------------------------------------------------------------------------- training
def test_sines_and_fourier_features_learn_detail_that_relus_do_not(tmp_path: Path) -> None:
    data, test = data_of(48)
    found = {}
    for name, method in {
        "siren": CoordinateMLP(width=64, depth=2, batch_size=512, learning_rate=1e-3),
        "fourier": CoordinateMLP(
            activation="relu",
            encoding="gaussian",
            sigma=5.0,
            width=64,
            num_features=64,
            batch_size=512,
            learning_rate=1e-3,
        ),
        "relu": CoordinateMLP(activation="relu", width=64, batch_size=512, learning_rate=1e-3),
    }.items():
        train(method, data, context_of(tmp_path, 200), 200)
        found[name] = psnr(method, test)
    assert found["siren"] > found["relu"] + 4
    assert found["fourier"] > found["relu"] + 3


@pytest.mark.parametrize("kind", ["siren", "fourier"])
def test_restored_without_data_it_answers_the_same(tmp_path: Path, kind: str) -> None:
    """The random frequencies belong to the state: another seed must not change what was learnt."""

    def make() -> CoordinateMLP:
        if kind == "siren":
            return CoordinateMLP(width=16, depth=1, batch_size=64)
        return CoordinateMLP(activation="relu", encoding="gaussian", width=16, num_features=8, batch_size=64)

    data, test = data_of(16)
    method, other = make(), make()
    train(method, data, context_of(tmp_path, 5), 5)
    other.setup(TrainingData(data.schema, AbsentSplit(256)), context_of(tmp_path, 5, seed=1))
    coords = test.all()["coords"]
    assert not torch.equal(other.predictor().query(coords), method.predictor().query(coords))
    other.load_state_dict(method.state_dict())
    assert torch.equal(other.predictor().query(coords), method.predictor().query(coords))


def test_a_predictor_is_not_changed_by_further_training(tmp_path: Path) -> None:
    data, test = data_of(16)
    method = CoordinateMLP(width=16, depth=1, batch_size=64, learning_rate=1e-2)
    train(method, data, context_of(tmp_path, 3), 3)
    predictor, coords = method.predictor(), test.all()["coords"]
    before = predictor.query(coords)
    assert before.min() >= 0
    assert before.max() <= 1
    method.step()
    assert torch.equal(predictor.query(coords), before)
    assert not torch.equal(method.predictor().query(coords), before)


def test_the_rate_follows_a_cosine_of_the_progress(tmp_path: Path) -> None:
    data, _ = data_of(16)
    context = context_of(tmp_path, 4)
    method = CoordinateMLP(width=8, depth=1, learning_rate=1e-3, final_learning_rate=0.1)
    method.setup(data, context)
    for progress, rate in ((0.0, 1e-3), (0.5, 5.5e-4), (1.0, 1e-4)):
        context.progress = progress
        method.step()
        assert method.optimizer.param_groups[0]["lr"] == pytest.approx(rate)


def test_values_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    data, _ = data_of(16)
    items = data.train.all()
    items["value"][7] = float("nan")
    broken = TrainingData(data.schema, ArraySplit(**items))
    with pytest.raises(DataError, match=r"'value' .* first of them item 7"):
        CoordinateMLP(width=8).setup(broken, context_of(tmp_path, 1))


def test_an_encoding_before_sines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="activation=relu or encoding=none"):
        CoordinateMLP(encoding="gaussian").setup(data_of(16)[0], context_of(tmp_path, 1))


def test_other_data_is_skipped_with_a_reason() -> None:
    schema = DataSchema(Modality.IMAGE, ("image",), 1, 1)
    assert "coords" in (CoordinateMLP().skip(schema) or "")
    assert CoordinateMLP().skip(data_of(16)[0].schema) is None
