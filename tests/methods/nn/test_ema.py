from __future__ import annotations

import torch
from torch import nn

from adlbench.methods.nn.ema import EMA


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2)).train()


def change(net: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
        net(torch.randn(32, 3, generator=generator) * 3 + 1)  # moves the running statistics


def test_parameters_follow_the_recursion():
    net = network()
    ema = EMA(net, decay=0.5)
    expected = {name: p.detach().clone() for name, p in net.named_parameters()}
    for t in range(1, 12):
        change(net, t)
        ema.update(net)
        decay = min(0.5, (1 + t) / (10 + t))
        expected = {name: decay * expected[name] + (1 - decay) * p.detach() for name, p in net.named_parameters()}
    for name, p in ema.average.named_parameters():
        torch.testing.assert_close(p, expected[name])


def test_batch_norm_statistics_are_copied():
    """A copy that kept its first running statistics samples noise."""
    net = network()
    ema = EMA(net, decay=0.9)
    change(net, 0)
    ema.update(net)
    assert torch.equal(ema.average[1].running_mean, net[1].running_mean)
    assert torch.equal(ema.average[1].running_var, net[1].running_var)
    assert ema.average[1].num_batches_tracked == net[1].num_batches_tracked == 1
    change(net, 1)  # copied, not shared
    assert not torch.equal(ema.average[1].running_mean, net[1].running_mean)


def test_the_average_is_always_in_eval_mode_and_never_trained():
    net = network()
    ema = EMA(net).train()
    assert not ema.average.training
    assert not ema.average[1].training
    assert not any(p.requires_grad for p in ema.parameters())
    before = ema.average[1].running_mean.clone()
    ema(torch.randn(8, 3))
    assert torch.equal(ema.average[1].running_mean, before)


def test_short_training_is_not_an_average_of_initial_weights():
    net = network()
    ema = EMA(net, decay=0.999)
    with torch.no_grad():
        net[0].weight.fill_(1.0)
    for _ in range(50):
        ema.update(net)
    assert (ema.average[0].weight - 1).abs().max() < 0.01  # 0.999 from the start would leave 95 % of the first weights


def test_state_goes_on_where_it_was():
    net = network()
    ema = EMA(net)
    for t in range(3):
        change(net, t)
        ema.update(net)
    other = EMA(network())
    other.load_state_dict(ema.state_dict())
    change(net, 3)
    ema.update(net)
    other.update(net)
    assert other.num_updates == 4
    for a, b in zip(ema.state_dict().values(), other.state_dict().values(), strict=True):
        assert a == b if isinstance(a, int) else torch.equal(a, b)
