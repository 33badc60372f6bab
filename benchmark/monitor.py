"""Evaluations during training: quality against steps and seconds.

They change nothing that is trained. What they draw from the global generators is put back, their time is in the account
``monitor`` and so in no training time, and the last step counts as ever: nothing is selected by them.
"""

from __future__ import annotations

import math
import random
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from adlbench.benchmark.clock import Clock, synchronize

SHARE = 0.25  # of the training time; an evaluation that comes due when more than that is used up is left out


@dataclass
class Monitor:
    """``count`` evaluations at equal shares of the budget, of which the last is the one after training."""

    count: int
    score: Callable[[], float | None]  # the primary metric, now
    clock: Clock
    device: torch.device
    done: int = 0  # shares that training is past

    def __call__(self, progress: float, train_seconds: float) -> float | None:
        """The metric, if training at ``progress`` in [0, 1] has come to the next share; None where there is no value."""
        place = int(progress * self.count + 1e-9)
        if place <= self.done or place >= self.count:
            return None
        self.done = place
        if self.clock.read()["monitor"] > SHARE * train_seconds:
            return None
        with self.clock.account("monitor"), untouched_generators():
            try:
                value = self.score()
            except Exception:  # a state of early training that cannot be scored; the evaluation at the end decides
                traceback.print_exc()
                return None
            finally:
                synchronize(self.device)
        return value if value is not None and math.isfinite(value) else None


@contextmanager
def untouched_generators() -> Iterator[None]:
    """The global generators of torch, numpy and Python stand where they stood."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - libraries still draw from the global state
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002
