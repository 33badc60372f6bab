"""A tiny world for testing the engine: two Gaussian blobs as 'images', and methods that do what their name says."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adlbench import (
    ArraySplit,
    Batch,
    Context,
    DataSchema,
    Dataset,
    Method,
    Modality,
    PredictsLogits,
    Split,
    TaskKind,
    TrainingData,
)


@dataclass(eq=False)
class Blobs(Dataset):
    num_train: int = 64
    num_test: int = 32
    poison: bool = False  # a NaN among the values
    classes: int = 2
    shift_file: str = ""  # holds a number that is added to every value

    def schema(self, instance: str = "all") -> DataSchema:
        return DataSchema(
            Modality.POINTS,
            ("points", "label"),
            self.num_train,
            self.num_test,
            classes=tuple(f"class{i}" for i in range(self.classes)),
            num_points=4,
        )

    def load(self, instance: str, split: str) -> Split:
        n = self.num_train if split == "train" else self.num_test
        generator = torch.Generator().manual_seed(0 if split == "train" else 1)
        label = torch.arange(n) % self.classes
        points = torch.randn(n, 4, 3, generator=generator) + 2.0 * label.reshape(n, 1, 1)
        if self.shift_file:
            points += float(Path(self.shift_file).read_text())
        if self.poison and n:
            points[0, 0, 0] = float("nan")
        return ArraySplit(points=points, label=label)


class _Predictor:
    def __init__(self, net: nn.Module):
        self.net = net

    def logits(self, inputs: Batch) -> Tensor:
        return self.net(inputs["points"].flatten(1))  # type: ignore[no-any-return]


@dataclass(eq=False)
class Linear(Method):
    """Logistic regression with noise in its loss, so that generators, loaders and the global state all matter."""

    serves: ClassVar = frozenset({TaskKind.CLASSIFICATION})
    consumes: ClassVar = frozenset({Modality.POINTS})
    shares_batches: ClassVar = True
    lr: float = 0.1
    batch_size: int = 8
    misbehave: str = ""  # what the method does wrong
    at_step: int = 2

    def setup(self, data: TrainingData, context: Context) -> None:
        self.context = context
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(context.seed("init"))
            self.net = nn.Linear(12, len(data.schema.classes)).to(context.device)
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=self.lr)
        self.batches = context.loader(data.train, self.batch_size)
        self.noise = context.generator("noise")
        if self.misbehave == "reads data in setup":
            data.train.all()

    def step(self) -> Mapping[str, Tensor]:
        self._misbehave()
        batch = next(self.batches)
        x = batch["points"].flatten(1)
        x = (
            x
            + 0.01 * torch.randn(x.shape, generator=self.noise, device=x.device)
            + 0.01 * torch.randn(x.shape).to(x.device)
        )
        loss = nn.functional.cross_entropy(self.net(x), batch["label"])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.misbehave == "synchronises":
            loss.item()
        return {"loss": loss.detach()}

    def predictor(self) -> PredictsLogits:
        return _Predictor(self.net)

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        if self.misbehave == "forgets its optimizer":
            del state["optimizer"]
        return state

    def _misbehave(self) -> None:
        if self.context.step != self.at_step:
            return
        if self.misbehave == "raises":
            raise RuntimeError("no luck today")
        if self.misbehave == "exits":
            os._exit(7)
        if self.misbehave == "kills itself":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.misbehave == "hangs":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(600)
        if self.misbehave == "loses a rank" and self.context.work_folder.name == "rank1":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.misbehave == "segfaults":
            ctypes.string_at(0)
        if self.misbehave == "eats memory":
            eaten = []
            while sum(map(len, eaten)) < 8 * 2**30:
                eaten.append(bytearray(b"x") * (32 * 2**20))
                time.sleep(0.05)
        if self.misbehave == "starts too many processes":
            for _ in range(60):
                subprocess.Popen(["sleep", "300"])
            time.sleep(300)
        if self.misbehave == "leaves a daemon":
            subprocess.Popen(["sh", "-c", "setsid sleep 300 & exit"]).wait()
        if self.misbehave == "prints its environment":
            print("\n".join(f"{name}={value}" for name, value in os.environ.items()))
        if self.misbehave == "prints":
            for _ in range(40):
                print("x" * 2**20)
            print("the end")
        if self.misbehave == "diverges":
            with torch.no_grad():
                self.net.weight.fill_(float("nan"))
        if self.misbehave in ("stops once", "kills itself once"):
            marker = self.context.work_folder / "stopped"
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGTERM if self.misbehave == "stops once" else signal.SIGKILL)


@dataclass(eq=False)
class Majority(Method):
    serves: ClassVar = frozenset({TaskKind.CLASSIFICATION})
    consumes: ClassVar = frozenset({Modality.POINTS, Modality.IMAGE})

    def setup(self, data: TrainingData, context: Context) -> None:
        self.data, self.context = data, context
        self.counts = torch.zeros(len(data.schema.classes))

    def step(self) -> Mapping[str, Tensor]:
        labels = self.data.train.all()["label"]
        self.counts = torch.bincount(labels, minlength=len(self.counts)).float()
        self.context.count(len(labels))
        return {"count": self.counts.max()}

    def predictor(self) -> PredictsLogits:
        counts = self.counts

        class Constant:
            def logits(self, inputs: Batch) -> Tensor:
                return counts.log().expand(len(inputs["points"]), -1)

        return Constant()
