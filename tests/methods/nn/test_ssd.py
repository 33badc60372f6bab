"""The chunked scan against its recurrence, step by step."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from adlbench.benchmark.api import DataError
from adlbench.methods.nn import ssd
from adlbench.methods.nn.ssd import bidirectional_scan, ssd_scan

BATCH, HEADS, WIDTH, GROUPS, FEATURES = 2, 4, 3, 2, 5


def inputs(length: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(length)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)

    return {
        "x": normal(BATCH, length, HEADS, WIDTH),
        "dt": torch.nn.functional.softplus(normal(BATCH, length, HEADS)),
        "a": -normal(HEADS).abs() - 0.1,
        "b": normal(BATCH, length, GROUPS, FEATURES),
        "c": normal(BATCH, length, GROUPS, FEATURES),
        "d": normal(HEADS),
    }


def recurrence(
    x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, d: Tensor, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    b, c = (v.repeat_interleave(HEADS // GROUPS, dim=2) for v in (b, c))
    h = x.new_zeros(BATCH, HEADS, WIDTH, FEATURES) if state is None else state
    out = []
    for t in range(x.shape[1]):
        decay = (dt[:, t] * a).exp()[..., None, None]
        h = decay * h + (dt[:, t, :, None] * x[:, t])[..., None] * b[:, t, :, None, :]
        out.append((h * c[:, t, :, None, :]).sum(-1) + d[:, None] * x[:, t])
    return (torch.stack(out, 1) if out else x), h


@pytest.mark.parametrize("segment", [16, 1024])
@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 37])
def test_equals_the_recurrence(length: int, segment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lengths below, at and beyond a chunk of 8, and beyond the two chunks that are computed at a time."""
    monkeypatch.setattr(ssd, "_SEGMENT", segment)
    values = inputs(length)
    for got, wanted in zip(ssd_scan(**values, chunk=8), recurrence(**values)):
        torch.testing.assert_close(got, wanted)


def test_float32_to_1e_5_over_a_long_sequence() -> None:
    values = inputs(700, torch.float32)
    wanted, _ = recurrence(**{name: v.double() for name, v in values.items()})
    got, _ = ssd_scan(**values)
    torch.testing.assert_close(got.double(), wanted, atol=1e-5 * float(wanted.abs().max()), rtol=0)


def test_small_steps_behind_large_ones_keep_their_digits() -> None:
    """Ten steps that forget everything, then small ones in the same chunk: their decays are differences of sums of -5,000."""
    values = inputs(60, torch.float32)
    values["a"] = torch.full((HEADS,), -1.0)
    values["dt"][:, :10], values["dt"][:, 10:] = 500.3, 1.7e-3
    wanted, last = recurrence(**{name: v.double() for name, v in values.items()})
    got, state = ssd_scan(**values)
    torch.testing.assert_close(
        got.double()[:, 10:], wanted[:, 10:], atol=1e-5 * float(wanted[:, 10:].abs().max()), rtol=0
    )
    torch.testing.assert_close(state.double(), last, atol=1e-5 * float(last.abs().max()), rtol=0)


