"""Supervised training, once: give a network and you have a method.

A classifier of images in full::

    @dataclass(eq=False, kw_only=True)
    class Linear(SupervisedMethod):
        serves: ClassVar[frozenset[TaskKind]] = frozenset({TaskKind.CLASSIFICATION})
        consumes: ClassVar[frozenset[Modality]] = frozenset({Modality.IMAGE})

        def network(self, schema: DataSchema) -> nn.Module:
            inputs = schema.channels * schema.image_size[0] * schema.image_size[1]
            return nn.Sequential(nn.Flatten(), nn.Linear(inputs, len(schema.classes)))

        def logits(self, net: nn.Module, batch: Batch) -> Tensor:
            return net(normalise(batch["image"]))

Everything else (``loss``, ``augment``, ``make_optimizer``, ``learning_rate_at``) has a default and can be replaced.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from adlbench.benchmark.api import (
    ArraySplit,
    Batch,
    Context,
    DataError,
    DataSchema,
    Method,
    TrainingData,
)
from adlbench.methods.base.schedule import warmup_cosine
from adlbench.methods.base.seeding import seeded_init


@dataclass(eq=False, kw_only=True)
class SupervisedMethod(Method):
    """Minimises ``loss`` over shuffled batches with AdamW, linear warm-up and cosine decay."""

    batch_size: int = 64
    learning_rate: float = 1e-3  # at its peak
    weight_decay: float = 0.0  # decoupled, on matrices and kernels only
    warmup: float = 0.0  # share of the budget during which the rate rises linearly
    gradient_clip: float = 0.0  # global norm; 0 for none
    label_smoothing: float = 0.0

    shares_batches: ClassVar[bool] = True
    target: ClassVar[str] = "label"  # the field to predict: "label" [B] or "point_label" [B, P]

    # ------------------------------------------------------------------------------------------- what an author gives
    @abstractmethod
    def network(self, schema: DataSchema) -> nn.Module:
        """The network, built from the schema only. Called under the seed "init"."""

    @abstractmethod
    def logits(self, net: nn.Module, batch: Batch) -> Tensor:
        """[B, K] or [B, P, K] from the fields of ``batch``; ``net`` is in train or eval mode as the caller needs it."""

    def loss(self, net: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """0-d tensors; "loss" is minimised, the others are logged. By default the cross-entropy to ``target``."""
        return self.cross_entropy(self.logits(net, batch), batch)

    def augment(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """A training batch on the CPU, changed at random with ``generator`` and nothing else."""
        return batch

    def make_optimizer(self, net: nn.Module) -> torch.optim.Optimizer:
        groups = [
            {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": self.weight_decay},
            {"params": [p for p in net.parameters() if p.ndim <= 1], "weight_decay": 0.0},  # biases, normalisation
        ]
        return torch.optim.AdamW([g for g in groups if g["params"]], lr=self.learning_rate, fused=True)

    def learning_rate_at(self, progress: float) -> float:
        """The rate at ``progress`` in [0, 1] of the budget."""
        return self.learning_rate * warmup_cosine(progress, self.warmup)

    # ------------------------------------------------------------------------------------------------- the contract
    def skip(self, schema: DataSchema) -> str | None:
        if self.target not in schema.fields:
            return f"learns from the field '{self.target}', which this dataset does not have"
        if not self.target_names(schema):
            return f"the schema names no {'parts' if self.target == 'point_label' else 'classes'} to predict"
        return None

    def setup(self, data: TrainingData, context: Context) -> None:
        self.schema, self.context = data.schema, context
        with seeded_init(context):
            self.net = self.network(data.schema)
        self.net.to(context.device).train()
        self.optimizer = self.make_optimizer(self.net)
        if data.present:
            check_items(data, self.target, len(self.target_names(data.schema)))
            self.batches = context.loader(data.train, self.batch_size, transform=self.augment)

    def step(self) -> Mapping[str, Tensor]:
        batch = next(self.batches)
        rate = self.learning_rate_at(self.context.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("lr_scale", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        with self.context.autocast():
            terms = self.loss(self.net, batch)
        terms["loss"].backward()
        if self.gradient_clip > 0:
            nn.utils.clip_grad_norm_(self.net.parameters(), self.gradient_clip)
        self.optimizer.step()
        return {name: value.detach() for name, value in terms.items()}

    def predictor(self) -> LogitsPredictor:
        return LogitsPredictor(frozen_copy(self.net), self.logits, self.context)

    # -------------------------------------------------------------------------------------------------------- helpers
    def target_names(self, schema: DataSchema) -> tuple[str, ...]:
        return schema.parts if self.target == "point_label" else schema.classes

    def cross_entropy(self, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """``loss`` and ``accuracy`` of ``logits`` [..., K] against the labels [...] of ``batch``."""
        flat, target = logits.flatten(0, -2).float(), batch[self.target].flatten()
        loss = functional.cross_entropy(flat, target, label_smoothing=self.label_smoothing)
        return {"loss": loss, "accuracy": (flat.detach().argmax(-1) == target).float().mean()}


class LogitsPredictor:
    """A network in eval mode and the function that feeds it."""

    def __init__(self, net: nn.Module, forward: Callable[[nn.Module, Batch], Tensor], context: Context):
        self.net, self.forward, self.context = net, forward, context

    def logits(self, inputs: Batch) -> Tensor:
        with self.context.autocast():
            return self.forward(self.net, inputs).float()


def frozen_copy(net: nn.Module) -> nn.Module:
    """A copy in eval mode that later training does not change."""
    return copy.deepcopy(net).eval().requires_grad_(False)


def check_items(data: TrainingData, target: str = "", num_classes: int = 0) -> None:
    """Raises DataError when the training items are none, are not finite, or have labels outside the schema.

    Items that are not in memory are not read for this.
    """
    if len(data.train) == 0:
        raise DataError("the training split has no items; give it at least one")
    fields: dict[str, Any] = data.train.fields if isinstance(data.train, ArraySplit) else {}
    for name, value in fields.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            bad = (~torch.isfinite(value.flatten(1) if value.ndim > 1 else value[:, None])).any(1).nonzero()[:, 0]
            raise DataError(
                f"field '{name}' of the training items is not finite in {len(bad)} of {len(value)} items, "
                f"the first of them item {int(bad[0])}; remove or repair them"
            )
    if target in fields and num_classes:
        low, high = int(fields[target].min()), int(fields[target].max())
        if low < 0 or high >= num_classes:
            raise DataError(
                f"field '{target}' of the training items holds {low}..{high}, but the schema names {num_classes} "
                f"classes (0..{num_classes - 1}); correct the labels or the schema"
            )
