"""The scan inside transformers' Mamba-2 mixer, in place of its torch path."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("transformers")
from mamba2_mixer import mixer_with_own_scan, small_mixer


@pytest.mark.parametrize("groups", [1, 2])
def test_same_weights_same_output_and_gradients(groups: int) -> None:
    mixer = small_mixer(hidden=16, state=8, head=8, groups=groups, chunk=16)
    with torch.no_grad():
        for parameter in (mixer.A_log, mixer.D, mixer.dt_bias):
            parameter.copy_(torch.randn(parameter.shape))
    x = torch.randn(2, 45, 16)
    theirs, ours = mixer(x), mixer_with_own_scan(mixer, x)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    pull = torch.randn(theirs.shape)
    parameters = list(mixer.parameters())
    for a, b in zip(*(torch.autograd.grad((y * pull).sum(), parameters) for y in (ours, theirs))):
        torch.testing.assert_close(a, b, atol=1e-5 * max(1.0, float(b.abs().max())), rtol=0)
