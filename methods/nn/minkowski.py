"""MinkowskiEngine as the backend of sparse tensors, where it is installed: the same kernels, the same results.

MinkowskiEngine 0.5.4 takes names from ``collections`` that Python 3.10 moved to ``collections.abc``; they are put back
before it is imported.
"""

from __future__ import annotations

import collections
import collections.abc
import importlib
import importlib.util
import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor

from adlbench.methods.nn.sparse_tensor import CoordinateManager


@cache
def minkowski_engine() -> Any:
    """The module. Raises ImportError where it is not installed or does not load."""
    for name in ("Callable", "Iterable", "Iterator", "Mapping", "MutableMapping", "Sequence"):
        if not hasattr(collections, name):
            setattr(collections, name, getattr(collections.abc, name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it was built for the CPU only
        return importlib.import_module("MinkowskiEngine")


@cache
def unavailable(device: torch.device) -> str | None:
    """Why MinkowskiEngine cannot run on ``device``, or None."""
    if importlib.util.find_spec("MinkowskiEngine") is None:
        return "MinkowskiEngine is not installed"
    try:
        engine = minkowski_engine()
    except (ImportError, OSError, AttributeError) as error:
        return f"MinkowskiEngine does not load ({error})"
    if device.type != "cpu" and not engine.is_cuda_available():
        return f"MinkowskiEngine was built without a GPU and the device is {device}"
    return None


class MinkowskiCoordinates(CoordinateManager):
    """A coordinate manager of MinkowskiEngine behind the interface of this package."""

    def __init__(self, coordinates: Tensor, batch_size: int):
        """``coordinates`` int64 [N, 4], (item, x, y, z), unique."""
        engine = minkowski_engine()
        self.batch_size = batch_size
        kind = engine.CoordinateMapType.CUDA if coordinates.is_cuda else engine.CoordinateMapType.CPU
        self._engine = engine
        threads = torch.get_num_threads()  # by default all cores, for torch too from then on
        self._manager = engine.CoordinateManager(D=3, num_threads=threads, coordinate_map_type=kind)
        key, (kept, _) = self._manager.insert_and_map(coordinates.int().contiguous(), 1)
        self._keys = {1: key}
        self._given = coordinates
        # MinkowskiEngine may store rows in another order than they came in; rows of stride 1 are translated both ways
        rows = kept.long()
        same = len(rows) == 0 or torch.equal(rows, torch.arange(len(coordinates), device=rows.device))
        self._stored: Tensor | None = None if same else rows
        self._restored: Tensor | None = None if same else rows.argsort()

    def coordinates(self, stride: int) -> Tensor:
        if stride == 1:
            return self._given
        if stride not in self._keys:
            self._keys[stride] = self._manager.stride(self._keys[1], stride)
        return self._manager.get_coordinates(self._keys[stride]).long()

    def convolve(
        self, features: Tensor, kernel: Tensor, stride: int, out_stride: int, kernel_size: int, dilation: int = 1
    ) -> Tensor:
        if kernel_size == 1 and stride == out_stride:
            return features @ kernel[0]
        convolution = importlib.import_module("MinkowskiConvolution")
        transposed = out_stride < stride
        ratio = stride // out_stride if transposed else out_stride // stride
        name = "MinkowskiConvolutionTransposeFunction" if transposed else "MinkowskiConvolutionFunction"
        generator = self._engine.KernelGenerator(kernel_size, ratio, dilation, dimension=3)
        mode = convolution.ConvolutionMode.DEFAULT
        function = getattr(convolution, name)
        dtype = torch.promote_types(features.dtype, torch.float32)  # it has no half precision
        return self._apply(function, features.to(dtype), stride, out_stride, kernel.to(dtype), generator, mode)

    def pool(self, features: Tensor, stride: int, out_stride: int, kernel_size: int, mode: str) -> Tensor:
        pooling = importlib.import_module("MinkowskiPooling")
        modes = self._engine.PoolingMode
        chosen = {"max": modes.LOCAL_MAX_POOLING, "mean": modes.LOCAL_AVG_POOLING, "sum": modes.LOCAL_SUM_POOLING}[mode]
        generator = self._engine.KernelGenerator(kernel_size, out_stride // stride, dimension=3)
        function = pooling.MinkowskiLocalPoolingFunction
        return self._apply(function, features, stride, out_stride, chosen, generator)

    def _apply(self, function: Any, features: Tensor, stride: int, out_stride: int, *arguments: Any) -> Tensor:
        if stride == 1 and self._stored is not None:
            features = features[self._stored]
        source = self._keys[stride]
        target = self._keys.setdefault(out_stride, self._engine.CoordinateMapKey(4))  # filled in on first use
        out: Tensor = function.apply(features, *arguments, source, target, self._manager)
        return out[self._restored] if out_stride == 1 and self._restored is not None else out
