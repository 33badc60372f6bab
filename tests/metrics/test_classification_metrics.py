"""Classification metrics against scikit-learn, torch, torchmetrics and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, log_loss, top_k_accuracy_score
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix

from adlbench.benchmark.metrics import classification as scores


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    truth = rng.choice(7, size=400, p=[0.4, 0.2, 0.15, 0.1, 0.1, 0.05, 0.0])  # the last class does not occur
    logits = rng.normal(size=(400, 7)) * 3
    logits[np.arange(400), truth] += 2
    return logits.astype(np.float32), truth


@pytest.mark.parametrize("k", [1, 2, 5])
def test_rank_gives_top_k(case, k):
    logits, truth = case
    expected = top_k_accuracy_score(truth, logits, k=k, labels=range(7))
    assert (scores.rank_of_truth(logits, truth) < k).mean() == pytest.approx(expected, abs=1e-12)


def test_equal_logits_are_in_the_order_of_their_classes():
    logits = np.zeros((4, 4), dtype=np.float32)
    truth = np.arange(4)
    assert scores.rank_of_truth(logits, truth).tolist() == [0, 1, 2, 3]
    assert ((scores.rank_of_truth(logits, truth) == 0) == (logits.argmax(1) == truth)).all()


def test_likelihood(case):
    logits, truth = case
    values = scores.negative_log_likelihood(logits, truth)
    reference = torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(truth), reduction="none")
    np.testing.assert_allclose(values, reference.numpy(), rtol=1e-5, atol=1e-6)
    probabilities = np.exp(scores.log_probabilities(logits))
    assert values.mean() == pytest.approx(log_loss(truth, probabilities, labels=range(7)), rel=1e-6)


def test_likelihood_of_a_class_that_was_ruled_out_is_bounded():
    logits = np.array([[0.0, -np.inf], [1e4, 0.0]], dtype=np.float32)
    assert scores.negative_log_likelihood(logits, np.array([1, 1])).tolist() == [scores.MAX_NLL, scores.MAX_NLL]


@pytest.mark.filterwarnings("ignore:y_pred contains classes")
def test_weights_turn_correctness_into_balanced_accuracy(case):
    logits, truth = case
    correct = scores.rank_of_truth(logits, truth) == 0
    weights = scores.class_weights(truth)
    assert weights.mean() == pytest.approx(1.0)
    assert (weights * correct).mean() == pytest.approx(balanced_accuracy_score(truth, logits.argmax(1)), abs=1e-12)


def test_calibration_error_against_torchmetrics(case):
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    logits, truth = case
    reference = torchmetrics.multiclass_calibration_error(
        torch.tensor(logits).softmax(1), torch.tensor(truth), num_classes=7, n_bins=15, norm="l1"
    )
    assert scores.expected_calibration_error(logits, truth) == pytest.approx(float(reference), abs=1e-5)


def test_calibration_error_in_closed_form():
    logits = np.log(np.array([[0.8, 0.2]] * 10))
    truth = np.array([0] * 6 + [1] * 4)  # 80 % sure, 60 % right
    assert scores.expected_calibration_error(logits, truth) == pytest.approx(0.2)
    certain = np.array([[100.0, 0.0]] * 4)
    assert scores.expected_calibration_error(certain, np.zeros(4, dtype=int)) == pytest.approx(0.0)


def test_confusion_matrix(case):
    logits, truth = case
    predicted = logits.argmax(1)
    matrix = scores.confusion_matrix(truth, predicted, 7)
    assert (matrix == sklearn_confusion_matrix(truth, predicted, labels=range(7))).all()
