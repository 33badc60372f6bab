"""Reproducible initialisation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from adlbench.benchmark.api import Context


@contextmanager
def seeded_init(context: Context, name: str = "init") -> Iterator[None]:
    """Within the block torch's global generator starts at ``context.seed(name)``; afterwards it is as it was before.

    Layers draw their initial weights from the global generator. Seeding it here makes them equal for every method with
    the same layers, whatever was drawn before.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed(name))
        yield
