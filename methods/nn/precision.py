"""Kernels that keep their precision under autocast, which would round the inputs of matrix products to bfloat16."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Method = TypeVar("Method", bound=Callable[..., Any])


def full_precision(method: Method) -> Method:
    """For ``forward`` and ``backward`` of an autograd function: what they compute is computed in the type that it has."""

    @functools.wraps(method)
    def run(ctx: Any, *arguments: Any) -> Any:
        device = next(x.device for x in arguments if isinstance(x, Tensor))
        with torch.autocast(device.type, enabled=False):
            return method(ctx, *arguments)

    return cast(Method, run)
