"""Makes ``digits_extractor.npz``: the weights of the feature extractor for scikit-learn's 8x8 digits.

Run ``python benchmark/metrics/make_digits_extractor.py [FILE]``; it prints the sha256 that belongs into ``extractors.py``.
Seeded and on one thread, it gives the same file on the same machine with the same torch. It learns from the training
items of the dataset ``digits`` only, shifted by up to one pixel.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from adlbench.benchmark.metrics.extractors import EXTRACTORS, DigitsNet
from adlbench.datasets.classification.digits import Digits

EPOCHS, BATCH_SIZE, LEARNING_RATE = 60, 64, 3e-3


def train(epochs: int = EPOCHS) -> DigitsNet:
    items = Digits().load("all", "train").all()
    image, label = items["image"], items["label"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = DigitsNet()
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(net.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    batches = len(image) // BATCH_SIZE
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * batches)
    for _ in range(epochs):
        order = torch.randperm(len(image), generator=generator)
        for batch in order[: batches * BATCH_SIZE].split(BATCH_SIZE):
            _, logits = net(shift(image[batch], generator))
            loss = functional.cross_entropy(logits, label[batch], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net.eval()


def shift(image: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by -1, 0 or 1 pixels along both axes, black coming in."""
    padded = functional.pad(image, (1, 1, 1, 1)).unfold(2, 8, 1).unfold(3, 8, 1)  # [B, 1, 3, 3, 8, 8]
    dy, dx = torch.randint(0, 3, (2, len(image)), generator=generator)
    return padded[torch.arange(len(image)), :, dy, dx]


def accuracy(net: torch.nn.Module, split: str) -> float:
    items = Digits().load("all", split).all()
    with torch.no_grad():
        return float((net(items["image"])[1].argmax(1) == items["label"]).float().mean())


def main() -> None:
    torch.set_num_threads(1)
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / EXTRACTORS["digits"].weights
    net = train()
    np.savez(path, **{name: value.numpy() for name, value in net.state_dict().items()})
    print(
        f"accuracy: {accuracy(net, 'train'):.4f} on the training items, {accuracy(net, 'test'):.4f} on the test items"
    )
    print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}  {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
