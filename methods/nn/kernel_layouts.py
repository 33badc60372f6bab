"""How libraries lay out the weights of a 3D convolution, and the way between theirs and ``SparseConv.kernel``.

Ours, and MinkowskiEngine's, is [K, Cin, Cout] with K = s^3 and index (kz * s + ky) * s + kx: x runs fastest. Odd kernels are
centred, even ones begin at the voxel itself, in all of them.

=========  ================================  ==============================================
library    shape                             order
=========  ================================  ==============================================
dense      [Cout, Cin, s, s, s]              kz, ky, kx of ``conv3d`` on [B, C, Z, Y, X]
transposed [Cin, Cout, s, s, s]              the same, of ``conv_transpose3d``
spconv     [Cout, s, s, s, Cin]              kx, ky, kz for coordinates (item, x, y, z)
ocnn       [K, Cin, Cout]                    index (kx * s + ky) * s + kz: z runs fastest
=========  ================================  ==============================================
"""

from __future__ import annotations

from torch import Tensor

from adlbench.benchmark.api import AdlbenchError

# their axes in the order (kz, ky, kx, Cin, Cout)
_AXES = {"dense": (2, 3, 4, 1, 0), "transposed": (2, 3, 4, 0, 1), "spconv": (3, 2, 1, 4, 0), "ocnn": (2, 1, 0, 3, 4)}


def from_library(weight: Tensor, library: str) -> Tensor:
    """[K, Cin, Cout] from the weight of ``library``."""
    if library == "ocnn":
        side = _side(len(weight))
        weight = weight.view(side, side, side, *weight.shape[1:])
    return weight.permute(_axes(library)).flatten(0, 2).contiguous()


def to_library(kernel: Tensor, library: str) -> Tensor:
    """The weight of ``library`` from [K, Cin, Cout]."""
    side, axes = _side(len(kernel)), _axes(library)
    weight = kernel.view(side, side, side, *kernel.shape[1:]).permute([axes.index(axis) for axis in range(5)])
    return (weight.flatten(0, 2) if library == "ocnn" else weight).contiguous()


def _axes(library: str) -> tuple[int, ...]:
    if library not in _AXES:
        raise AdlbenchError(f"no layout of '{library}' is known; there are {', '.join(_AXES)}")
    return _AXES[library]


def _side(taps: int) -> int:
    side = round(taps ** (1 / 3))
    if side**3 != taps:
        raise AdlbenchError(f"a kernel of {taps} taps is not a cube")
    return side
