"""Softmax regression on pixels: about the smallest method there can be."""

import math
from dataclasses import dataclass

from torch import nn

from adlbench import Modality, TaskKind
from adlbench.methods.base.images import normalise
from adlbench.methods.base.supervised import SupervisedMethod


@dataclass(eq=False, kw_only=True)
class LinearPixels(SupervisedMethod):
    serves = frozenset({TaskKind.CLASSIFICATION})
    consumes = frozenset({Modality.IMAGE})

    def network(self, schema):
        return nn.Linear(schema.channels * math.prod(schema.image_size), len(schema.classes))

    def logits(self, net, batch):
        return net(normalise(batch["image"]).flatten(1))
