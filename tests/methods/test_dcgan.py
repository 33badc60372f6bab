"""DCGAN: the paper's architecture, and the tricks around it that are easy to get wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from adlbench.benchmark.api import ArraySplit, Budget, DataSchema, Modality, TrainingData
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.context import CellContext
from adlbench.methods.generation.dcgan import (
    DCGAN,
    Discriminator,
    Generator,
    binary_cross_entropy,
    initialise,
    stage_sizes,
)


def context(steps: int = 100) -> CellContext:
    return CellContext(
        device=torch.device("cpu"),
        precision="fp32",
        budget=Budget(steps=steps),
        work_folder=Path("."),
        seed_parts=("test",),
        clock=Clock(),
    )


def data(count: int = 64, size: tuple[int, int] = (8, 8), channels: int = 1) -> TrainingData:
    image = torch.randint(0, 256, (count, channels, *size), generator=torch.Generator().manual_seed(0))
    schema = DataSchema(Modality.IMAGE, ("image",), count, 8, channels=channels, image_size=size)
    return TrainingData(schema, ArraySplit(image=image.to(torch.uint8)))


def method(steps: int = 0, **parameters: object) -> DCGAN:
    built = DCGAN(**{"width": 4, "batch_size": 16, "latent_size": 8, **parameters})  # type: ignore[arg-type]
    built.setup(data(), context())
    for _ in range(steps):
        built.step()
    return built


# ------------------------------------------------------------------------------------------------------- the networks
def layers(net: nn.Module, *kinds: type[nn.Module]) -> list[nn.Module]:
    return [module for module in net.modules() if isinstance(module, kinds)]


def test_at_64_pixels_it_is_the_network_of_the_paper():
    generator = Generator(3, (64, 64), 100, 128, 5)
    assert [m.out_channels for m in layers(generator, nn.ConvTranspose2d)] == [512, 256, 128, 3]
    assert generator.layers[0].out_features == 1024 * 4 * 4
    discriminator = Discriminator(3, (64, 64), 128, 5)
    assert [m.out_channels for m in layers(discriminator, nn.Conv2d)] == [128, 256, 512, 1024]
    assert {m.stride for m in layers(discriminator, nn.Conv2d)} == {(2, 2)}
    assert not layers(discriminator, nn.MaxPool2d, nn.AvgPool2d)
    assert {m.negative_slope for m in layers(discriminator, nn.LeakyReLU)} == {0.2}


def test_no_batch_norm_at_the_generators_output_and_the_discriminators_input():
    generator, discriminator = Generator(1, (28, 28), 100, 8, 5), Discriminator(1, (28, 28), 8, 5)
    assert isinstance(generator.layers[-1], nn.Tanh)
    assert isinstance(generator.layers[-2], nn.ConvTranspose2d)
    assert [m.num_features for m in layers(generator, nn.BatchNorm2d)] == [32, 16, 8]
    assert [m.num_features for m in layers(discriminator, nn.BatchNorm2d)] == [16, 32]
    assert isinstance(discriminator.layers[1], nn.LeakyReLU)


@pytest.mark.parametrize("kernel", [4, 5])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (9, 13), (64, 48)])
def test_any_size_goes_down_and_comes_back(size, kernel):
    image = Generator(2, size, 10, 4, kernel)(torch.randn(3, 10))
    assert image.shape == (3, 2, *size)
    assert image.abs().max() <= 1
    assert Discriminator(2, size, 4, kernel)(image).shape == (3,)


def test_stages_end_at_four_pixels():
    assert stage_sizes((64, 64), 5) == [(64, 64), (32, 32), (16, 16), (8, 8), (4, 4)]
    assert stage_sizes((28, 28), 5) == [(28, 28), (14, 14), (7, 7), (4, 4)]
    assert stage_sizes((8, 8), 5) == [(8, 8), (4, 4), (2, 2)]
    assert DCGAN().skip(data(size=(4, 4)).schema)
    assert DCGAN().skip(data().schema) is None


def test_initial_weights():
    torch.manual_seed(0)
    net = initialise(Generator(3, (32, 32), 100, 64, 5))
    for module in layers(net, nn.ConvTranspose2d, nn.Linear):
        assert float(module.weight.detach().mean()) == pytest.approx(0, abs=2e-3)
        assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.05)
    for module in layers(net, nn.BatchNorm2d):
        assert float(module.weight.detach().mean()) == pytest.approx(1, abs=0.01)
        assert float(module.weight.detach().std()) == pytest.approx(0.02, rel=0.4)


# --------------------------------------------------------------------------------------------------------- the training
class Logit(nn.Module):
    """Stands for a discriminator: one trained logit for every image."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(2.0))

    def forward(self, image: Tensor) -> Tensor:
        return self.value.expand(len(image))


