"""Scores of labellings: confusion matrix, intersection over union, accuracies, and the ShapeNet-part protocol.

Everything starts from a confusion matrix C [K, K] of counts, truth along the rows: a class has C_kk true positives,
sum_j C_jk predictions and sum_j C_kj true members, and

    IoU_k = C_kk / (sum_j C_kj + sum_j C_jk - C_kk).

Whether a mean is taken over one matrix of the whole test set or over one matrix per item moves the result by several
points, as does what a class counts that does not occur; so both are in the names and definitions below.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from adlbench.benchmark.api import DataError

Labels = NDArray[np.integer]
Floats = NDArray[np.float64]


def confusion_matrices(truth: Labels, predicted: Labels, num_classes: int) -> NDArray[np.int64]:
    """Counts [N, K, K] of N items with P labels each; ``truth`` and ``predicted`` are [N, P], values in [0, K).

    The matrix of the whole set is their sum. Raises DataError for shapes that differ and labels out of range.
    """
    if truth.shape != predicted.shape or truth.ndim != 2:
        raise DataError(
            f"truth has shape {truth.shape}, the prediction {predicted.shape}; both must be [items, labels]"
        )
    for name, labels in (("truth", truth), ("prediction", predicted)):
        if labels.size and (labels.min() < 0 or labels.max() >= num_classes):
            raise DataError(
                f"the {name} holds labels {labels.min()}..{labels.max()}, but there are {num_classes} classes "
                f"(0..{num_classes - 1}); correct the labels or the schema"
            )
    cells = num_classes * num_classes
    item = np.arange(len(truth), dtype=np.int64)[:, None]
    flat = (item * num_classes + truth) * num_classes + predicted
    counts = np.bincount(flat.ravel(), minlength=len(truth) * cells)
    return counts.reshape(len(truth), num_classes, num_classes).astype(np.int64, copy=False)


def intersection_over_union(confusion: NDArray[np.int64]) -> Floats:
    """IoU per class: [..., K, K] to [..., K]; NaN for a class that neither truth nor prediction holds."""
    hits, members, predictions = _sums(confusion)
    union = members + predictions - hits
    return _ratio(hits, union)


def mean_iou(confusion: NDArray[np.int64]) -> Floats:
    """mIoU: the mean IoU over the classes that occur in the truth, [..., K, K] to [...]; NaN where none does.

    A class that is predicted but does not occur has no term of its own: its members count against the classes that they
    were taken from.
    """
    return _mean_over_occurring(intersection_over_union(confusion), confusion)


def overall_accuracy(confusion: NDArray[np.int64]) -> Floats:
    """The share of labels that are right, [..., K, K] to [...]; NaN where there are no labels."""
    hits, members, _ = _sums(confusion)
    return _ratio(hits.sum(-1), members.sum(-1))


def mean_class_accuracy(confusion: NDArray[np.int64]) -> Floats:
    """The mean over the classes that occur in the truth of the share of their members that are right."""
    hits, members, _ = _sums(confusion)
    return _mean_over_occurring(_ratio(hits, members), confusion)


def shape_iou(confusion: NDArray[np.int64], categories: Labels, parts_of: Sequence[Sequence[int]]) -> Floats:
    """IoU per shape [N] as ShapeNet-part counts it, from one matrix per shape [N, K, K] and the categories [N].

    The mean over the parts of the shape's category, whether the shape has them or not: a part that neither truth nor
    prediction holds counts as 1 (Yi et al. 2016; Qi et al. 2017). ``parts_of[category]`` lists a category's parts.
    """
    per_part = np.nan_to_num(intersection_over_union(confusion), nan=1.0)
    return np.array([row[list(parts_of[category])].mean() for row, category in zip(per_part, categories)])


def category_mean(values: Floats, categories: Labels) -> float:
    """The mean over categories of the mean over their shapes ("class average"; over shapes is "instance average")."""
    return float(np.mean([values[categories == category].mean() for category in np.unique(categories)]))


def _sums(confusion: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    return hits, confusion.sum(-1).astype(np.float64), confusion.sum(-2).astype(np.float64)


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _mean_over_occurring(values: Floats, confusion: NDArray[np.int64]) -> Floats:
    occurs = confusion.sum(-1) > 0
    return _ratio(np.where(occurs, values, 0.0).sum(-1), occurs.sum(-1).astype(np.float64))
