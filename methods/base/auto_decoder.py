"""Auto-decoders, once: a code for every training shape, trained along with a decoder, and a code fitted to a new one.

There is no encoder. The codes are a table that is optimised like a layer's weights; what a test item shows is turned into
a code by the same kind of optimisation, with the decoder fixed. A subclass gives ``network``, ``loss`` and ``predictor``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from adlbench.benchmark.api import Context, DataSchema, Method, TrainingData
from adlbench.methods.base.seeding import seeded_init
from adlbench.methods.base.supervised import check_items


@dataclass(eq=False, kw_only=True)
class AutoDecoderMethod(Method):
    """Adam on the decoder and the codes together, each with its own learning rate, both halved at regular intervals."""

    code_length: int = 256
    code_bound: float = 1.0  # codes that grow longer are shortened to it whenever they are looked up; 0 for no bound
    learning_rate: float = 5e-4  # of the decoder
    code_learning_rate: float = 1e-3
    halvings: float = 4.0  # the rates are halved after every 1 / halvings of the budget
    shapes_per_step: int = 64
    samples_per_shape: int = 16384

    # ------------------------------------------------------------------------------------------- what an author gives
    @abstractmethod
    def network(self, schema: DataSchema) -> nn.Module:
        """The decoder, built from the schema only. Called under the seed "init"."""

    @abstractmethod
    def prepare(self, data: TrainingData) -> None:
        """Bring the training items into the form that ``loss`` reads; called by ``setup`` when there are any."""

    @abstractmethod
    def loss(self, shapes: Tensor, codes: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """0-d tensors for the training items ``shapes`` [B] and their ``codes`` [B, L]; "loss" is minimised."""

    # ------------------------------------------------------------------------------------------------- the contract
    def setup(self, data: TrainingData, context: Context) -> None:
        self.schema, self.context = data.schema, context
        with seeded_init(context):
            self.net = self.network(data.schema)
            self.codes = nn.Embedding(data.schema.num_train, self.code_length, max_norm=self.code_bound or None)
            nn.init.normal_(self.codes.weight, std=self.code_length**-0.5)
        self.net.to(context.device).train()
        self.codes.to(context.device)
        groups: list[dict[str, Any]] = [
            {"params": list(self.net.parameters()), "rate": self.learning_rate},
            {"params": list(self.codes.parameters()), "rate": self.code_learning_rate},
        ]
        self.optimizer = torch.optim.Adam(groups, lr=self.learning_rate, fused=True)
        if data.present:
            check_items(data)
            self.generator = context.generator("samples")
            self.prepare(data)

    def step(self) -> Mapping[str, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = group["rate"] * halving(self.context.progress, self.halvings)
        shuffled = torch.randperm(self.schema.num_train, generator=self.generator, device=self.context.device)
        shapes = shuffled[: self.shapes_per_step]
        self.optimizer.zero_grad(set_to_none=True)
        terms = self.loss(shapes, self.codes(shapes), self.generator)
        terms["loss"].backward()
        self.optimizer.step()
        self.context.count(len(shapes) * self.samples_per_shape)
        return {name: value.detach() for name, value in terms.items()}


def halving(progress: float, times: float) -> float:
    """1, then halved each time that ``progress`` in [0, 1] passes a multiple of 1 / ``times``; not at the very end."""
    return 0.5 ** int(min(progress, 1.0 - 1e-9) * times)


def fit_code(
    loss: Callable[[Tensor], Tensor], start: Tensor, iterations: int, learning_rate: float, late_factor: float = 0.1
) -> Tensor:
    """The code [L] after ``iterations`` of Adam on ``loss(code)`` from ``start`` [L].

    The rate is ``learning_rate``, times ``late_factor`` in the second half. Works inside ``no_grad``.
    """
    with torch.enable_grad():
        code = start.detach().clone().requires_grad_(True)
        optimizer = torch.optim.Adam([code], lr=learning_rate)
        for iteration in range(iterations):
            late = iteration >= iterations // 2
            optimizer.param_groups[0]["lr"] = learning_rate * (late_factor if late else 1.0)
            optimizer.zero_grad(set_to_none=True)
            loss(code).backward()
            optimizer.step()
    return code.detach()
