import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax

from fidlib.measures import losses

rng = np.random.default_rng(0)
A, B = rng.normal(size=(2, 50, 7)) * 3
TA, TB = torch.from_numpy(A), torch.from_numpy(B)


def test_pfl_equals_numpy():
    expected = np.mean([np.linalg.norm(b - a) ** 2 for a, b in zip(A, B, strict=True)])
    assert losses.pfl(TA, TB).item() == pytest.approx(expected, rel=1e-12)


def test_spl_equals_scipys_relative_entropy():
    host, marked = softmax(A, axis=1), softmax(B, axis=1)
    expected = rel_entr(host, marked).sum(1).mean()
    assert losses.spl(TA, TB).item() == pytest.approx(expected, rel=1e-12)
    swapped = rel_entr(marked, host).sum(1).mean()
    assert losses.spl(TB, TA).item() == pytest.approx(swapped, rel=1e-12)
    assert expected != pytest.approx(swapped, rel=1e-2)


def test_spl_stays_finite_for_certain_logits():
    sure = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    assert losses.spl(sure, sure).item() == 0
    assert losses.spl(sure, sure.flip(1)).item() == pytest.approx(1000)


def test_twl_sums_over_all_parameters():
    host = {"a": TA, "b": TB[0]}
    marked = {"b": TB[0] + 2, "a": TA - 0.5}
    assert losses.twl(host, marked).item() == pytest.approx(A.size / 4 + 7 * 4)


def test_twl_refuses_other_architectures():
    with pytest.raises(ValueError, match="one architecture"):
        losses.twl({"a": TA}, {"a": TA[:3]})


def test_lp_and_pgr_equal_numpy():
    assert losses.lp(TA, TB).item() == pytest.approx(np.sum((B - A) ** 2))
    norms = [np.linalg.norm(b - a) for a, b in zip(A, B, strict=True)]
    assert losses.pgr(TA, TB).item() == pytest.approx(np.sum(norms))


def test_pgr_has_a_gradient_where_nothing_differs():
    prototypes = TA.clone().requires_grad_()
    losses.pgr(TA, prototypes).backward()
    assert torch.equal(prototypes.grad, torch.zeros_like(TA))


@pytest.mark.parametrize("loss", [losses.pfl, losses.spl, losses.lp, losses.pgr])
def test_losses_are_zero_only_for_the_same(loss):
    assert loss(TA, TA).item() == pytest.approx(0, abs=1e-12)
    assert loss(TA, TB).item() > 0
    with pytest.raises(ValueError, match="same shape"):
        loss(TA, TB[:, :3])


LABELS = rng.integers(0, 7, 50)
TLABELS = torch.from_numpy(LABELS)


def test_losses_are_means_over_images():
    distances = [np.sum((b - a) ** 2) for a, b in zip(A, B, strict=True)]
    assert losses.feature_distances(TA, TB).tolist() == pytest.approx(distances)
    divergences = rel_entr(softmax(A, axis=1), softmax(B, axis=1)).sum(1)
    assert losses.divergences(TA, TB).tolist() == pytest.approx(list(divergences))


def test_jensen_shannon_equals_scipys_squared():
    expected = jensenshannon(softmax(A, axis=1), softmax(B, axis=1), axis=1) ** 2
    divergences = losses.jensen_shannon(TA, TB)
    assert divergences.numpy() == pytest.approx(expected, rel=1e-9)
    assert torch.equal(divergences, losses.jensen_shannon(TB, TA))
    assert not losses.jensen_shannon(TA, TA + 1e-17).any()
    sure = torch.tensor([[1000.0, 0.0]])
    assert losses.jensen_shannon(sure, sure.flip(1)).item() == pytest.approx(np.log(2))


def test_margins_are_over_the_best_other_class():
    expected = [
        row[label] - max(v for k, v in enumerate(row) if k != label)
        for row, label in zip(A, LABELS, strict=True)
    ]
    margins = losses.margins(TA, TLABELS)
    assert margins.tolist() == pytest.approx(expected)
    assert torch.equal(margins > 0, TA.argmax(1) == TLABELS)


def test_calibration_error_equals_a_loop_over_bins():
    probabilities = softmax(A / 3, axis=1)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == LABELS
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            gap = abs(confidence[inside].mean() - right[inside].mean())
            expected += inside.mean() * gap
    assert losses.calibration_error(TA / 3, TLABELS) == pytest.approx(expected)


def test_calibration_error_is_what_overconfidence_costs():
    logits = torch.tensor([[0.0, np.log(4)]] * 10)  # 80 per cent sure of class 1
    for right in (8, 3):
        labels = torch.tensor([1] * right + [0] * (10 - right))
        expected = pytest.approx(0.8 - right / 10, abs=1e-6)
        assert losses.calibration_error(logits, labels) == expected


def test_accuracy_counts():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 5.0]])
    assert losses.accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75
    with pytest.raises(ValueError, match="N > 0"):
        losses.accuracy(logits[:0], torch.empty(0))


def test_agreement_is_symmetric_and_one_with_itself():
    same = np.mean(A.argmax(1) == B.argmax(1))
    assert losses.agreement(TA, TB) == losses.agreement(TB, TA) == pytest.approx(same)
    assert losses.agreement(TA, 3 * TA + 1) == 1
