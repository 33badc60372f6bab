"""Volume rendering on a CPU, compiled by numba: one loop along the samples. The rules are those of ``volume_rendering``.

Dense functions leave exponentials to torch, which has them for whole vectors.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

Floats = NDArray[np.floating]
Integers = NDArray[np.integer]

_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy")  # the decorator has no types


def composite(optical: Tensor, ray: Tensor, num_rays: int, stop_below: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights and transmittance [M] and opacity [num_rays] from density times length ``optical`` [M]; ``ray`` ascending."""
    results: tuple[Tensor, Tensor, Tensor] = _Composite.apply(optical, ray, num_rays, stop_below)
    return results


def composite_dense(optical: Tensor, stop_below: float) -> tuple[Tensor, Tensor, Tensor]:
    """Weights and transmittance [..., S] and opacity [...] from density times length ``optical`` [..., S], without a gradient."""
    before, weights = torch.empty_like(optical), torch.neg(optical).expm1_()
    opacity = optical.new_empty(optical.shape[:-1])
    rows = opacity.numel(), optical.shape[-1]
    _subtract_before(_array(optical).reshape(rows), before.numpy().reshape(rows))
    transmittance = before.exp_()
    arrays = [each.numpy().reshape(rows) for each in (transmittance, weights)]
    _weigh(*arrays, stop_below, opacity.numpy().reshape(-1))
    return weights, transmittance, opacity


def composite_dense_gradient(
    weights: Tensor, transmittance: Tensor, stop_below: float, to_weights: Tensor, to_transmittance: Tensor, to_opacity: Tensor
) -> Tensor:  # fmt: skip
    """Gradient to ``optical`` [..., S]."""
    gradient = torch.empty_like(weights, memory_format=torch.contiguous_format)
    rows = to_opacity.numel(), weights.shape[-1]
    dense = [_array(each).reshape(rows) for each in (weights, transmittance, to_weights, to_transmittance)]
    _composite_dense_gradient(*dense, _array(to_opacity).reshape(-1), stop_below, gradient.numpy().reshape(rows))
    return gradient


def accumulate_dense(weights: Tensor, values: Tensor) -> Tensor:
    """[..., S], [..., S, C] of the same type -> [..., C]"""
    total: Tensor = _AccumulateDense.apply(weights, values)
    return total


def accumulate(weights: Tensor, values: Tensor, ray: Tensor, num_rays: int) -> Tensor:
    """[M], [M, C] -> [num_rays, C]"""
    total: Tensor = _Accumulate.apply(weights, values, ray, num_rays)
    return total


def _array(values: Tensor) -> Floats:
    array: Floats = values.detach().contiguous().numpy()
    return array


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, optical: Tensor, ray: Tensor, num_rays: int, stop_below: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        weights, transmittance = torch.empty_like(optical), torch.empty_like(optical)
        opacity = optical.new_zeros(num_rays)
        out = weights.numpy(), transmittance.numpy(), opacity.numpy()
        _composite(_array(optical), _array(ray), stop_below, *out)
        ctx.save_for_backward(optical, ray, weights, transmittance)
        ctx.stop_below = stop_below
        return weights, transmittance, opacity

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *pulls: Tensor) -> tuple[Tensor, None, None, None]:
        gradient = torch.empty_like(ctx.saved_tensors[0])
        _composite_gradient(*map(_array, ctx.saved_tensors), ctx.stop_below, *map(_array, pulls), gradient.numpy())
        return gradient, None, None, None


class _Accumulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor, ray: Tensor, num_rays: int) -> Tensor:
        ctx.save_for_backward(weights, values, ray)
        total = weights.new_zeros(num_rays, values.shape[1])
        _accumulate(_array(weights), _array(values), _array(ray), total.numpy())
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor, Tensor, None, None]:
        weights, values, ray = ctx.saved_tensors
        to_weights, to_values = (
            torch.empty_like(weights),
            torch.empty_like(values, memory_format=torch.contiguous_format),
        )
        _accumulate_gradient(
            _array(weights), _array(values), _array(ray), _array(pull), to_weights.numpy(), to_values.numpy()
        )
        return to_weights, to_values, None, None


class _AccumulateDense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor) -> Tensor:
        ctx.save_for_backward(weights, values)
        total = weights.new_zeros(*weights.shape[:-1], values.shape[-1])
        shape = _extents(values)
        _accumulate_dense(
            _array(weights).reshape(shape[:2]), _array(values).reshape(shape), total.numpy().reshape(shape[::2])
        )
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, pull: Tensor) -> tuple[Tensor, Tensor]:
        weights, values = ctx.saved_tensors
        to = [torch.empty_like(each, memory_format=torch.contiguous_format) for each in (weights, values)]
        shape = _extents(values)
        _accumulate_dense_gradient(
            _array(weights).reshape(shape[:2]),
            _array(values).reshape(shape),
            _array(pull).reshape(shape[::2]),
            to[0].numpy().reshape(shape[:2]),
            to[1].numpy().reshape(shape),
        )
        return to[0], to[1]


