"""The context of a cell: named seeds, budget, the seeded loader, pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adlbench.benchmark.api import Budget, Context, DataError, Split
from adlbench.benchmark.clock import Clock
from adlbench.benchmark.parallel import Ranks

Transform = Callable[[dict[str, Tensor], torch.Generator], dict[str, Tensor]]


def derive_seed(*parts: object) -> int:
    """63 bits from a hash of the parts; unlike ``hash()`` it is the same in every process."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class CellContext(Context):
    def __init__(
        self,
        *,
        device: torch.device,
        precision: str,
        budget: Budget,
        work_folder: Path,
        seed_parts: tuple[object, ...],
        clock: Clock,
        ranks: Ranks | None = None,
    ):
        self._ranks = ranks or Ranks()
        self.device, self.precision, self.budget, self.work_folder = device, precision, budget, work_folder
        self.step, self.samples, self.progress = 0, 0, 0.0
        self.images: dict[str, np.ndarray] = {}
        self._seed_parts, self._clock = seed_parts, clock
        self._generators: dict[str, torch.Generator] = {}
        self._loaders: dict[str, BatchLoader] = {}

    def seed(self, name: str) -> int:
        return derive_seed(*self._seed_parts, name)

    def generator(self, name: str) -> torch.Generator:
        if name not in self._generators:
            self._generators[name] = torch.Generator(self.device).manual_seed(self.seed(name))
        return self._generators[name]

    def loader(
        self,
        split: Split,
        batch_size: int,
        *,
        name: str = "train",
        shuffle: bool = True,
        transform: Transform | None = None,
    ) -> Iterator[dict[str, Tensor]]:
        loader = BatchLoader(self, split, batch_size, f"data/{name}", shuffle, transform)
        self._loaders[name] = loader
        return loader

    def count(self, samples: int) -> None:
        self.samples += samples * self._ranks.size  # the others' shares are as large

    def share(self, items: Tensor) -> Tensor:
        if len(items) % self._ranks.size:
            raise DataError(f"a batch of {len(items)} cannot be shared by devices={self._ranks.size}; change its size")
        return items.chunk(self._ranks.size)[self._ranks.rank] if len(items) else items

    def total(self, values: Tensor) -> Tensor:
        return self._ranks.total(values)

    def autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "bf16":
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return nullcontext()

    def log_image(self, name: str, image: Tensor) -> None:
        pixels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
        self.images[name] = pixels.expand(3, *pixels.shape[1:]).permute(1, 2, 0).numpy()

    def state_dict(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "samples": self.samples,
            "generators": {name: generator.get_state() for name, generator in self._generators.items()},
            "loaders": {name: loader.position for name, loader in self._loaders.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step, self.samples = state["step"], state["samples"]
        for name, generator_state in state["generators"].items():
            self.generator(name).set_state(generator_state)
        for name, position in state["loaders"].items():
            self._loaders[name].position = position


class BatchLoader(Iterator[dict[str, Tensor]]):
    """Endless batches whose content follows from the seed and the position alone, so that a position is all its state."""

    def __init__(
        self,
        context: CellContext,
        split: Split,
        batch_size: int,
        seed_name: str,
        shuffle: bool,
        transform: Transform | None,
    ):
        if len(split) == 0:
            raise DataError("the training split is empty; check the dataset's folder and parameters")
        if batch_size < 1:
            raise DataError(f"batch_size={batch_size}: at least 1 is needed")
        self.position = 0  # batches given so far
        self._context, self._split, self._shuffle, self._transform = context, split, shuffle, transform
        self._batch_size = min(batch_size, len(split))  # a batch larger than the set is the set
        if self._batch_size % context._ranks.size:
            raise DataError(
                f"a batch of {self._batch_size} cannot be shared by devices={context._ranks.size}; change batch_size"
            )
        self._per_epoch = len(split) // self._batch_size
        self._seed = context.seed(seed_name)
        self._epoch, self._order = -1, np.arange(len(split))

    def __next__(self) -> dict[str, Tensor]:
        with self._context._clock.account("data"):
            epoch, index = divmod(self.position, self._per_epoch)
            if self._shuffle and epoch != self._epoch:
                self._order = np.random.default_rng([self._seed, epoch]).permutation(len(self._split))
                self._epoch = epoch
            items = self._order[index * self._batch_size : (index + 1) * self._batch_size]
            share = self._context.share
            if self._transform is None:
                batch = self._split.batch(share(torch.from_numpy(items)).numpy())
            else:  # what is drawn for an item depends on its place in the whole batch
                generator = torch.Generator().manual_seed(derive_seed(self._seed, self.position))
                batch = self._transform(self._split.batch(items), generator)
                batch = {name: share(value) for name, value in batch.items()}
            self.position += 1
            self._context.count(self._batch_size // self._context._ranks.size)
            return {name: value.to(self._context.device, non_blocking=True) for name, value in batch.items()}
