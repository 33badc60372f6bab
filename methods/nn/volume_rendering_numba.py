"""Packed volume rendering on a CPU, compiled by numba: one loop along the samples. The rules are those of ``volume_rendering``."""

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