def _extents(values: Tensor) -> tuple[int, int, int]:
    """Rays, samples, channels."""
    return math.prod(values.shape[:-2]), values.shape[-2], values.shape[-1]


@_jit
def _subtract_before(optical: Floats, before: Floats) -> None:
    """Less the sum of what is in front of each sample."""
    for ray in range(optical.shape[0]):
        total = 0.0
        for k in range(optical.shape[1]):
            before[ray, k] = total
            total -= optical[ray, k]


@_jit
def _weigh(transmittance: Floats, weights: Floats, stop_below: float, opacity: Floats) -> None:
    """``weights`` holds exp(-optical) - 1."""
    for ray in range(weights.shape[0]):
        total = 0.0
        for k in range(weights.shape[1]):
            reached = transmittance[ray, k] if transmittance[ray, k] >= stop_below else 0
            weights[ray, k] *= -reached
            total += weights[ray, k]
        opacity[ray] = total


@_jit
def _composite_dense_gradient(
    weights: Floats, transmittance: Floats, to_weights: Floats, to_transmittance: Floats, to_opacity: Floats,
    stop_below: float, gradient: Floats,
) -> None:  # fmt: skip
    """As ``_composite_gradient``; what passes a sample, T exp(-optical), is T less its weight."""
    for ray in range(weights.shape[0]):
        behind = 0.0
        for k in range(weights.shape[1] - 1, -1, -1):
            reached = transmittance[ray, k]
            pull = to_weights[ray, k] + to_opacity[ray] if reached >= stop_below else 0
            gradient[ray, k] = pull * (reached - weights[ray, k]) - behind
            behind += pull * weights[ray, k] + to_transmittance[ray, k] * reached


@_jit
def _accumulate_dense(weights: Floats, values: Floats, total: Floats) -> None:
    for ray in range(values.shape[0]):
        for k in range(values.shape[1]):
            for channel in range(values.shape[2]):
                total[ray, channel] += weights[ray, k] * values[ray, k, channel]


@_jit
def _accumulate_dense_gradient(
    weights: Floats, values: Floats, pull: Floats, to_weights: Floats, to_values: Floats
) -> None:  # fmt: skip
    for ray in range(values.shape[0]):
        for k in range(values.shape[1]):
            along = weights[ray, k] * 0
            for channel in range(values.shape[2]):
                along += values[ray, k, channel] * pull[ray, channel]
                to_values[ray, k, channel] = weights[ray, k] * pull[ray, channel]
            to_weights[ray, k] = along


@_jit
def _composite(
    optical: Floats, ray: Integers, stop_below: float, weights: Floats, transmittance: Floats, opacity: Floats
) -> None:
    last, before = -1, 0.0
    for k in range(len(optical)):
        if ray[k] != last:
            last, before = ray[k], 0.0
        transmittance[k] = math.exp(-before)
        before += optical[k]
        weights[k] = -transmittance[k] * math.expm1(-optical[k]) if transmittance[k] >= stop_below else 0
        opacity[last] += weights[k]


@_jit
def _composite_gradient(
    optical: Floats, ray: Integers, weights: Floats, transmittance: Floats, stop_below: float,
    to_weights: Floats, to_transmittance: Floats, to_opacity: Floats, gradient: Floats,
) -> None:  # fmt: skip
    """What is in front of a sample scales it: from the back, ``behind`` is what all samples behind would lose."""
    last, behind = -1, 0.0
    for k in range(len(optical) - 1, -1, -1):
        if ray[k] != last:
            last, behind = ray[k], 0.0
        pull = to_weights[k] + to_opacity[last] if transmittance[k] >= stop_below else 0
        gradient[k] = pull * transmittance[k] * math.exp(-optical[k]) - behind
        behind += pull * weights[k] + to_transmittance[k] * transmittance[k]


@_jit
def _accumulate(weights: Floats, values: Floats, ray: Integers, total: Floats) -> None:
    for k in range(len(weights)):
        for channel in range(values.shape[1]):
            total[ray[k], channel] += weights[k] * values[k, channel]


@_jit
def _accumulate_gradient(
    weights: Floats, values: Floats, ray: Integers, pull: Floats, to_weights: Floats, to_values: Floats
) -> None:
    for k in range(len(weights)):
        along = weights[k] * 0
        for channel in range(values.shape[1]):
            along += values[k, channel] * pull[ray[k], channel]
            to_values[k, channel] = weights[k] * pull[ray[k], channel]
        to_weights[k] = along
