import numpy as np
import pytest
import torch
from scipy.linalg import null_space
from torch import nn

from fidlib.measures import conditions, truth
from tests.little import convolutional


def test_inputs_are_shifted_images_that_no_measure_looks_at(digits):
    host, test = convolutional(0), digits.test
    inputs = truth.inputs(test, host, measured=300, strengths=[3])
    seen = {tuple(x) for x in test.sample(300).images.flatten(1).tolist()}
    asked = {tuple(x) for x in inputs["images"].flatten(1).tolist()}
    assert not seen & asked
    assert len(asked) == len(inputs["images"]) == 200
    kinds = [f"{kind} 3" for kind in (*conditions.KINDS, "fooling")]
    assert list(inputs) == ["images", *kinds, "other keys"]
    for condition in conditions.shifted(inputs["images"], host, strengths=[3]):
        assert torch.equal(inputs[str(condition)], condition.images)
    few = truth.inputs(test, host, measured=20, strengths=[1])
    assert few["blur 1"].shape == (20, 1, 8, 8)
    with pytest.raises(ValueError, match="measures look at 500 of 500 test images"):
        truth.inputs(test, host, measured=500, strengths=[3])


def asked():
    """Logits of a host and three others on two kinds of input."""
    generator = torch.Generator().manual_seed(0)
    host = {k: torch.randn(40, 5, generator=generator) for k in ("images", "noise")}
    moved = {k: logits + 1e-5 for k, logits in host.items()}  # all alike: no change
    turned = {"images": host["images"], "noise": host["noise"].roll(1, 1)}
    near = {k: logits + 0.1 * logits.cos() for k, logits in host.items()}
    return {"host": host, "moved": moved, "turned": turned, "near": near}


def test_what_should_be_the_same_is_checked_on_every_input():
    logits = asked()
    assert 0 <= truth.check_same(logits, ["host", "moved"]) < 1e-6
    pair = (logits[n]["images"].softmax(1) for n in ("host", "near"))
    images = np.abs(np.subtract(*(p.numpy() for p in pair))).max()
    largest = truth.check_same(logits, ["near"], most=1.0)
    assert largest >= images > 0
    assert truth.check_same(logits, ["near"], most=largest) == largest
    with pytest.raises(ValueError, match="rounding is too coarse"):
        truth.check_same(logits, ["near"], most=0.99 * largest)
    with pytest.raises(ValueError, match=r"a probability moved by .* lower factors"):
        truth.check_same(logits, ["moved", "turned"])


def test_changed_answers_are_counted_by_kind_and_on_shifted_images():
    logits = asked()
    host = logits["host"]
    logits["far"] = {"images": host["images"], "noise": -host["noise"]}
    logits = {n: kinds | {"mixtures": kinds["images"]} for n, kinds in logits.items()}
    shares = truth.changed_answers(logits)
    assert list(shares.index) == ["moved", "turned", "near", "far"]
    for name, row in shares.iterrows():
        for kind in ("images", "noise", "mixtures"):
            answers = (logits[n][kind].numpy().argmax(1) for n in ("host", name))
            assert row[kind] == pytest.approx(np.mean(np.not_equal(*answers)))
        assert row.shifted == pytest.approx((row.noise + row.mixtures) / 2)
    assert shares.loc["moved"].eq(0).all()
    assert shares.noise["far"] == 1


def test_moves_are_split_at_the_null_space_of_the_head():
    generator = torch.Generator().manual_seed(0)
    head = nn.Linear(8, 4, bias=False)
    nn.init.normal_(head.weight, generator=generator)
    weight = head.weight.detach().double().numpy()
    blind = null_space(weight - weight.mean(0))
    before = torch.randn(30, 8, generator=generator)
    seen = before.double().numpy() - before.double().numpy() @ blind @ blind.T
    noise = torch.randn(30, 8, generator=generator)
    after = {
        "unseen": before + torch.from_numpy(blind[:, 0]).float(),
        "longer": before + 0.5 * torch.from_numpy(seen).float(),
        "noise": before + noise,
        "still": before,
    }
    table = truth.split_moves(head, before, after)
    assert list(table.index) == list(after)
    assert table.loc["unseen"].tolist() == pytest.approx([1, 0, 0], abs=1e-5)
    assert table.loc["longer"].tolist() == pytest.approx([0, 1, 0], abs=1e-5)
    assert table.loc["still"].isna().all()
    move = (after["noise"] - before).double().numpy()
    ray = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    shares = np.square(move @ blind).sum(), np.square((move * ray).sum(1)).sum()
    expected = np.array(shares) / np.square(move).sum()
    assert table.loc["noise"].tolist()[:2] == pytest.approx(expected, rel=1e-4)
    assert table.loc["noise"].sum() == pytest.approx(1)