def test_labels_are_smoothed_on_the_real_side_only():
    gan = method()
    gan.discriminator = Logit()
    x = torch.zeros(4, 1, 8, 8)
    probability = torch.tensor(2.0).sigmoid()
    real_part = -(0.9 * probability.log() + 0.1 * (1 - probability).log())
    fake_part = -(1 - probability).log()  # target 0, not 0.1
    torch.testing.assert_close(gan.discriminator_loss(x, x)["discriminator_loss"].detach(), real_part + fake_part)
    torch.testing.assert_close(
        gan.generator_loss(x)["generator_loss"].detach(), -probability.log()
    )  # target 1, not 0.9


def test_cross_entropy_is_a_mean_over_the_batch():
    logits = torch.randn(7)
    expected = -(logits.sigmoid().log() * 0.9 + (1 - logits.sigmoid()).log() * 0.1).mean()
    torch.testing.assert_close(binary_cross_entropy(logits, 0.9), expected)


def test_real_and_generated_images_pass_in_batches_of_their_own():
    gan, seen = method(), []
    gan.discriminator.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    gan.step()
    assert [len(batch) for batch in seen] == [16, 16, 16]  # real, generated, generated for the generator's update
    assert torch.equal(seen[1], seen[2])
    assert not torch.equal(seen[0], seen[1])
    assert seen[0].min() >= -1
    assert seen[0].max() > 0.9  # the range of tanh


def test_each_loss_moves_its_own_network():
    gan = method()
    before = [p.detach().clone() for p in gan.generator.parameters()]
    terms = gan.step()
    assert set(terms) >= {"discriminator_loss", "generator_loss"}
    assert all(value.ndim == 0 and not value.requires_grad for value in terms.values())
    assert any(not torch.equal(a, b) for a, b in zip(before, gan.generator.parameters()))
    assert all(p.requires_grad for p in gan.discriminator.parameters())
    # The generator's loss leaves no gradient in the discriminator: what is there is of its own update.
    own = [p.grad.clone() for p in gan.discriminator.parameters()]
    gan.discriminator.requires_grad_(False)
    gan.generator_loss(gan.generator(gan.latent(4)))["generator_loss"].backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(own, gan.discriminator.parameters()))


def test_several_critic_steps_use_a_batch_each():
    gan = method(critic_steps=3)
    gan.step()
    assert gan.context.samples == 3 * 16
    assert gan.average.num_updates == 1


def test_rates_are_the_papers_and_constant_unless_asked():
    gan = method()
    gan.context.progress = 0.99
    gan.step()
    assert gan.generator_optimizer.param_groups[0]["lr"] == 2e-4
    assert gan.generator_optimizer.param_groups[0]["betas"] == (0.5, 0.999)
    gan = method(decay_from=0.5)
    for progress, share in ((0.0, 1.0), (0.5, 1.0), (0.75, 0.5), (1.0, 0.0)):
        gan.context.progress = progress
        gan.step()
        assert gan.discriminator_optimizer.param_groups[0]["lr"] == pytest.approx(2e-4 * share)


# -------------------------------------------------------------------------------------------------------- the predictor
def test_what_is_evaluated_is_the_average_in_eval_mode():
    gan = method(steps=12)
    predictor = gan.predictor()
    assert not predictor.net.training
    latent = torch.randn(4, 8)
    expected = gan.average.average.eval()(latent)
    torch.testing.assert_close(predictor.decode(latent), (expected + 1) / 2)
    assert not torch.allclose(predictor.decode(latent), (gan.generator.eval()(latent) + 1) / 2)
    alone = predictor.decode(latent[:1])  # with batch statistics it would depend on its neighbours
    torch.testing.assert_close(alone, predictor.decode(latent)[:1])


def test_the_predictor_is_frozen_and_a_function_of_its_arguments():
    gan = method(steps=2)
    predictor = gan.predictor()
    image = predictor.sample(5, seed=1)
    gan.step()
    assert torch.equal(predictor.sample(5, seed=1), image)
    assert not torch.equal(predictor.sample(5, seed=2), image)
    assert image.shape == (5, 1, 8, 8)
    assert 0 <= image.min() <= image.max() <= 1
    assert predictor.interpolate(seed=0, steps=7).shape == (7, 1, 8, 8)


def test_a_resumed_run_is_the_uninterrupted_one():
    straight = method(steps=6)
    first = method(steps=3)
    second = method()
    second.context.load_state_dict(first.context.state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(3):
        second.step()
    for name, value in straight.average.average.state_dict().items():
        assert torch.equal(value, second.average.average.state_dict()[name]), name
    for a, b in zip(straight.discriminator.parameters(), second.discriminator.parameters(), strict=True):
        assert torch.equal(a, b)
