"""Scores of classifiers, from logits [N, K] and true classes [N]. All arithmetic is float64.

Equal logits are in the order of their classes, in every function: the class with the lower index comes first.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

MAX_NLL = 100.0  # nats; a class that was ruled out (logit -inf) and is the true one would make the mean infinite


def rank_of_truth(logits: NDArray[np.floating], truth: Labels) -> Labels:
    """How many classes are rated above the true one, [N]; 0 where the prediction is right, < k where the top k are."""
    own = np.take_along_axis(logits, truth[:, None], axis=1)
    earlier = np.arange(logits.shape[1])[None] < truth[:, None]
    return ((logits > own) | ((logits == own) & earlier)).sum(axis=1)


def log_probabilities(logits: NDArray[np.floating]) -> Floats:
    """log softmax, [N, K]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def negative_log_likelihood(logits: NDArray[np.floating], truth: Labels) -> Floats:
    """-log p(true class) in nats, [N], at most ``MAX_NLL``."""
    own = np.take_along_axis(log_probabilities(logits), truth[:, None], axis=1)[:, 0]
    return np.minimum(-own, MAX_NLL)


def class_weights(truth: Labels) -> Floats:
    """Weights [N] of mean 1 that give every class that occurs the same weight: the mean of ``weights * correct`` is the
    mean over these classes of the share of their items that are right (balanced accuracy)."""
    _, member, counts = np.unique(truth, return_inverse=True, return_counts=True)
    return len(truth) / (len(counts) * counts[member].astype(np.float64))


def expected_calibration_error(logits: NDArray[np.floating], truth: Labels, bins: int = 15) -> float:
    """Guo et al. 2017: the mean over items of |accuracy - confidence| of the item's bin of confidence.

    Confidence is the largest probability; the bins are the ``bins`` equal parts (a, b] of [0, 1].
    """
    confidence = np.exp(log_probabilities(logits).max(axis=1))
    correct = (rank_of_truth(logits, truth) == 0).astype(np.float64)
    index = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(index, weights=correct - confidence, minlength=bins)  # counts times (accuracy - confidence)
    return float(np.abs(gaps).sum() / len(truth))


def confusion_matrix(truth: Labels, predicted: Labels, num_classes: int) -> Labels:
    """Counts [K, K], the truth along the rows."""
    return np.bincount(truth * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)