@pytest.mark.parametrize("seed", range(10))
def test_random_shapes_equal_the_recurrence_in_both_precisions(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any chunk and any cut of the sequence, decays over six orders of magnitude, from a state or from none."""
    generator = torch.Generator().manual_seed(seed)

    def random(low: int, high: int) -> int:
        return int(torch.randint(low, high, (1,), generator=generator))

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    monkeypatch.setattr(ssd, "_SEGMENT", random(1, 40))
    length = random(1, 60)
    values = inputs(length) | {"dt": torch.nn.functional.softplus(3 * normal(BATCH, length, HEADS))}
    values["a"] = -normal(HEADS).abs() * 10.0 ** random(-3, 3)
    state = normal(BATCH, HEADS, WIDTH, FEATURES) if seed % 2 else None
    wanted = recurrence(**values, state=state)
    chunk = random(1, 20)
    for got, expected in zip(ssd_scan(**values, state=state, chunk=chunk), wanted):
        torch.testing.assert_close(got, expected, atol=1e-10, rtol=1e-10)
    single = {name: v.float() for name, v in values.items()}
    for got, expected in zip(ssd_scan(**single, state=None if state is None else state.float(), chunk=chunk), wanted):
        torch.testing.assert_close(got.double(), expected, atol=1e-5 * float(expected.abs().max()), rtol=0)


def test_goes_on_from_a_state() -> None:
    values = inputs(20)
    whole, last = ssd_scan(**values, chunk=8)
    timed = ("x", "dt", "b", "c")
    first = {name: v[:, :11] if name in timed else v for name, v in values.items()}
    second = {name: v[:, 11:] if name in timed else v for name, v in values.items()}
    begun, state = ssd_scan(**first, chunk=8)
    ended, final = ssd_scan(**second, chunk=8, state=state)
    torch.testing.assert_close(torch.cat([begun, ended], 1), whole)
    torch.testing.assert_close(final, last)


def test_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssd, "_SEGMENT", 4)  # the last step in a segment of its own
    values = {name: v[:1] if v.ndim > 1 else v for name, v in inputs(5).items()}
    names = list(values)
    free = tuple(v.requires_grad_() for v in values.values())
    assert torch.autograd.gradcheck(lambda *v: ssd_scan(**dict(zip(names, v)), chunk=2), free)


def test_strong_decay_and_no_decay_stay_finite() -> None:
    values = inputs(40, torch.float32)
    for a in (-1e4, 0.0):
        some = values | {"a": torch.full((HEADS,), a)}
        free = {name: v.clone().requires_grad_() for name, v in some.items()}
        out, _ = ssd_scan(**free, chunk=16)
        grads = torch.autograd.grad(out.sum(), list(free.values()))
        assert all(torch.isfinite(x).all() for x in (out, *grads))


def test_steps_of_size_zero_are_padding() -> None:
    """Sequences of unequal length in a batch: behind its end a sequence has dt = 0, and its state stays."""
    values = inputs(12)
    values["dt"][1, 7:] = 0
    out, state = ssd_scan(**values, chunk=4)
    short = {name: v[1:, :7] if v.ndim > 1 else v for name, v in values.items()}
    alone, alone_state = ssd_scan(**short, chunk=4)
    torch.testing.assert_close(out[1:, :7], alone)
    torch.testing.assert_close(state[1:], alone_state)


def test_bidirectional_is_the_sum_of_both_directions() -> None:
    values = inputs(11)
    forward, _ = recurrence(**values)
    timed = ("x", "dt", "b", "c")
    backward, _ = recurrence(**{name: v.flip(1) if name in timed else v for name, v in values.items()})
    torch.testing.assert_close(bidirectional_scan(**values, chunk=4), forward + backward.flip(1))


def test_bfloat16_is_computed_in_float32() -> None:
    values = inputs(30, torch.bfloat16)
    out, state = ssd_scan(**values, chunk=8)
    exact, _ = ssd_scan(**{name: v.float() for name, v in values.items()}, chunk=8)
    assert out.dtype == torch.bfloat16
    assert state.dtype == torch.float32
    assert torch.equal(out, exact.bfloat16())


def test_autocast_changes_nothing() -> None:
    values = inputs(30, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = ssd_scan(**values, chunk=8)
    assert all(map(torch.equal, inside, ssd_scan(**values, chunk=8)))


def test_no_sequence_in_a_batch_and_no_head() -> None:
    values = {name: v[:0] if v.ndim > 1 else v for name, v in inputs(5).items()}
    out, state = ssd_scan(**values)
    assert (out.shape, state.shape) == ((0, 5, HEADS, WIDTH), (0, HEADS, WIDTH, FEATURES))
    assert bidirectional_scan(**inputs(0)).shape == (BATCH, 0, HEADS, WIDTH)


def test_more_than_2_to_the_31_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sequence without memory, for which there is no autocast: only its sizes are multiplied."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: nullcontext())
    length = 2**31 + 3
    shapes = {"x": (1, length, 1, 1), "dt": (1, length, 1), "a": (1,), "b": (1, length, 1, 1), "c": (1, length, 1, 1)}
    out, state = ssd_scan(**{n: torch.empty(shape, device="meta") for n, shape in shapes.items()}, chunk=2**20)
    assert (out.shape, state.shape) == ((1, length, 1, 1), (1, 1, 1, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"b": (BATCH, 3, 3, FEATURES), "c": (BATCH, 3, 3, FEATURES)}, "4 heads cannot share 3 groups"),
        ({"b": (BATCH, 2, 2, FEATURES), "c": (BATCH, 2, 2, FEATURES)}, r"b \[2, 2, 2, 5\]"),
        ({"c": (BATCH, 3, 2, 4)}, r"c \[2, 3, 2, 4\]"),
        ({"dt": (BATCH, 4, HEADS)}, r"dt \[2, 4, 4\]"),
        ({"a": (1,)}, r"a \[1\]"),
    ],
)
def test_shapes_that_do_not_belong_together_are_named(change: dict[str, tuple[int, ...]], message: str) -> None:
    values = inputs(3) | {name: torch.zeros(shape).double() for name, shape in change.items()}
    with pytest.raises(DataError, match=message):
        ssd_scan(**values)
    with pytest.raises(DataError, match="chunks of 0"):
        ssd_scan(**inputs(3), chunk=0)
