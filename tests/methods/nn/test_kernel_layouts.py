"""Weights carried to other layouts and back, each entry followed by hand."""

from __future__ import annotations

import pytest
import torch

from adlbench.benchmark.api import AdlbenchError
from adlbench.methods.nn.kernel_layouts import from_library, to_library
from adlbench.methods.nn.sparse_coordinates import kernel_offsets

SIDE, INPUTS, OUTPUTS = 3, 2, 4


@pytest.mark.parametrize("library", ["dense", "transposed", "spconv", "ocnn"])
def test_every_entry_is_where_the_library_reads_it(library: str) -> None:
    kernel = torch.arange(float(SIDE**3 * INPUTS * OUTPUTS)).view(-1, INPUTS, OUTPUTS)
    weight = to_library(kernel, library)
    for tap, offset in enumerate(kernel_offsets(SIDE).tolist()):
        x, y, z = (step + 1 for step in offset)
        for i in range(INPUTS):
            for o in range(OUTPUTS):
                there = {
                    "dense": (o, i, z, y, x),
                    "transposed": (i, o, z, y, x),
                    "spconv": (o, x, y, z, i),
                    "ocnn": ((x * SIDE + y) * SIDE + z, i, o),
                }[library]
                assert weight[there] == kernel[tap, i, o]
    assert torch.equal(from_library(weight, library), kernel)


def test_what_has_no_layout_is_named() -> None:
    with pytest.raises(AdlbenchError, match="'torchsparse' is known"):
        to_library(torch.zeros(8, 1, 1), "torchsparse")
    with pytest.raises(AdlbenchError, match="10 taps is not a cube"):
        to_library(torch.zeros(10, 1, 1), "dense")
