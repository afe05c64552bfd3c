import numpy as np
import pandas as pd
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr, softmax
from scipy.stats import spearmanr

from fidlib import metrics

rng = np.random.default_rng(0)
A, B = rng.normal(size=(2, 50, 7)) * 3
TA, TB = torch.from_numpy(A), torch.from_numpy(B)


def test_pfl_equals_numpy():
    expected = np.mean([np.linalg.norm(b - a) ** 2 for a, b in zip(A, B, strict=True)])
    assert metrics.pfl(TA, TB).item() == pytest.approx(expected, rel=1e-12)


def test_spl_equals_scipys_relative_entropy():
    host, marked = softmax(A, axis=1), softmax(B, axis=1)
    expected = rel_entr(host, marked).sum(1).mean()
    assert metrics.spl(TA, TB).item() == pytest.approx(expected, rel=1e-12)
    swapped = rel_entr(marked, host).sum(1).mean()
    assert metrics.spl(TB, TA).item() == pytest.approx(swapped, rel=1e-12)
    assert expected != pytest.approx(swapped, rel=1e-2)


def test_spl_stays_finite_for_certain_logits():
    sure = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    assert metrics.spl(sure, sure).item() == 0
    assert metrics.spl(sure, sure.flip(1)).item() == pytest.approx(1000)


def test_twl_sums_over_all_parameters():
    host = {"a": TA, "b": TB[0]}
    marked = {"b": TB[0] + 2, "a": TA - 0.5}
    assert metrics.twl(host, marked).item() == pytest.approx(A.size / 4 + 7 * 4)


def test_twl_refuses_other_architectures():
    with pytest.raises(ValueError, match="one architecture"):
        metrics.twl({"a": TA}, {"a": TA[:3]})


def test_lp_and_pgr_equal_numpy():
    assert metrics.lp(TA, TB).item() == pytest.approx(np.sum((B - A) ** 2))
    norms = [np.linalg.norm(b - a) for a, b in zip(A, B, strict=True)]
    assert metrics.pgr(TA, TB).item() == pytest.approx(np.sum(norms))


def test_pgr_has_a_gradient_where_nothing_differs():
    prototypes = TA.clone().requires_grad_()
    metrics.pgr(TA, prototypes).backward()
    assert torch.equal(prototypes.grad, torch.zeros_like(TA))


@pytest.mark.parametrize("loss", [metrics.pfl, metrics.spl, metrics.lp, metrics.pgr])
def test_losses_are_zero_only_for_the_same(loss):
    assert loss(TA, TA).item() == pytest.approx(0, abs=1e-12)
    assert loss(TA, TB).item() > 0
    with pytest.raises(ValueError, match="same shape"):
        loss(TA, TB[:, :3])


LABELS = rng.integers(0, 7, 50)
TLABELS = torch.from_numpy(LABELS)


def test_losses_are_means_over_images():
    distances = [np.sum((b - a) ** 2) for a, b in zip(A, B, strict=True)]
    assert metrics.feature_distances(TA, TB).tolist() == pytest.approx(distances)
    divergences = rel_entr(softmax(A, axis=1), softmax(B, axis=1)).sum(1)
    assert metrics.divergences(TA, TB).tolist() == pytest.approx(list(divergences))


def test_jensen_shannon_equals_scipys_squared():
    expected = jensenshannon(softmax(A, axis=1), softmax(B, axis=1), axis=1) ** 2
    found = metrics.jensen_shannon(TA, TB)
    assert found.numpy() == pytest.approx(expected, rel=1e-9)
    assert torch.equal(found, metrics.jensen_shannon(TB, TA))
    assert not metrics.jensen_shannon(TA, TA + 1e-17).any()
    sure = torch.tensor([[1000.0, 0.0]])
    assert metrics.jensen_shannon(sure, sure.flip(1)).item() == pytest.approx(np.log(2))


def test_margins_are_over_the_best_other_class():
    expected = [
        row[label] - max(v for k, v in enumerate(row) if k != label)
        for row, label in zip(A, LABELS, strict=True)
    ]
    found = metrics.margins(TA, TLABELS)
    assert found.tolist() == pytest.approx(expected)
    assert torch.equal(found > 0, TA.argmax(1) == TLABELS)


def test_calibration_error_equals_a_loop_over_bins():
    probabilities = softmax(A / 3, axis=1)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == LABELS
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            gap = abs(confidence[inside].mean() - right[inside].mean())
            expected += inside.mean() * gap
    assert metrics.calibration_error(TA / 3, TLABELS) == pytest.approx(expected)


def test_calibration_error_is_what_overconfidence_costs():
    logits = torch.tensor([[0.0, np.log(4)]] * 10)  # 80 per cent sure of class 1
    for right in (8, 3):
        labels = torch.tensor([1] * right + [0] * (10 - right))
        expected = pytest.approx(0.8 - right / 10, abs=1e-6)
        assert metrics.calibration_error(logits, labels) == expected


def test_accuracy_counts():
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 5.0]])
    assert metrics.accuracy(logits, torch.tensor([0, 1, 1, 1])) == 0.75
    with pytest.raises(ValueError, match="N > 0"):
        metrics.accuracy(logits[:0], torch.empty(0))


def test_agreement_is_symmetric_and_one_with_itself():
    same = np.mean(A.argmax(1) == B.argmax(1))
    assert metrics.agreement(TA, TB) == metrics.agreement(TB, TA) == pytest.approx(same)
    assert metrics.agreement(TA, 3 * TA + 1) == 1


def test_rank_correlations_equal_scipys():
    frame = pd.DataFrame(A[:12, :3], columns=["x", "y", "z"])
    found = metrics.rank_correlations(frame)
    expected = spearmanr(frame.x, frame.z).statistic
    assert found.loc["x", "z"] == pytest.approx(expected)
    assert found.loc["y", "y"] == 1


def test_rank_correlations_need_three_models_and_every_value():
    frame = pd.DataFrame({"x": [1.0, 2.0, 4.0], "y": [3.0, 4.0, 5.0]})
    assert (metrics.rank_correlations(frame) == 1).all(axis=None)
    assert metrics.rank_correlations(frame[:2]).isna().all(axis=None)
    with pytest.raises(ValueError, match="y is missing"):
        metrics.rank_correlations(pd.DataFrame({"x": [1, 2, 3], "y": [1, None, 3]}))


def test_pareto_front_is_what_nothing_beats():
    costs = pd.DataFrame(
        {"missed": [0.0, 0.1, 0.1, 0.5, 0.0], "pfl": [9.0, 4.0, 5.0, 1.0, 9.0]},
        index=list("abcde"),
    )
    assert metrics.pareto_front(costs).to_dict() == {
        "a": True,  # as good as e
        "b": True,
        "c": False,  # b misses as many, and costs less
        "d": True,
        "e": True,
    }
