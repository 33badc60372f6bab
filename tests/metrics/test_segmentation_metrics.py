"""Segmentation scores against closed forms, brute force, scikit-learn and torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, jaccard_score

from adlbench.benchmark.api import DataError
from adlbench.benchmark.metrics.segmentation import (
    category_mean,
    confusion_matrices,
    intersection_over_union,
    mean_class_accuracy,
    mean_iou,
    overall_accuracy,
    shape_iou,
)


@pytest.fixture
def labels() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 6, (9, 70))
    truth[truth == 3] = 2  # a class that does not occur, and is predicted
    predicted = np.where(rng.random(truth.shape) < 0.6, truth, rng.integers(0, 6, truth.shape))
    return truth, predicted


def test_confusion_matrix_equals_scikit_learn(labels: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = labels
    per_item = confusion_matrices(truth, predicted.astype(np.uint8), 7)
    assert per_item.shape == (9, 7, 7)
    for item in range(9):
        expected = confusion_matrix(truth[item], predicted[item], labels=np.arange(7))
        np.testing.assert_array_equal(per_item[item], expected)
    np.testing.assert_array_equal(
        per_item.sum(0), confusion_matrix(truth.ravel(), predicted.ravel(), labels=np.arange(7))
    )


def test_scores_equal_scikit_learn(labels: tuple[np.ndarray, np.ndarray]) -> None:
    truth, predicted = labels
    total = confusion_matrices(truth, predicted, 6).sum(0)
    true, guess = truth.ravel(), predicted.ravel()
    occurring = np.unique(true)
    assert set(np.unique(guess)) > set(occurring)
    iou = intersection_over_union(total)
    np.testing.assert_allclose(iou[occurring], jaccard_score(true, guess, labels=occurring, average=None))
    assert iou[3] == 0.0  # predicted, never true
    assert mean_iou(total) == pytest.approx(jaccard_score(true, guess, labels=occurring, average="macro"))
    assert overall_accuracy(total) == pytest.approx(accuracy_score(true, guess))
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert mean_class_accuracy(total) == pytest.approx(balanced_accuracy_score(true, guess))


def test_scores_equal_torchmetrics(labels: tuple[np.ndarray, np.ndarray]) -> None:
    classification = pytest.importorskip("torchmetrics.functional.classification")
    truth, predicted = labels
    predicted = np.where(predicted == 3, 2, predicted)  # torchmetrics also averages over classes predicted only
    total = confusion_matrices(truth, predicted, 8).sum(0)
    true, guess = torch.from_numpy(truth.ravel()), torch.from_numpy(predicted.ravel())
    jaccard = classification.multiclass_jaccard_index(guess, true, num_classes=8, average="macro")
    assert mean_iou(total) == pytest.approx(float(jaccard), abs=1e-6)
    assert overall_accuracy(total) == pytest.approx(
        float(classification.multiclass_accuracy(guess, true, num_classes=8, average="micro")), abs=1e-6
    )


def test_closed_forms() -> None:
    confusion = np.array([[3, 1, 0], [2, 4, 0], [0, 0, 0]])
    np.testing.assert_allclose(intersection_over_union(confusion), [3 / 6, 4 / 7, np.nan])
    assert mean_iou(confusion) == pytest.approx((3 / 6 + 4 / 7) / 2)
    assert overall_accuracy(confusion) == pytest.approx(7 / 10)
    assert mean_class_accuracy(confusion) == pytest.approx((3 / 4 + 4 / 6) / 2)


def test_a_constant_answer_scores_the_share_of_the_class() -> None:
    truth = np.repeat([0, 1, 2], [60, 30, 10])[None]
    total = confusion_matrices(truth, np.zeros_like(truth), 3).sum(0)
    assert mean_iou(total) == pytest.approx(0.6 / 3)
    assert overall_accuracy(total) == pytest.approx(0.6)
    assert mean_class_accuracy(total) == pytest.approx(1 / 3)


def test_one_class_only() -> None:
    total = confusion_matrices(np.full((2, 5), 4), np.full((2, 5), 4), 6).sum(0)
    assert mean_iou(total) == 1.0
    assert mean_class_accuracy(total) == 1.0


def test_pooled_and_per_item_means_differ() -> None:
    """The mean of the items' mIoU is another number than the mIoU of the set."""
    truth, predicted = np.array([[0, 0, 0, 0], [0, 1, 1, 1]]), np.array([[0, 0, 0, 0], [1, 1, 1, 1]])
    per_item = confusion_matrices(truth, predicted, 2)
    np.testing.assert_allclose(mean_iou(per_item), [1.0, 3 / 8])
    assert mean_iou(per_item.sum(0)) == pytest.approx((4 / 5 + 3 / 4) / 2)


def test_no_labels_give_nan_without_a_warning() -> None:
    empty = np.zeros((4, 4), dtype=np.int64)
    assert np.isnan([mean_iou(empty), overall_accuracy(empty), mean_class_accuracy(empty)]).all()


def test_bad_labels_name_the_range() -> None:
    good = np.zeros((2, 3), dtype=np.int64)
    with pytest.raises(DataError, match=r"the truth holds labels -1\.\.0.*3 classes"):
        confusion_matrices(good - np.eye(2, 3, dtype=np.int64), good, 3)
    with pytest.raises(DataError, match=r"the prediction holds labels 5\.\.5"):
        confusion_matrices(good, good + 5, 3)
    with pytest.raises(DataError, match="shape"):
        confusion_matrices(good, good[:, :2], 3)


def test_shape_iou_equals_brute_force() -> None:
    rng = np.random.default_rng(1)
    parts_of = [[0, 1, 2], [2, 3, 4]]  # part 2 is shared
    category = rng.integers(0, 2, 12)
    truth = np.stack([rng.choice(parts_of[c][:2] if c else parts_of[c], 40) for c in category])
    predicted = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 5, truth.shape))
    expected = []
    for true, guess, c in zip(truth, predicted, category, strict=True):
        ious = []
        for part in parts_of[c]:
            union = np.sum((true == part) | (guess == part))
            ious.append(1.0 if union == 0 else np.sum((true == part) & (guess == part)) / union)
        expected.append(np.mean(ious))
    values = shape_iou(confusion_matrices(truth, predicted, 5), category, parts_of)
    np.testing.assert_allclose(values, expected)
    by_category = [np.mean(np.array(expected)[category == c]) for c in (0, 1)]
    assert category_mean(values, category) == pytest.approx(np.mean(by_category))


def test_a_part_that_a_shape_lacks_counts_as_one() -> None:
    truth = np.array([[0, 0, 1, 1]])
    per_shape = shape_iou(confusion_matrices(truth, truth, 3), np.array([0]), [[0, 1, 2]])
    assert per_shape == pytest.approx([1.0])
    invented = np.array([[0, 0, 1, 2]])  # and as nothing once it is predicted
    per_shape = shape_iou(confusion_matrices(truth, invented, 3), np.array([0]), [[0, 1, 2]])
    assert per_shape == pytest.approx([(1 + 0.5 + 0) / 3])
