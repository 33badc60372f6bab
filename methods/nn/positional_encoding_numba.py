"""Octaves of sines and cosines in bfloat16 for a fused network on a CPU, compiled by numba."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adlbench.methods.nn.amx_numba import SIDE, round_row
from adlbench.methods.nn.sparse_numba import share

Floats = NDArray[np.float32]
Halves = NDArray[np.uint16]

_jit: Any = numba.njit(nogil=True, cache=True, error_model="numpy")


def encode(points: Tensor, scale: float, octaves: int, include_input: bool) -> Tensor:
    """float32 [M, D] -> bfloat16 [M, features rounded up to a multiple of 32], zeros in the other columns.

    Each octave's sine and cosine come from those of the octave below: sin 2a = 2 sin a cos a, cos 2a = 1 - 2 sin^2 a. That
    doubles the rounding error too, to 2^octaves / 2^24, which for ten octaves is a hundredth of bfloat16's.
    """
    number, dims = points.shape
    features = dims * (2 * octaves + include_input)
    out = torch.empty(number, -(-features // SIDE) * SIDE, dtype=torch.bfloat16)
    phase = points.detach() * scale
    arrays = [x.contiguous().numpy() for x in (points.detach(), phase.sin(), phase.cos())]
    bits = out.view(torch.uint16).numpy()
    share(lambda first, last: _encode(*arrays, octaves, include_input, bits, first, last), number, out.numel())
    return out


@_jit
def _encode(
    points: Floats, sines: Floats, cosines: Floats, octaves: int, include_input: bool, out: Halves, first: int, last: int
) -> None:  # fmt: skip
    dims, width = points.shape[1], out.shape[1]
    start = dims if include_input else 0
    row = np.zeros(width, np.float32)
    for each in range(first, last):
        for dim in range(dims):
            if include_input:
                row[dim] = points[each, dim]
            sine, cosine = sines[each, dim], cosines[each, dim]
            for octave in range(octaves):
                place = start + 2 * dims * octave + dim
                row[place], row[place + dims] = sine, cosine
                sine, cosine = 2 * sine * cosine, 1 - 2 * sine * sine
        for column in range(0, width, SIDE):
            round_row(row.ctypes.data + 4 * column, out.ctypes.data + 2 * (each * width + column))
